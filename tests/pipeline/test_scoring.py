"""`facviz score`: which words are judged on which texts, what is kept beside a score, and when it is out of date."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from facviz.cli import main
from facviz.store.database import Database
from facviz.store.events import append_event, explanation_of, new_event
from facviz.store.workspace import open_workspace
from facviz.testing.llm_server import Fault, StubServer

FEATURES = "12,13,14"


class Embedder:
    """Texts by how often they use each letter."""

    name = "letters"

    def embed(self, texts):
        vectors = np.array([[text.count(c) + 1e-3 for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def root(loop_copy, monkeypatch):
    monkeypatch.setattr("facviz.embeddings.SentenceTransformerEmbedder", Embedder)
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return loop_copy / "workspace"


@pytest.fixture
def anthropic(monkeypatch):
    def use(server):
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-never-a-real-key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)

    return use


@pytest.fixture
def score(root, capsys):
    """Exit status, the object printed, and what was said."""

    def run(*flags):
        code = main(["score", "--dataset", "anchor", "--workspace", str(root), "--json", "--quiet", *map(str, flags)])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return run


def sae_id(root):
    return open_workspace(root).features().to_pylist()[0]["sae_id"]


def scores(root, feature=12):
    with open_workspace(root).reader() as reader:
        return {row["kind"]: row for row in reader.rows("feature_scores", sae_id=sae_id(root), feature_id=feature)}


def edit(root, feature, text):
    target = explanation_of(sae_id(root), feature)
    append_event(root / "events", new_event("ann", target, "edit", {"text": text}))


def yes_to_all(number, body):
    """Every text is active, every mark right, the first text is the odd one."""
    prompt = body["messages"][-1]["content"]
    n = len(re.findall(r'^\d+\. "', prompt, flags=re.MULTILINE))
    properties = body["output_config"]["format"]["schema"]["properties"]
    if "odd_one_out" in properties:
        return json.dumps({"reasoning": "r", "odd_one_out": 1})
    flag = (set(properties["answers"]["items"]["properties"]) - {"item"}).pop()
    return json.dumps({"answers": [{"item": i, flag: True} for i in range(1, n + 1)]})


def test_embedding_needs_no_language_model_and_one_feature_has_a_baseline_too(root, score):
    code, told, _ = score("--features", 12)
    assert (code, told["n_features"], told["embedding"]["n_scored"]) == (0, 1, 1)
    row = scores(root)["embedding"]
    assert (row["judge"], row["chance"], row["is_current"]) == ("letters", 0.5, True)
    assert row["n"] == 2 * row["n_positive"] > 0
    assert row["low"] <= row["accuracy"] <= row["high"]
    assert row["shuffled"] is not None
    parts = json.loads(row["intervals"])
    assert sum(part["n"] for part in parts) == row["n_positive"]


def test_an_edited_explanation_is_unscored_until_it_is_scored_again(root, score):
    score("--features", 12)
    before = scores(root)["embedding"]
    edit(root, 12, "a text somebody wrote")
    assert not scores(root)["embedding"]["is_current"]
    score("--features", 12)
    after = scores(root)["embedding"]
    assert (after["text"], after["explainer"], after["is_current"]) == ("a text somebody wrote", "ann", True)
    assert after["text"] != before["text"]
    with_database = Database(open_workspace(root))
    with_database.sync()
    rows = with_database.rows("feature_scores", sae_id=sae_id(root), feature_id=12)
    assert [(row["text"], row["is_current"]) for row in rows] == [(after["text"], True)]
    with_database.close()


def test_a_score_of_other_features_stays_when_more_are_scored(root, score):
    score("--features", "12")
    first = scores(root, 12)["embedding"]["at"]
    score("--features", "13,14")
    assert scores(root, 12)["embedding"]["at"] == first
    assert scores(root, 13)["embedding"]["accuracy"] is not None


def test_a_judge_is_named_and_its_scores_stand_with_n_balance_and_baseline(root, anthropic, score):
    with StubServer(yes_to_all) as server:
        anthropic(server)
        flags = ("--kinds", "detection,fuzzing,intruder", "--features", FEATURES, "--provider", "anthropic")
        _, needs, _ = score(*flags, "--dry-run")
        assert server.requests == []
        code, told, _ = score(*flags, "--model", "claude-haiku-5-5")
        n_sent = len(server.requests)
        assert score(*flags, "--model", "claude-haiku-5-5")[1] == told
        assert len(server.requests) == n_sent
    assert (code, told["judge"], told["judges_itself"]) == (0, "anthropic/claude-haiku-5-5", False)
    assert needs["n_calls"] == n_sent
    assert told["usd"] > 0
    detection, fuzzing, intruder = (scores(root)[kind] for kind in ("detection", "fuzzing", "intruder"))
    assert (detection["n_positive"], detection["accuracy"]) == (detection["n"] / 2, 0.5)  # it always says yes
    assert (detection["sensitivity"], detection["specificity"]) == (1, 0)
    assert (detection["shuffled"], detection["n_shuffled"]) == (0.5, detection["n"])
    assert (detection["negatives"], fuzzing["negatives"]) == ("nearest", "")
    for row in (detection, fuzzing):
        assert (row["judge"], row["n_invalid"]) == (told["judge"], 0)
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
    # Three held-out spans a feature are too few for a line-up of five, and what was not asked is no score.
    assert (intruder["n"], intruder["accuracy"], intruder["chance"]) == (0, None, 0.2)
    assert (intruder["text"], intruder["explainer"], intruder["shuffled"]) == ("", "", None)


def test_texts_a_score_rests_on_were_never_shown_to_an_explainer(root, anthropic, score):
    with StubServer(yes_to_all) as server:
        anthropic(server)
        score("--kinds", "detection,fuzzing,intruder", "--provider", "anthropic")
    with open_workspace(root).reader() as reader:
        spans = reader.rows("dataset_spans", sae_id=sae_id(root), dataset_id=reader.dataset("anchor")["dataset_id"])
    explain_only = {" ".join("".join(s["tokens"]).split()) for s in spans if s["split"] == "explain"}
    explain_only -= {" ".join("".join(s["tokens"]).split()) for s in spans if s["split"] == "score"}
    told = "\n".join(r.prompt.replace("«", "").replace("»", "") for r in server.requests)
    assert explain_only
    assert not [text for text in explain_only if f'"{text}"' in told]


def test_answers_nobody_can_read_are_counted_and_neither_right_nor_wrong(root, anthropic, score):
    with StubServer([Fault.INVALID_JSON]) as server:
        anthropic(server)
        _, told, _ = score("--kinds", "detection", "--features", 12, "--provider", "anthropic")
    row = scores(root)["detection"]
    assert (row["n"], row["accuracy"]) == (0, None)
    assert told["detection"]["n_invalid"] == row["n_invalid"] > 0
    assert told["detection"]["median"] is None


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--kinds", "guess"), "no score 'guess'"),
        (("--features", 4000), "Feature 4000 cannot be scored"),
        (("--kinds", "detection"), "No language model is set up"),
        (("--provider", "anthropic"), "`provider` is of a judge"),
        (("--budget-usd", 1), "`budget_usd` is of a judge"),
        (("--batch",), "`batch` is of a judge"),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_sentence(score, flags, why):
    code, _, said = score(*flags)
    assert (code, said.count("\n")) == (2, 1)
    assert why in said
