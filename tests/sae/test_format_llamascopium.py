"""Llamascopium and Llama Scope: their encode with normalisation and decoder-norm gating, written out densely."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from facviz.sae.formats import load_sae
from tests.sae.format_helpers import D, F, K, X, assert_recognised, assert_refused, assert_same, keep_top, rand

HOOK = "blocks.5.hook_resid_post"
NORM = 4.0
SCALE = math.sqrt(D) / NORM
THRESHOLD = "activation_function.log_jumprelu_threshold"
AVERAGE = f"dataset_average_activation_norm.{HOOK}"


def tensors(act_fn="relu", dtype=torch.float32, **change):
    found = {
        "W_E": rand(D, F, seed=0, dtype=dtype),
        "b_E": rand(F, seed=1, dtype=dtype),
        "W_D": rand(F, D, seed=2, dtype=dtype),
        "b_D": rand(D, seed=3, dtype=dtype),
        AVERAGE: torch.tensor(NORM, dtype=dtype),
    }
    if act_fn == "jumprelu":
        found[THRESHOLD] = rand(F, seed=4, dtype=dtype)
    return {name: tensor for name, tensor in (found | change).items() if tensor is not None}


def write(folder, act_fn="relu", stored=None, **config):
    folder.mkdir(parents=True, exist_ok=True)
    base = {"sae_type": "sae", "d_model": D, "expansion_factor": F / D, "act_fn": act_fn, "top_k": K}
    base |= {"norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True, "use_decoder_bias": True}
    base |= {"hook_point_in": HOOK, "hook_point_out": HOOK, "use_glu_encoder": False}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in (base | config).items() if v is not None}))
    save_file(tensors(act_fn) if stored is None else stored, folder / "sae_weights.safetensors")
    return folder


def library(act_fn, x, *, scale, by_norm, stored=None):
    """Its forward: normalise, encode (gated by decoder norms), decode, denormalise; and its feature activations."""
    w = {name: tensor.float() for name, tensor in (tensors(act_fn) if stored is None else stored).items()}
    norms = w["W_D"].norm(dim=1) if by_norm else torch.ones(F)
    pre = (x * scale @ w["W_E"] + w["b_E"]) * norms
    if act_fn == "topk":
        gated = keep_top(pre, K).relu()
    else:
        gated = pre * (pre > (w[THRESHOLD].exp() if act_fn == "jumprelu" else 0.0))
    return gated / norms, (gated / norms @ w["W_D"] + w["b_D"]) / scale, norms


@pytest.mark.parametrize("act_fn", ["relu", "topk", "jumprelu"])
@pytest.mark.parametrize("mode", ["dataset-wise", "inference"])
@pytest.mark.parametrize("by_norm", [True, False])
@pytest.mark.parametrize("named", ["", "config.json", "sae_weights.safetensors"])
def test_each_activation_equals_the_library(tmp_path, act_fn, mode, by_norm, named):
    folder = write(tmp_path, act_fn, norm_activation=mode, sparsity_include_decoder_norm=by_norm)
    sae = assert_recognised(folder / named, "llamascopium", "config.json beside sae_weights.safetensors")
    scale = SCALE if mode == "dataset-wise" else 1.0
    acts, reconstruction, norms = library(act_fn, X, scale=scale, by_norm=by_norm)
    if act_fn == "topk":
        acts = acts * norms  # only the order among competitors needs the norm, so it stays in the activations
    assert_same(sae, acts, reconstruction)
    provenance = sae.weights.provenance
    assert ("input_scale" in provenance) == (mode == "dataset-wise")
    assert ("decoder_norm" in provenance) == (by_norm and act_fn != "relu")
    assert sae.metadata == {"hook_name": HOOK, "layer": 6}


def test_half_precision_weights_load_as_float32(tmp_path):
    stored = tensors("jumprelu", dtype=torch.bfloat16)
    sae = load_sae(write(tmp_path, "jumprelu", stored))
    acts, reconstruction, _ = library("jumprelu", X, scale=SCALE, by_norm=True, stored=stored)
    assert_same(sae, acts, reconstruction)


def test_a_missing_decoder_bias_is_zero_and_a_dead_row_never_fires(tmp_path):
    stored = tensors("jumprelu", b_D=None)
    stored["W_D"][3] = 0
    sae = load_sae(write(tmp_path, "jumprelu", stored, use_decoder_bias=False))
    assert torch.equal(sae.weights.b_dec, torch.zeros(D))
    assert not sae.encode_dense(100 * X)[:, 3].any()


def test_unset_averages_do_not_matter_at_inference(tmp_path):
    stored = tensors("relu", **{AVERAGE: torch.tensor(math.nan)})
    sae = load_sae(write(tmp_path, "relu", stored, norm_activation="inference"))
    assert_close(sae.encode_dense(X), (X @ stored["W_E"] + stored["b_E"]).relu(), rtol=1e-5, atol=1e-5)
    assert_refused(write(tmp_path, "relu", stored), "does not state it")


def test_the_model_comes_from_the_file_beside(tmp_path):
    folder = write(tmp_path)
    (folder / "lm_config.json").write_text('{"model_name": "Qwen/Qwen3-1.7B"}')
    assert load_sae(folder).metadata["model_name"] == "Qwen/Qwen3-1.7B"


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        ({"norm_activation": "token-wise"}, {}, "token-wise"),
        ({"norm_activation": "batch-wise"}, {}, "batch-wise"),
        ({"sae_type": "lorsa"}, {}, "'lorsa'"),
        ({"sae_type": "clt"}, {}, "'clt'"),
        ({"sae_type": "crosscoder"}, {}, "'crosscoder'"),
        ({"hook_point_out": "blocks.5.hook_mlp_out"}, {}, "transcoder"),
        ({"hook_point_in": None}, {}, "transcoder"),
        ({"use_glu_encoder": True}, {}, "gated linear"),
        ({"act_fn": "batchtopk"}, {}, "'batchtopk'"),
        ({"act_fn": "jumprelu"}, {}, "lacks the tensor activation_function"),
        ({"act_fn": "topk", "top_k": None}, {}, "k between"),
        ({"expansion_factor": 3}, {}, "says otherwise"),
        ({"expansion_factor": "3"}, {}, "expansion_factor as a number"),
        ({"d_model": D + 1}, {}, "says otherwise"),
        ({}, {"W_E_glu": torch.zeros(D, F)}, "tensor W_E_glu"),
        ({}, {"W_D": torch.zeros(D, F)}, "W_D has shape"),
        ({}, {AVERAGE: None}, "does not state it"),
        ({}, {AVERAGE: torch.tensor(0.0)}, "does not state it"),
    ],
)
def test_what_cannot_be_expressed_is_refused(tmp_path, config, change, words):
    assert_refused(write(tmp_path, stored=tensors(**change), **config), words)


def test_a_distributed_checkpoint_is_refused_with_the_way_out(tmp_path):
    folder = write(tmp_path)
    (folder / "sae_weights.safetensors").unlink()
    (folder / "sae_weights.dcp").mkdir()
    assert_refused(folder, r"save it again as sae_weights\.safetensors")
    (folder / "sae_weights.dcp").rmdir()
    assert_refused(folder, "has no sae_weights", format="llamascopium")


def old_tensors(dtype=torch.bfloat16):
    t = tensors(dtype=dtype)
    found = {"encoder.weight": t["W_E"].T, "encoder.bias": t["b_E"], "decoder.weight": t["W_D"].T}
    return {name: tensor.contiguous() for name, tensor in (found | {"decoder.bias": t["b_D"]}).items()}


def write_old(root, stored=None, **config):
    folder = root / "Llama3_1-8B-Base-L5R-8x"
    (folder / "checkpoints").mkdir(parents=True)
    base = {"d_model": D, "d_sae": F, "act_fn": "jumprelu", "jump_relu_threshold": 0.4, "top_k": K}
    base |= {"norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": NORM, "out": NORM}}
    base |= {"hook_point_in": HOOK, "hook_point_out": HOOK, "use_decoder_bias": True, "expansion_factor": 8}
    base |= {"apply_decoder_bias_to_pre_encoder": False, "sparsity_include_decoder_norm": True}
    (folder / "hyperparams.json").write_text(json.dumps(base | config))
    save_file(old_tensors() if stored is None else stored, folder / "checkpoints" / "final.safetensors")
    return folder


@pytest.mark.parametrize("by_norm", [True, False])
@pytest.mark.parametrize("pre_bias", [True, False])
@pytest.mark.parametrize("named", ["", "hyperparams.json", "checkpoints/final.safetensors"])
def test_llama_scope_scales_its_threshold_as_its_input(tmp_path, by_norm, pre_bias, named):
    config = {"sparsity_include_decoder_norm": by_norm, "apply_decoder_bias_to_pre_encoder": pre_bias}
    folder = write_old(tmp_path, **config)
    sae = assert_recognised(folder / named, "llamascopium", "hyperparams.json beside checkpoints/final.safetensors")
    w = {name: tensor.float() for name, tensor in old_tensors().items()}
    norms = w["decoder.weight"].norm(dim=0) if by_norm else torch.ones(F)
    inputs = X * SCALE - (w["decoder.bias"] if pre_bias else 0)
    pre = inputs @ w["encoder.weight"].T + w["encoder.bias"]
    acts = pre * (pre * norms > 0.4 * SCALE)
    assert_same(sae, acts, (acts @ w["decoder.weight"].T + w["decoder.bias"]) / SCALE)
    assert sae.metadata == {"hook_name": HOOK, "layer": 6, "model_name": "meta-llama/Llama-3.1-8B"}
    assert sae.weights.provenance["format"] == "llama_scope"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hook_point_out": "blocks.5.hook_mlp_out"}, "transcoder"),
        ({"dataset_average_activation_norm": {"out": 1.0}}, "does not state it"),
        ({"dataset_average_activation_norm": None}, "does not state it"),
        ({"jump_relu_threshold": None}, "jump_relu_threshold as a number"),
        ({"norm_activation": "token-wise"}, "token-wise"),
    ],
)
def test_llama_scope_refuses_what_it_cannot_read(tmp_path, config, words):
    assert_refused(write_old(tmp_path, **config), words)
