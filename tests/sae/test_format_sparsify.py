"""sparsify folders against that library's own formula, and what they may not be."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from facviz.errors import SaeError
from facviz.sae.formats import FORMATS, load_sae, recognise

D_IN, D_SAE, K = 6, 12, 3
CFG = {
    "activation": "topk",
    "expansion_factor": 2,
    "normalize_decoder": True,
    "num_latents": 0,
    "k": K,
    "multi_topk": False,
    "skip_connection": False,
    "transcode": False,
    "d_in": D_IN,
}


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = 3 * randn(40, D_IN, seed=9)


def tensors_of(dtype=torch.float32):
    tensors = {
        "encoder.weight": randn(D_SAE, D_IN, seed=0),
        "encoder.bias": randn(D_SAE, seed=1) - 6,
        "W_dec": 2 * randn(D_SAE, D_IN, seed=2),
        "b_dec": randn(D_IN, seed=3),
    }
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def write(folder, cfg=None, tensors=None, dtype=torch.float32):
    """One hook point; a None removes a key."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CFG | (cfg or {})
    stored = tensors_of(dtype) | (tensors or {})
    (folder / "cfg.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    save_file({k: v for k, v in stored.items() if v is not None}, folder / "sae.safetensors")
    return folder


def reference(x, stored, activation="topk", k=K):
    """Their forward: ReLU, then the k largest or the largest of each of k groups."""
    w = {name: tensor.float() for name, tensor in stored.items()}
    pre = torch.relu(torch.nn.functional.linear(x - w["b_dec"], w["encoder.weight"], w["encoder.bias"]))
    if activation == "topk":
        values, indices = pre.topk(k, dim=-1)
    else:
        values, indices = pre.unflatten(-1, (k, -1)).max(dim=-1)
        indices = indices + torch.arange(0, pre.shape[1], pre.shape[1] // k)
    acts = torch.zeros_like(pre).scatter(-1, indices, values)
    return acts, acts @ w["W_dec"] + w["b_dec"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_features_and_reconstructions_are_those_of_sparsify(tmp_path, activation, dtype):
    folder = write(tmp_path / "layers.10", {"activation": activation, "multi_topk": True}, dtype=dtype)
    acts, reconstruction = reference(X, tensors_of(dtype), activation)
    sae = load_sae(folder)
    assert_close(sae.encode_dense(X), acts, rtol=1e-5, atol=1e-5)
    assert_close(sae.reconstruct(X), reconstruction, rtol=1e-5, atol=1e-5)
    n_active = (acts > 0).sum(1)
    assert n_active.max() == K
    assert n_active.min() < K, "every token has k positive entries, so the order of ReLU and selection is not tested"


def test_a_folder_from_before_the_activation_was_named_is_topk(tmp_path):
    old = dict.fromkeys(("activation", "transcode", "skip_connection", "multi_topk"))
    sae = load_sae(write(tmp_path / "layers.3", old | {"signed": False, "num_latents": D_SAE}))
    assert_close(sae.encode_dense(X), reference(X, tensors_of())[0], rtol=1e-5, atol=1e-5)
    assert any("top-k as in older versions" in note for note in sae.weights.provenance["notes"])


def test_the_format_is_recognised_and_provenance_says_by_what(tmp_path):
    folder = write(tmp_path / "layers.10")
    for path in (folder, folder / "cfg.json", folder / "sae.safetensors"):
        assert recognise(path) == ("sparsify", "cfg.json beside sae.safetensors")
        assert load_sae(path).weights.provenance["recognised_by"] == "cfg.json beside sae.safetensors"
    assert load_sae(folder).weights.provenance["format"] == "sparsify"
    assert FORMATS["sparsify"].sniff(tmp_path / "nowhere") == ""


@pytest.mark.parametrize(
    ("hook_point", "layer"),
    [("layers.10", 11), ("gpt_neox.layers.0", 1), ("h.4", 5), ("embed_tokens", 0), ("layers.5.mlp", None)],
)
def test_the_folder_name_tells_the_hook_point_and_only_the_residual_stream_has_a_layer(tmp_path, hook_point, layer):
    metadata = load_sae(write(tmp_path / hook_point)).metadata
    assert metadata["hook_name"] == hook_point
    assert metadata.get("layer") == layer


def test_a_parent_with_one_hook_point_is_as_good_as_that_folder(tmp_path):
    write(tmp_path / "layers.2" / "seed1")
    (tmp_path / "config.json").write_text(json.dumps({"model": "m", "ctx_len": 64, "sae": {}}))
    sae = load_sae(tmp_path)
    assert sae.metadata == {"hook_name": "layers.2", "layer": 3, "model_name": "m", "context_size": 64}
    assert_close(sae.reconstruct(X), reference(X, tensors_of())[1], rtol=1e-5, atol=1e-5)


def test_of_several_hook_points_one_is_asked_for_by_name(tmp_path):
    write(tmp_path / "layers.2")
    write(tmp_path / "layers.5.mlp")
    with pytest.raises(SaeError, match=r"holds 2 SAEs; give the folder of one: layers\.2, layers\.5\.mlp\."):
        load_sae(tmp_path)


def test_an_export_to_saelens_keeps_the_layer(tmp_path):
    sae = load_sae(write(tmp_path / "layers.10"))
    copy = load_sae(sae.save(tmp_path / "export"))
    assert copy.metadata["layer"] == 11
    assert copy.metadata["hook_name"] == "blocks.10.hook_resid_post"
    assert torch.equal(copy.encode_dense(X), sae.encode_dense(X))


@pytest.mark.parametrize(
    ("cfg", "tensors", "words"),
    [
        ({"transcode": True}, {}, "is a transcoder"),
        ({"skip_connection": True}, {"W_skip": torch.zeros(D_IN, D_IN)}, "has a skip connection"),
        ({"signed": True}, {}, "negative activations"),
        ({}, {"W_skip": torch.zeros(D_IN, D_IN)}, "W_skip"),
        ({}, {"log_scale": torch.zeros(1)}, "log_scale"),
        ({"activation": "batchtopk"}, {}, "batchtopk"),
        ({"activation": ["topk"]}, {}, "topk"),
        ({"activation": "groupmax", "k": 5}, {}, "share evenly"),
        ({"k": D_SAE + 1}, {}, "k between"),
        ({"k": None}, {}, "does not state k"),
        ({"d_in": None}, {}, "does not state d_in"),
        ({"d_in": "6"}, {}, "does not state d_in"),
        ({"expansion_factor": None}, {}, "neither num_latents nor expansion_factor"),
        ({"num_latents": D_SAE + 1}, {}, "has shape"),
        ({}, {"W_dec": torch.zeros(D_IN, D_SAE)}, "W_dec has shape"),
        ({}, {"W_dec": None}, "lacks the tensor W_dec"),
        ({}, {"encoder.bias": torch.full((D_SAE,), torch.nan)}, "NaN"),
    ],
)
def test_what_cannot_be_expressed_is_refused_in_one_sentence_that_names_the_file(tmp_path, cfg, tensors, words):
    folder = write(tmp_path / "layers.10", cfg, tensors)
    with pytest.raises(SaeError, match=words) as error:
        load_sae(folder)
    message = str(error.value)
    assert str(folder) in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"\x80\x04}q\x00.", b"\xff" * 64])
def test_damaged_and_pickled_weights_are_refused(tmp_path, content):
    folder = write(tmp_path / "layers.10")
    (folder / "sae.safetensors").write_bytes(content)
    with pytest.raises(SaeError, match=r"sae\.safetensors is no whole safetensors file"):
        load_sae(folder)


def test_a_truncated_file_is_refused(tmp_path):
    weights = write(tmp_path / "layers.10") / "sae.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(SaeError, match=r"sae\.safetensors is not a whole safetensors file"):
        load_sae(tmp_path)


def test_a_folder_without_the_files_is_named(tmp_path):
    with pytest.raises(SaeError, match=r"does not hold cfg\.json and sae\.safetensors"):
        load_sae(tmp_path, format="sparsify")
