"""`facviz evaluate` and the new exports from the command line: keys, lines for people, refusals in one sentence."""

from __future__ import annotations

import json
import random

import pytest

from facviz.testing.workspaces import COMPANIONS, MARKED, NEUTRALS

EVALUATION_KEYS = {
    "eval_id", "task", "coverage_id", "sae_id", "anchor", "seed", "gold", "test", "is_split", "positive", "backbone",
    "layer", "n_test", "n_test_positive", "prevalence", "n_exact_duplicates", "n_near_duplicates", "n_other_themes",
    "n_added", "n_positive", "n_negative", "n_generated_negative", "n_seed_positive", "n_seeds", "rng_seed",
    "n_bootstrap", "ceiling", "frontier", "correlation", "left_out", "versions", "seconds", "arms",
}  # fmt: skip
ASKED = ["evaluate", "--task", "toxicity", "--n-seeds", 1, "--n-bootstrap", 50]


@pytest.fixture
def workspace(loop_copy):
    return loop_copy / "workspace"


@pytest.fixture
def heldout(loop_copy, workspace, told):
    """A labelled set with the role `eval`, no text of which is like one of the corpus."""
    rng = random.Random(2)
    rows = []
    for number in range(40):
        words = rng.sample(MARKED, 2) if number % 2 else []
        words += rng.sample([*COMPANIONS, *NEUTRALS], 8 - len(words))
        rng.shuffle(words)
        rows.append(json.dumps({"text": " ".join(words), "label": number % 2}) + "\n")
    path = loop_copy / "heldout.jsonl"
    path.write_text("".join(rows), encoding="utf-8")
    models = ["--backbone", loop_copy / "models" / "backbone", "--layer", 1]
    told("data", "add", path, "--name", "heldout", "--role", "eval", "--workspace", workspace, *models)
    return workspace


def test_the_object_has_the_keys_that_the_docs_promise_and_is_returned_again(told, heldout):
    found = told(*ASKED, "--workspace", heldout)
    assert set(found) == EVALUATION_KEYS
    assert [arm["arm"] for arm in found["arms"]][:2] == ["seed", "paper"]
    assert found["test"] == "heldout"
    assert told(*ASKED, "--workspace", heldout) == found
    fewer = told(*ASKED, "--arms", "gold", "--n-added", 8, "--workspace", heldout)
    assert [arm["arm"] for arm in fewer["arms"]] == ["seed", "gold"]
    assert fewer["n_added"] == 8


def test_people_read_every_arm_with_its_interval_floor_and_ceiling(facviz, heldout):
    code, output, _ = facviz(*ASKED, "--workspace", heldout, "--quiet")
    assert code == 0
    assert "prevalence 0.500" in output
    for line in ("  seed: 0.500", "  paper: ", "  gold: ", "real labelled texts: "):
        assert line in output
    assert "to seed alone" in output


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--arms", "evol"], "There is no arm 'evol' here"),
        (["--min-added", 900], "No arm has 900 texts to add"),
        (["--n-seeds", 0], "`n_seeds` is 0; it must be above 0"),
        (["--test", "nowhere"], "There is no dataset 'nowhere'"),
        (["--coverage", "x"], "There is no coverage run 'x'"),
    ],
    ids=lambda value: "",
)
def test_what_cannot_run_is_one_sentence_and_exit_code_two(facviz, heldout, more, sentence):
    code, output, errors = facviz(*ASKED, *more, "--workspace", heldout, "--quiet")
    assert (code, output) == (2, "")
    assert sentence in errors
    assert errors.count("\n") == 1


def test_a_run_with_an_evaluation_table_ends_with_it(told, loop_copy, workspace):
    config = loop_copy / "planted.toml"
    heldout = '[evaluation]\ntest = "anchor"\nmin_jaccard = 1.0\nn_seeds = 1\nn_bootstrap = 20\n'
    config.write_text(f"{config.read_text()}\n{heldout}", encoding="utf-8")
    found = told("run", config, "--workspace", workspace)
    assert found["evaluation"]["coverage_id"] == found["coverage"]["coverage_id"]
    assert found["evaluation"]["is_split"]


def test_samples_are_written_in_the_format_asked_for(told, facviz, workspace, tmp_path):
    found = told("export", "samples", "--format", "hf", "--out", tmp_path / "hf", "--workspace", workspace)
    assert (found["format"], found["n_samples"]) == ("hf", 12)
    assert (tmp_path / "hf" / "README.md").is_file()
    code, _, errors = facviz("export", "features", "--format", "hf", "--out", tmp_path / "f", "--workspace", workspace)
    assert code == 2
    assert "There is no use for --format with features" in errors
    code, _, errors = facviz("export", "samples", "--format", "hf", "--out", tmp_path / "hf", "--workspace", workspace)
    assert code == 2
    assert "exists already" in errors


def test_the_report_is_markdown_or_html_by_its_name(told, workspace, tmp_path):
    told("export", "report", "--out", tmp_path / "r.md", "--workspace", workspace)
    assert (tmp_path / "r.md").read_text().startswith("# Feature Activation Coverage report")
    found = told("export", "report", "--out", tmp_path / "r.html", "--workspace", workspace)
    assert found["n_samples"] == 12
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
