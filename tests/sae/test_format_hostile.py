"""Files made to harm, under every format's own file names: each is refused in words, and nothing in it runs."""

import functools
import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from facviz.errors import FacvizError
from facviz.sae.formats import FORMATS, load_sae, recognise

D, F, K = 4, 1024, 2


def matrices(bias, *, lower=False):
    found = {"W_enc": torch.ones(D, F), "W_dec": torch.ones(F, D), "b_enc": torch.zeros(F), "b_dec": bias}
    return {name.lower(): tensor for name, tensor in found.items()} if lower else found


def linear(bias, name="b_dec"):
    return {"encoder.weight": torch.ones(F, D), "encoder.bias": torch.zeros(F), name: bias}


def write_json(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def saelens(folder, bias):
    write_json(folder / "cfg.json", {"architecture": "standard", "d_in": D, "d_sae": F})
    save_file(matrices(bias), folder / "sae_weights.safetensors")
    return folder / "sae_weights.safetensors"


def sparsify(folder, bias):
    cfg = {"activation": "topk", "num_latents": F, "k": K, "d_in": D, "expansion_factor": 1, "normalize_decoder": True}
    write_json(folder / "layers.3" / "cfg.json", cfg)
    save_file(linear(bias) | {"W_dec": torch.ones(F, D)}, folder / "layers.3" / "sae.safetensors")
    return folder / "layers.3" / "sae.safetensors"


def dictionary_learning(folder, bias):
    write_json(folder / "config.json", {"trainer": {"dict_class": "AutoEncoder", "activation_dim": D, "dict_size": F}})
    torch.save(linear(bias, "bias") | {"decoder.weight": torch.ones(D, F)}, folder / "ae.pt")
    return folder / "ae.pt"


def batchtopk_repo(folder, bias):
    write_json(folder / "config.json", {"act_size": D, "dict_size": F, "sae_type": "topk", "top_k": K})
    torch.save(matrices(bias), folder / "sae.pt")
    return folder / "sae.pt"


def gemma_scope(folder, bias):
    arrays = matrices(bias) | {"threshold": torch.ones(F)}
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in arrays.items()})
    return folder / "params.npz"


def gemma_scope_2(folder, bias):
    hook = "model.layers.3.output"
    write_json(folder / "config.json", {"architecture": "jump_relu", "hf_hook_point_in": hook})
    save_file(matrices(bias, lower=True) | {"threshold": torch.ones(F)}, folder / "params.safetensors")
    return folder / "params.safetensors"


def llamascopium(folder, bias):
    cfg = {"sae_type": "sae", "d_model": D, "expansion_factor": F / D, "norm_activation": "inference"}
    write_json(folder / "config.json", cfg | {"hook_point_in": "blocks.3.hook_resid_post"})
    names = {"W_E": "W_enc", "W_D": "W_dec", "b_E": "b_enc", "b_D": "b_dec"}
    save_file({name: matrices(bias)[ours] for name, ours in names.items()}, folder / "sae_weights.safetensors")
    return folder / "sae_weights.safetensors"


def llama_scope(folder, bias):
    cfg = {"norm_activation": "inference", "hook_point_in": "blocks.3.hook_resid_post", "act_fn": "relu"}
    write_json(folder / "hyperparams.json", cfg)
    path = folder / "checkpoints" / "final.safetensors"
    path.parent.mkdir()
    save_file(linear(bias, "decoder.bias") | {"decoder.weight": torch.ones(D, F)}, path)
    return path


def qwen_scope(folder, bias):
    path = folder / "SAE-Res-Qwen3-8B-Base-W1K-L0_2" / "layer3.sae.pt"
    path.parent.mkdir()
    torch.save(matrices(bias) | {"W_enc": torch.ones(F, D), "W_dec": torch.ones(D, F)}, path)
    return path


def fac(folder, bias):
    weight = {"mask": torch.ones(F), "W_enc": torch.ones(D, F), "b_enc": torch.zeros(F), "b_dec": bias}
    path = folder / "TopK7_l16_h4096_epoch3.pth"
    torch.save({"weight": weight, "config": {"d_inp": D, "d_hide": F, "topK": K}}, path)
    return path


def openai(folder, bias):
    found = {"encoder.weight": torch.ones(F, D), "decoder.weight": torch.ones(D, F), "latent_bias": torch.zeros(F)}
    torch.save(found | {"pre_bias": bias, "activation": "ReLU", "activation_state_dict": {}}, folder / "8.pt")
    return folder / "8.pt"


WRITERS = {
    "saelens": [saelens],
    "sparsify": [sparsify],
    "dictionary_learning": [dictionary_learning],
    "batchtopk_repo": [batchtopk_repo],
    "gemma_scope": [gemma_scope, gemma_scope_2],
    "llamascopium": [llamascopium, llama_scope],
    "qwen_scope": [qwen_scope],
    "fac": [fac],
    "fac-dense": [fac],
    "openai": [openai],
}


class Harm:
    """Makes the folder `marker` when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def raw_pickle(marker):
    return pickle.dumps({"weight": Harm(marker)})


def zipped_pickle(marker):
    file = io.BytesIO()
    torch.save(
        {"weight": {"W_enc": torch.ones(D, F), "b_dec": Harm(marker)}, "config": {"d_inp": D, "d_hide": F}}, file
    )
    return file.getvalue()


def object_array(marker):
    file = io.BytesIO()
    np.savez(file, W_enc=np.array([Harm(marker)], dtype=object))
    return file.getvalue()


@functools.cache
def npz_bomb(marker=None):
    file = io.BytesIO()
    np.savez_compressed(file, W_enc=np.zeros(2**24, np.float32))
    return file.getvalue()


def npz_that_lies(marker):
    """A header that claims 2^50 values before four bytes."""
    array, file = io.BytesIO(), io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**50,)}
    np.lib.format.write_array_header_1_0(array, header)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("W_enc.npy", array.getvalue() + bytes(4))
    return file.getvalue()


def torch_that_lies(marker):
    """Eight values described as 2^40."""
    file = io.BytesIO()
    torch.save({"encoder.weight": torch.ones(1).expand(2**20, 2**20), "pre_bias": 0, "latent_bias": 0}, file)
    return file.getvalue()


def endless_header(marker):
    return struct.pack("<Q", 2**60) + b"{}"


def empty(marker):
    return b""


CASES = [(name, writer) for name in FORMATS for writer in WRITERS[name]]
HARMS = [raw_pickle, zipped_pickle, object_array, npz_bomb, npz_that_lies, torch_that_lies, endless_header, empty]


def assert_refused(path, name, marker):
    for format in ("auto", name):
        with pytest.raises(FacvizError) as error:
            load_sae(path, format)
        assert "\n" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize(("name", "writer"), CASES)
def test_the_harmless_file_of_these_tests_loads(tmp_path, name, writer):
    path = writer(tmp_path, torch.zeros(D))
    assert recognise(path)[0] == name.removesuffix("-dense")
    assert (load_sae(path, name).d_in, load_sae(path).d_sae) == (D, F)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize(("name", "writer"), CASES)
def test_harmful_content_is_refused_and_does_nothing(tmp_path, name, writer, harm):
    path, marker = writer(tmp_path, torch.zeros(D)), tmp_path / "marker"
    path.write_bytes(harm(marker))
    assert_refused(path, name, marker)


def test_a_bomb_is_told_by_its_directory_alone(tmp_path):
    (tmp_path / "params.npz").write_bytes(npz_bomb())
    with pytest.raises(FacvizError, match="claims to unpack to 67,108,992 bytes"):
        load_sae(tmp_path)


@pytest.mark.parametrize("kept", [0.3, 0.95])
@pytest.mark.parametrize(("name", "writer"), CASES)
def test_a_truncated_file_is_refused(tmp_path, name, writer, kept):
    path = writer(tmp_path, torch.zeros(D))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert_refused(path, name, tmp_path / "marker")


@pytest.mark.parametrize(("name", "writer"), CASES)
def test_weights_that_are_no_numbers_are_refused(tmp_path, name, writer):
    path = writer(tmp_path, torch.tensor([0.0, torch.nan, 0.0, 0.0]))
    for format in ("auto", name):
        with pytest.raises(FacvizError, match="NaN"):
            load_sae(path, format)


@pytest.mark.parametrize("harm", [raw_pickle, zipped_pickle, object_array])
def test_the_payload_of_these_tests_works(tmp_path, harm):
    """Or the tests above would pass without protecting anything."""
    content = harm(tmp_path / "marker")
    if harm is raw_pickle:
        pickle.loads(content)
    elif harm is zipped_pickle:
        torch.load(io.BytesIO(content), weights_only=False)
    else:
        np.load(io.BytesIO(content), allow_pickle=True)["W_enc"]
    assert (tmp_path / "marker").exists()
