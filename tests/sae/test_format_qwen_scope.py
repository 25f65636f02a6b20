"""Qwen-Scope files: no pre-bias, both matrices transposed, k and width from the repository's name."""

import pytest
import torch

from tests.sae.format_helpers import D, X, assert_recognised, assert_refused, assert_same, keep_top, rand

F, K = 1024, 50
REPO = "models--Qwen--SAE-Res-Qwen3-8B-Base-W1K-L0_50"


def state(dtype=torch.float32):
    return {
        "W_enc": rand(F, D, seed=0, dtype=dtype),
        "W_dec": rand(D, F, seed=1, dtype=dtype),
        "b_enc": rand(F, seed=2, dtype=dtype),
        "b_dec": rand(D, seed=3, dtype=dtype),
    }


def write(folder, stored, name="layer20.sae.pt"):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(stored, folder / name)
    return folder / name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_layer_equals_the_published_formula(tmp_path, dtype, named):
    path = write(tmp_path / REPO / "snapshots" / "abc", state(dtype))
    sae = assert_recognised(path if named == "file" else path.parent, "qwen_scope", "layer20.sae.pt")
    w = {name: tensor.float() for name, tensor in state(dtype).items()}
    acts = keep_top(X @ w["W_enc"].T + w["b_enc"], K)
    assert (acts >= 0).all()
    assert_same(sae, acts, acts @ w["W_dec"].T + w["b_dec"])
    assert sae.metadata == {
        "model_name": "Qwen/Qwen3-8B-Base",
        "hook_name": "blocks.20.hook_resid_post",
        "layer": 21,
    }
    assert "L0_50" in sae.weights.provenance["k"]


def test_a_folder_that_does_not_tell_k_is_refused_with_the_name_it_needs(tmp_path):
    assert_refused(write(tmp_path / "plain", state()), "SAE-Res-<model>-W<n>K-L0_<k>")


def test_a_width_that_contradicts_the_folder_is_refused(tmp_path):
    assert_refused(write(tmp_path / "SAE-Res-Qwen3-8B-Base-W64K-L0_50", state()), "1024 features")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"W_dec": rand(F, D, seed=1)}, "W_dec has shape"),
        ({"threshold": torch.zeros(F)}, "tensor threshold"),
        ({"b_enc": "no tensor"}, "table of tensors"),
        ({"b_enc": torch.full((F,), torch.nan)}, "b_enc holds NaN"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, words):
    assert_refused(write(tmp_path / REPO, state() | change), words)


def test_of_several_layers_one_must_be_named(tmp_path):
    path = write(tmp_path / REPO, state())
    write(tmp_path / REPO, state(), "layer21.sae.pt")
    assert_refused(tmp_path / REPO, "holds just one; give the file", format="qwen_scope")
    assert assert_recognised(path, "qwen_scope", "layer20").metadata["layer"] == 21
