"""Gemma Scope 1 and 2: JumpReLU without pre-bias against the formula of their release, and what paths tell."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from facviz.sae.formats import load_sae
from tests.sae.format_helpers import D, F, X, assert_recognised, assert_refused, assert_same, rand

PATH = "models--google--gemma-scope-2b-pt-res/snapshots/abc/layer_20/width_16k/average_l0_71"
SECOND = "models--google--gemma-scope-2-4b-it/snapshots/abc/resid_post/layer_17_width_16k_l0_medium"


def tensors(d=D, dtype=torch.float32):
    return {
        "W_enc": rand(d, F, seed=0, dtype=dtype),
        "W_dec": rand(F, d, seed=1, dtype=dtype),
        "b_enc": rand(F, seed=2, dtype=dtype),
        "b_dec": rand(d, seed=3, dtype=dtype),
        "threshold": rand(F, seed=4, dtype=dtype).abs(),
    }


def jump_relu(t, x):
    t = {name.lower(): tensor.float() for name, tensor in t.items()}
    pre = x @ t["w_enc"] + t["b_enc"]
    acts = pre.relu() * (pre > t["threshold"])
    return acts, acts @ t["w_dec"] + t["b_dec"]


def write_first(folder, stored):
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in stored.items()})
    return folder


def write_second(folder, stored, **config):
    folder.mkdir(parents=True)
    hook = "model.layers.17.output"
    base = {"architecture": "jump_relu", "model_name": "google/gemma-3-4b-it", "type": "sae", "width": F, "l0": 60}
    base |= {"hf_hook_point_in": hook, "hf_hook_point_out": hook, "affine_connection": False}
    (folder / "config.json").write_text(json.dumps(base | config))
    save_file(stored, folder / "params.safetensors")
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_the_first_generation_equals_its_formula(tmp_path, dtype, lower, named):
    stored = {name.lower() if lower else name: tensor for name, tensor in tensors(dtype=dtype).items()}
    folder = write_first(tmp_path / PATH, stored)
    sae = assert_recognised(folder if named == "folder" else folder / "params.npz", "gemma_scope", ".npz")
    assert_same(sae, *jump_relu(stored, X))
    assert sae.metadata == {
        "model_name": "google/gemma-2-2b",
        "hook_name": "blocks.20.hook_resid_post",
        "layer": 21,
        "context_size": 1024,
        "prepend_bos": True,
    }
    assert sae.weights.provenance["layer"] == "from the folder layer_20"
    assert "gemma-scope-2b-pt-res" in sae.weights.provenance["model_name"]


@pytest.mark.parametrize(
    ("repo", "model", "hook", "layer"),
    [
        ("gemma-scope-9b-it-res", "google/gemma-2-9b-it", "blocks.7.hook_resid_post", 8),
        ("gemma-scope-27b-pt-res", "google/gemma-2-27b", "blocks.7.hook_resid_post", 8),
        ("gemma-scope-2b-pt-mlp", "google/gemma-2-2b", "blocks.7.hook_mlp_out", None),
        ("gemma-scope-9b-pt-att", "google/gemma-2-9b", "blocks.7.attn.hook_z", None),
    ],
)
def test_model_and_hook_come_from_the_repository_and_only_residual_hooks_give_a_layer(
    tmp_path, repo, model, hook, layer
):
    folder = write_first(tmp_path / repo / "layer_7" / "width_16k" / "average_l0_5", tensors())
    metadata = load_sae(folder).metadata
    assert (metadata["model_name"], metadata["hook_name"], metadata.get("layer")) == (model, hook, layer)


def test_without_a_repository_the_width_names_the_model_and_the_provenance_says_so(tmp_path):
    sae = load_sae(write_first(tmp_path / "layer_3" / "width_16k", tensors(2304)))
    assert sae.metadata["model_name"] == "google/gemma-2-2b"
    assert sae.metadata["layer"] == 4
    assert "2304" in sae.weights.provenance["model_name"]
    assert "names no repository" in sae.weights.provenance["hook_name"]
    attention = load_sae(write_first(tmp_path / "layer_4" / "width_16k", tensors(2048)))
    assert attention.metadata["hook_name"] == "blocks.4.attn.hook_z"
    assert "layer" not in attention.metadata


def test_embedding_saes_are_rescaled_to_the_model(tmp_path):
    stored = tensors()
    folder = write_first(tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k" / "average_l0_6", stored)
    sae = load_sae(folder)
    scaled = stored | {"W_enc": stored["W_enc"] / D**0.5, "W_dec": stored["W_dec"] * D**0.5}
    assert_same(sae, *jump_relu(scaled, X))
    assert sae.metadata["layer"] == 0
    assert "√d_in" in sae.weights.provenance["scale"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("named", ["", "params.safetensors", "config.json"])
def test_the_second_generation_equals_its_formula(tmp_path, dtype, named):
    stored = {name.lower(): tensor for name, tensor in tensors(dtype=dtype).items()}
    folder = write_second(tmp_path / SECOND, stored)
    sae = assert_recognised(folder / named, "gemma_scope", "params.safetensors beside config.json")
    assert_same(sae, *jump_relu(stored, X))
    assert sae.metadata["model_name"] == "google/gemma-3-4b-it"
    assert sae.metadata["hook_name"] == "blocks.17.hook_resid_post"
    assert sae.metadata["layer"] == 18
    assert sae.weights.provenance["generation"] == 2


@pytest.mark.parametrize(
    ("module", "hook", "layer"),
    [
        ("model.layers.5.post_feedforward_layernorm.output", "blocks.5.hook_mlp_out", None),
        ("model.layers.5.self_attn.o_proj.input", "blocks.5.attn.hook_z", None),
        ("model.language_model.layers.5.output", "blocks.5.hook_resid_post", 6),
        ("model.vision_tower.output", None, None),
    ],
)
def test_second_generation_module_names_become_hook_names(tmp_path, module, hook, layer):
    config = {"hf_hook_point_in": module, "hf_hook_point_out": module}
    metadata = load_sae(write_second(tmp_path / "sae", tensors(), **config)).metadata
    assert (metadata.get("hook_name"), metadata.get("layer"), metadata["hf_hook_name"]) == (hook, layer, module)


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        ({"affine_connection": True}, {}, "affine skip connection"),
        ({}, {"affine_skip_connection": torch.zeros(D, D)}, "affine skip connection"),
        ({"type": "transcoder"}, {}, "transcoder"),
        ({"type": "clt"}, {}, "transcoder"),
        ({"hf_hook_point_out": "model.layers.17.mlp.output"}, {}, "transcoder"),
        ({}, {"w_dec": torch.zeros(F, D + 1)}, "transcoder"),
        ({"architecture": "topk"}, {}, "'topk'"),
        ({}, {"extra": torch.zeros(2)}, "tensor extra"),
        ({}, {"threshold": torch.zeros(1)}, "threshold has shape"),
        ({}, {"w_enc": torch.zeros(D)}, "no matrix w_enc"),
    ],
)
def test_the_second_generation_refuses_what_is_no_plain_sae(tmp_path, config, change, words):
    stored = {name.lower(): tensor for name, tensor in tensors().items()} | change
    assert_refused(write_second(tmp_path / "sae", stored, **config), words)


def test_the_first_generation_refuses_transcoders_and_missing_tensors(tmp_path):
    stored = tensors()
    transcoder = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_3" / "width_16k"
    assert_refused(write_first(transcoder, stored), "transcoder")
    stored.pop("threshold")
    assert_refused(write_first(tmp_path / "less", stored), "lacks the tensor threshold")
    assert_refused(tmp_path, "neither params.npz nor", format="gemma_scope")
