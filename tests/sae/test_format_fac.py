"""FAC-Synthesis `.pth` files: tied, top k of raw pre-activations or dense, named by their file, and never copied."""

import json

import pytest
import torch

from facviz.sae.formats import FORMATS, load_sae, recognise
from tests.sae.format_helpers import D, F, K, X, assert_recognised, assert_refused, assert_same, keep_top, rand


def state(**change):
    found = {
        "mask": torch.ones(F),
        "W_enc": rand(D, F, seed=0),
        "b_enc": rand(F, seed=1),
        "b_dec": rand(D, seed=2),
    }
    return {name: tensor for name, tensor in (found | change).items() if tensor is not None}


def write(path, weight=None, **config):
    weight = state() if weight is None else weight
    config = {"d_inp": D, "d_hide": F, "topK": K} | config
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weight": weight, "config": {k: v for k, v in config.items() if v is not None}}, path)
    return path


def encode(k=None):
    w = state()
    pre = (X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    acts = (pre if k is None else keep_top(pre, k)).relu()
    return acts, acts @ w["W_enc"].T + w["b_dec"]


@pytest.mark.parametrize("name", ["TopK7_l16_h4096_epoch3.pth", "topk_l16_h65k_epoch5.pth", "TopK5_l16_h10_x.pth"])
def test_top_k_keeps_raw_values_before_relu(tmp_path, name):
    sae = assert_recognised(write(tmp_path / name), "fac", "weight and config")
    acts, reconstruction = encode(K)
    assert_same(sae, acts, reconstruction)
    assert (acts > 0).sum(1).min() < K  # a negative value among the top k is lost, not replaced
    assert sae.metadata == {"hook_name": "blocks.15.hook_resid_post", "layer": 16}
    assert sae.weights.W_dec is None
    assert "file name" in sae.weights.provenance["layer"]


def test_the_dense_reading_is_relu_and_only_given_when_asked_for(tmp_path):
    path = write(tmp_path / "TopK7_l16_h4096_epoch3.pth")
    sae = load_sae(path, "fac-dense")
    assert_same(sae, *encode())
    assert sae.weights.provenance["format"] == "fac-dense"
    assert recognise(path)[0] == "fac"
    assert FORMATS["fac-dense"].sniff(path) == ""


@pytest.mark.parametrize("name", ["SAE_l8_h4096_epoch1.pth", "ae_l8_h1_epoch1.pth"])
def test_the_plain_class_is_relu(tmp_path, name):
    sae = load_sae(write(tmp_path / name, topK=None))
    assert_same(sae, *encode())
    assert sae.architecture == "standard"
    assert sae.metadata["layer"] == 8


def test_a_top_k_class_that_states_no_k_has_the_class_default_and_says_so(tmp_path):
    wide = state(W_enc=rand(D, 30, seed=5), b_enc=rand(30, seed=6), mask=torch.ones(30))
    sae = load_sae(write(tmp_path / "TopK7_l2_h30_epoch1.pth", wide, d_hide=30, topK=None))
    assert sae.weights.activation.k == 20
    assert "default" in sae.weights.provenance["k"]


def test_a_renamed_file_is_recognised_by_its_content_and_gives_no_layer(tmp_path):
    sae = assert_recognised(write(tmp_path / "mine.pth"), "fac", "d_inp")
    assert_same(sae, *encode(K))
    assert "layer" not in sae.metadata


def test_a_folder_that_holds_one_such_file_may_be_given_and_names_the_model(tmp_path):
    folder = tmp_path / "models--Zhongzhi1228--sae_llama_l16_h65536" / "snapshots" / "abc"
    path = write(folder / "TopK7_l16_h65k_epoch3.pth")
    sae = load_sae(folder)
    assert sae.metadata["model_name"] == "meta-llama/Llama-3.1-8B-Instruct"
    write(folder / "TopK7_l8_h65k_epoch3.pth")
    assert load_sae(path).metadata["layer"] == 16
    assert_refused(folder, "just one; give the file", format="fac")


def test_a_link_to_a_blob_keeps_the_name_that_tells_the_layer(tmp_path):
    blob = write(tmp_path / "TopK7_l16_h4096_epoch3.pth").rename(tmp_path / "0f3a")
    (tmp_path / "TopK7_l16_h4096_epoch3.pth").symlink_to(blob)
    assert load_sae(tmp_path / "TopK7_l16_h4096_epoch3.pth").metadata["layer"] == 16


def test_an_editing_mask_is_left_off_as_the_published_code_does_and_reported(tmp_path):
    mask = torch.ones(F)
    mask[:2] = 0
    sae = load_sae(write(tmp_path / "TopK7_l16_h4096_epoch3.pth", state(mask=mask)))
    assert_same(sae, *encode(K))
    assert "2 features" in sae.weights.provenance["mask"]


@pytest.mark.parametrize(
    ("change", "config", "words"),
    [
        ({"mask": None}, {}, "lacks the tensor mask"),
        ({"W_dec": torch.zeros(F, D)}, {}, "tensor W_dec"),
        ({"b_enc": torch.zeros(F + 1)}, {}, "b_enc has shape"),
        ({}, {"d_hide": F + 1}, "config says otherwise"),
        ({}, {"topK": F + 1}, "k between"),
        ({}, {"topK": "many"}, "k between"),
        ({"b_dec": torch.full((D,), torch.nan)}, {}, "b_dec holds NaN"),
        ({"W_enc": torch.zeros(1).expand(D, F)}, {}, "larger than what they store"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, config, words):
    assert_refused(write(tmp_path / "TopK7_l16_h4096_epoch3.pth", state(**change), **config), words)


def test_a_pth_of_something_else_is_not_taken_for_one(tmp_path):
    torch.save({"model": torch.zeros(2)}, tmp_path / "a.pth")
    assert_refused(tmp_path / "a.pth", "no known SAE format")
    assert_refused(tmp_path / "a.pth", "no FAC-Synthesis checkpoint", format="fac")


WRITE_LARGE = """
import sys, torch
d, f = 4096, 65536
rows = torch.randn(16, f, generator=torch.Generator().manual_seed(0)) / d**0.5
weight = {"mask": torch.ones(f), "W_enc": rows.repeat(d // 16, 1), "b_enc": torch.zeros(f), "b_dec": torch.zeros(d)}
torch.save({"weight": weight, "config": {"d_inp": d, "d_hide": f, "topK": 20}}, sys.argv[1])
"""
LOAD_LARGE = """
import json, resource, sys, torch
from facviz.sae.formats import load_sae
sae = load_sae(sys.argv[1])
codes = sae.encode(torch.randn(8, 4096, generator=torch.Generator().manual_seed(1)))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"peak": peak, "active": len(codes.values), "d_sae": sae.d_sae}))
"""


@pytest.mark.slow
def test_a_file_of_65536_features_loads_and_encodes_within_three_gigabytes(tmp_path, start_python):
    """Written by a process of its own: a child's peak counts what its parent held when it was started."""
    path = tmp_path / "TopK7_l16_h65k_epoch3.pth"
    assert start_python(WRITE_LARGE, path).wait(timeout=600) == 0
    output, errors = start_python(LOAD_LARGE, path).communicate(timeout=600)
    path.unlink()
    assert output, errors
    found = json.loads(output)
    assert found["d_sae"] == 65536
    assert found["active"] == 8 * 20
    assert found["peak"] <= 3 * 2**30
