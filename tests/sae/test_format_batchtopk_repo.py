"""Checkpoints of the BatchTopK reference code against its own formulas, and what they may not be."""

import json
import pickle

import pytest
import torch
from torch.testing import assert_close

from facviz.errors import SaeError
from facviz.sae.formats import FORMATS, load_sae, recognise

D_IN, D_SAE, K = 6, 12, 3
CFG = {
    "act_size": D_IN,
    "dict_size": D_SAE,
    "top_k": K,
    "input_unit_norm": True,
    "sae_type": "topk",
    "model_name": "gpt2-small",
    "hook_point": "blocks.8.hook_resid_pre",
    "seq_len": 128,
    "dtype": "torch.float32",
    "bandwidth": 0.001,
}
TYPES = ("vanilla", "topk", "batchtopk", "jumprelu")


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = 5 * randn(40, D_IN, seed=9) + 2


def tensors_of(sae_type, dtype=torch.float32):
    tensors = {
        "b_dec": randn(D_IN, seed=3),
        "b_enc": randn(D_SAE, seed=1) - 1,
        "W_enc": randn(D_IN, D_SAE, seed=0),
        "W_dec": 2 * randn(D_SAE, D_IN, seed=2),
    }
    if sae_type == "jumprelu":
        tensors["jumprelu.log_threshold"] = randn(D_SAE, seed=5) - 0.5
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def write(folder, cfg=None, tensors=None, dtype=torch.float32):
    """One checkpoint; a None removes a key."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CFG | (cfg or {})
    stored = tensors_of(config["sae_type"], dtype) | (tensors or {})
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    torch.save({k: v for k, v in stored.items() if v is not None}, folder / "sae.pt")
    return folder


def reference(x, stored, sae_type, unit_norm, threshold=None):
    """Their forward; batchtopk as top-k of each token, or by the threshold where one is given."""
    w = {name: tensor.float() for name, tensor in stored.items()}
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    x = (x - mean) / (std + 1e-5) if unit_norm else x
    if sae_type == "jumprelu":
        pre = torch.relu(x @ w["W_enc"] + w["b_enc"])
        acts = pre * (pre > w["jumprelu.log_threshold"].exp())
    elif sae_type == "vanilla":
        acts = torch.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    else:
        pre = torch.relu((x - w["b_dec"]) @ w["W_enc"])
        top = pre.topk(K, dim=-1)
        acts = torch.zeros_like(pre).scatter(-1, top.indices, top.values)
        acts = acts if threshold is None else pre * (pre > threshold)
    out = acts @ w["W_dec"] + w["b_dec"]
    return acts, out * std + mean if unit_norm else out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("unit_norm", [True, False])
@pytest.mark.parametrize("sae_type", TYPES)
def test_features_and_reconstructions_are_those_of_the_reference_code(tmp_path, sae_type, unit_norm, dtype):
    folder = write(tmp_path, {"sae_type": sae_type, "input_unit_norm": unit_norm}, dtype=dtype)
    acts, reconstruction = reference(X, tensors_of(sae_type, dtype), sae_type, unit_norm)
    sae = load_sae(folder)
    assert_close(sae.encode_dense(X), acts, rtol=1e-5, atol=1e-5)
    assert_close(sae.reconstruct(X), reconstruction, rtol=1e-5, atol=1e-5)
    assert 0 < (acts > 0).float().mean() < 1


@pytest.mark.parametrize("threshold", [torch.tensor(0.8), torch.linspace(0.1, 2, D_SAE)])
def test_a_stored_threshold_selects_the_features_of_a_batchtopk_sae(tmp_path, threshold):
    sae = load_sae(write(tmp_path, {"sae_type": "batchtopk"}, {"threshold": threshold}))
    acts, reconstruction = reference(X, tensors_of("batchtopk"), "batchtopk", True, threshold)
    assert sae.architecture == "jumprelu"
    assert_close(sae.encode_dense(X), acts, rtol=1e-5, atol=1e-5)
    assert_close(sae.reconstruct(X), reconstruction, rtol=1e-5, atol=1e-5)


def test_the_format_is_recognised_and_provenance_says_what_was_changed(tmp_path):
    folder = write(tmp_path, {"sae_type": "batchtopk"})
    for path in (folder, folder / "config.json", folder / "sae.pt"):
        name, why = recognise(path)
        provenance = load_sae(path).weights.provenance
        assert name == provenance["format"] == "batchtopk_repo"
        assert why == provenance["recognised_by"]
        assert "dict_size" in why
    notes = " ".join(provenance["notes"])
    assert "b_enc is set to zero" in notes
    assert "no threshold is stored" in notes
    (folder / "config.json").write_text("{}")
    assert FORMATS["batchtopk_repo"].sniff(folder) == ""
    (folder / "config.json").write_text("{")
    assert FORMATS["batchtopk_repo"].sniff(folder) == ""


def test_only_a_residual_hook_point_gives_a_layer(tmp_path):
    metadata = {"model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre", "context_size": 128, "layer": 8}
    assert load_sae(write(tmp_path)).metadata == metadata
    assert "layer" not in load_sae(write(tmp_path, {"hook_point": "blocks.8.hook_mlp_out"})).metadata


@pytest.mark.parametrize(
    ("cfg", "tensors", "words"),
    [
        ({"sae_type": "quantile"}, {}, "sae_type 'quantile'"),
        ({"act_size": "6"}, {}, "act_size and dict_size"),
        ({"dict_size": D_SAE + 1}, {}, "has shape"),
        ({"top_k": None}, {}, "k between"),
        ({"top_k": D_SAE + 1}, {}, "k between"),
        ({"tied_weights": True}, {}, "sets tied_weights to 'True'"),
        ({"activation": "abs"}, {}, "sets activation to 'abs'"),
        ({"use_encoder_bias": True}, {}, "use_encoder_bias"),
        ({}, {"W_dec": torch.zeros(D_IN, D_SAE)}, "W_dec has shape"),
        ({}, {"W_dec": None}, "lacks the tensor W_dec"),
        ({}, {"W_skip": torch.zeros(D_IN, D_IN)}, "W_skip"),
        ({}, {"threshold": torch.tensor(1.0)}, "threshold"),
        ({}, {"b_dec": torch.full((D_IN,), torch.inf)}, "NaN or infinite"),
        ({"sae_type": "jumprelu"}, {"jumprelu.log_threshold": None}, "lacks the tensor jumprelu"),
        ({"sae_type": "jumprelu"}, {"jumprelu.log_threshold": torch.full((D_SAE,), 1e3)}, "NaN or infinite"),
    ],
)
def test_what_cannot_be_expressed_is_refused_in_one_sentence_that_names_the_file(tmp_path, cfg, tensors, words):
    base = {"sae_type": "topk"} | cfg
    folder = tmp_path
    if base["sae_type"] not in TYPES:
        write(folder)
        (folder / "config.json").write_text(json.dumps(CFG | cfg))
    else:
        write(folder, cfg, tensors)
    with pytest.raises(SaeError, match=words) as error:
        load_sae(folder)
    message = str(error.value)
    assert str(folder) in message
    assert message.endswith(".")
    assert "\n" not in message


def test_a_pickle_and_a_truncated_file_are_refused(tmp_path):
    weights = write(tmp_path) / "sae.pt"
    whole = weights.read_bytes()
    for content in (pickle.dumps(tensors_of("topk")), whole[: len(whole) // 2], b""):
        weights.write_bytes(content)
        with pytest.raises(SaeError, match=r"sae\.pt"):
            load_sae(tmp_path)


def test_a_folder_without_a_configuration_is_named(tmp_path):
    (write(tmp_path) / "config.json").unlink()
    with pytest.raises(SaeError, match=r"does not hold sae\.pt and config\.json"):
        load_sae(tmp_path, format="batchtopk_repo")
