"""`facviz sae load`, `eval` and `match` for people and programs: verdicts, exit codes, promised keys."""

from __future__ import annotations

import json

import pytest

from facviz import open_workspace
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights
from facviz.testing.planted import D_SAE, planted_sae

EVAL_KEYS = {
    "fvu", "normalised_mse", "explained_variance", "l0", "dead", "dead_share", "n_always_on", "n_eval_tokens",
    "l2_ratio", "reconstruction_bias", "duplicates", "density_counts",
}  # fmt: skip
FIDELITY_KEYS = {
    "ce_clean", "ce_sae", "ce_zero", "ce_mean", "delta_ce", "ce_score_zero", "ce_score_mean", "kl_sae", "kl_zero",
    "kl_mean", "kl_score_zero", "kl_score_mean", "n_tokens",
}  # fmt: skip
HEALTH_KEYS = {"verdict", "sentence", "given", "best", "table", "recorded_fvu", "n_tokens"}


@pytest.fixture
def saved(planted_loop):
    return planted_loop / "models" / "sae"


@pytest.fixture
def unfit(tmp_path):
    """An SAE that predicts the opposite of what it reads."""
    w = planted_sae().weights
    weights = SaeWeights(w.W_enc, w.b_enc, -w.W_dec, w.b_dec, Activation("relu"), pre_bias=False)
    return SAE(weights, {"layer": 1}).save(tmp_path / "unfit")


@pytest.fixture
def sae_id(bare):
    with open_workspace(bare).reader() as reader:
        return reader.rows("saes")[0]["sae_id"]


def kinds(workspace):
    with open_workspace(workspace).reader() as reader:
        return {row["kind"] for row in reader.rows("sae_evaluations", sae_id=None)}


def test_loading_prints_the_format_and_ends_with_verdict_and_sentence(facviz, bare, saved):
    code, output, _ = facviz("sae", "load", saved, "--workspace", bare, "--quiet")
    lines = output.splitlines()
    assert code == 0
    assert "format: saelens" in lines
    assert "recognised_by: cfg.json beside sae_weights.safetensors" in lines
    assert lines[-2] == "verdict: plausible"
    assert lines[-1].startswith("The SAE is plausible at layer 1")
    assert not any(line.startswith(("health", "  table")) for line in lines)


def test_loading_as_json_holds_the_whole_health(told, bare, saved):
    found = told("sae", "load", saved, "--workspace", bare)
    assert set(found["health"]) == HEALTH_KEYS
    assert {"format", "recognised_by", "notes", "health_note", "sae_id"} <= set(found)


def test_an_sae_that_does_not_fit_ends_with_one_and_is_stored(facviz, bare, unfit):
    code, output, errors = facviz("sae", "load", unfit, "--workspace", bare, "--json", "--quiet")
    found = json.loads(output)
    assert (code, errors, found["health"]["verdict"]) == (1, "", "does not fit")
    with open_workspace(bare).reader() as reader:
        assert reader.rows("sae", sae_id=found["sae_id"])
    again, *_ = facviz("sae", "eval", found["sae_id"], "--dataset", "anchor", "--health", "--workspace", bare)
    plain, *_ = facviz("sae", "eval", found["sae_id"], "--dataset", "anchor", "--workspace", bare)
    unchecked, *_ = facviz("sae", "load", unfit, "--no-check", "--workspace", bare)
    assert (again, plain, unchecked) == (1, 0, 0)


def test_nothing_is_checked_when_told_not_to_and_a_dataset_can_be_chosen(told, facviz, bare, saved):
    assert told("sae", "load", saved, "--no-check", "--workspace", bare)["health"] is None
    assert told("sae", "load", saved, "--check", "anchor", "--workspace", bare)["health"]["n_tokens"] > 0
    code, output, errors = facviz("sae", "load", saved, "--check", "nowhere", "--workspace", bare, "--quiet")
    assert (code, output) == (2, "")
    assert "no dataset 'nowhere'" in errors


def test_eval_measures_what_is_asked_for_and_keeps_it(told, bare, sae_id):
    plain = told("sae", "eval", sae_id, "--dataset", "anchor", "--workspace", bare)
    assert set(plain) == EVAL_KEYS | {"sae_id", "dataset"}
    assert plain["l0"] == pytest.approx(1 + 52 / 768, abs=0.01)  # one feature a word, and the twin on every "apple"
    found = told("sae", "eval", sae_id, "--dataset", "anchor", "--fidelity", "--probe", "--health", "--workspace", bare)
    assert plain.items() <= found.items()
    assert set(found["fidelity"]) == FIDELITY_KEYS
    assert set(found["health"]) == HEALTH_KEYS
    assert set(found["probing"]["labels"]) == {"0", "1"}
    assert found["fidelity"]["ce_score_zero"] is None  # the planted head is zero, so no ablation does damage
    assert kinds(bare) == {"eval", "health", "fidelity", "probing"}


def test_eval_tells_its_progress_and_prints_no_histogram_to_people(facviz, bare, sae_id):
    code, output, errors = facviz("sae", "eval", sae_id, "--dataset", "anchor", "--workspace", bare)
    assert code == 0
    assert "evaluate" in errors
    assert "fvu: " in output
    assert "density_counts" not in output


def test_match_prints_pairs_of_features(facviz, told, bare, sae_id, unfit):
    other = told("sae", "load", unfit, "--no-check", "--workspace", bare)["sae_id"]
    found = told("sae", "match", sae_id, sae_id, "--workspace", bare)
    assert (found["method"], found["mean_max_cosine"], found["n"]) == ("optimal assignment", 1.0, D_SAE)
    assert all(pair["a"] == pair["b"] for pair in found["best"])
    assert told("sae", "match", sae_id, other, "--workspace", bare)["share_matched"] == 0
    code, output, _ = facviz("sae", "match", sae_id, other, "--workspace", bare)
    assert code == 0
    assert ": cosine " in output
    assert facviz("sae", "match", sae_id, "unknown", "--workspace", bare)[0] == 2
