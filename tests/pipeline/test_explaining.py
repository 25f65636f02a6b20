"""`facviz explain` with a language model: what is sent and kept, what it may cost, which explanation is shown."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from facviz.cli import main
from facviz.llm.ledger import call_rows
from facviz.store.workspace import open_workspace
from facviz.testing.llm_server import Fault, StubServer

KEY = "sk-ant-never-a-real-key"
GOOD = json.dumps({"reasoning": "r", "outcome": "explained", "text": "words about fruit", "confidence": 0.9})
CANNOT = json.dumps({"reasoning": "r", "outcome": "cannot_tell", "text": "", "confidence": 0.1})


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
    """Points the provider at a stub server."""

    def use(server):
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)

    return use


@pytest.fixture
def explain(root, capsys):
    """Exit status, the object printed, and what was said."""

    def run(*flags):
        code = main(["explain", "--dataset", "anchor", "--workspace", str(root), "--json", "--quiet", *map(str, flags)])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return run


def written(root, author_kind="llm"):
    with open_workspace(root).reader() as reader:
        rows = reader.rows("written_explanations", sae_id=sae_id(root), author=None)
    return [row for row in rows if row["author_kind"] == author_kind]


def sae_id(root):
    return open_workspace(root).features().to_pylist()[0]["sae_id"]


def test_a_model_explains_what_was_asked_for_and_what_is_sent_says_how_to_answer(root, anthropic, explain):
    with StubServer([GOOD]) as server:
        anthropic(server)
        code, told, _ = explain("--provider", "anthropic", "--features", "12,13,14")
    assert (code, told["n_features"], told["n_explained"], told["n_failed"]) == (0, 3, 3, 0)
    assert told["usd"] > 0
    assert len(server.requests) == 3
    for request in server.requests:
        assert not {"temperature", "top_p"} & request.body.keys()
        assert request.body["output_config"]["format"]["type"] == "json_schema"
    assert [row["feature_id"] for row in written(root)] == [12, 13, 14]
    assert {row["author"] for row in written(root)} == {told["model"]}
    assert sum(row["usd"] for row in call_rows(root)) == pytest.approx(told["usd"], abs=1e-6)


def test_no_prompt_shows_a_document_the_score_rests_on(root, anthropic, explain):
    with StubServer([GOOD]) as server:
        anthropic(server)
        explain("--provider", "anthropic")
    with open_workspace(root).reader() as reader:
        spans = reader.rows("dataset_spans", sae_id=sae_id(root), dataset_id=reader.dataset("anchor")["dataset_id"])
    held_out = {" ".join("".join(span["tokens"]).split()) for span in spans if span["split"] == "score"}
    shown = {" ".join("".join(span["tokens"]).split()) for span in spans if span["split"] == "explain"}
    told = [request.prompt.replace("«", "").replace("»", "") for request in server.requests]
    assert any(text in prompt for text in shown for prompt in told)
    assert not [text for text in held_out - shown for prompt in told if f'"{text}"' in prompt]


def test_every_bad_reply_ends_in_a_typed_state_and_nothing_is_lost(root, anthropic, explain):
    replies = [GOOD, CANNOT, Fault.REFUSAL, Fault.TRUNCATION, Fault.INVALID_JSON]
    with StubServer(lambda number, _: replies[number % len(replies)]) as server:
        anthropic(server)
        code, told, _ = explain("--provider", "anthropic", "--concurrency", 1)
    rows = written(root)
    outcomes = Counter(row["outcome"] for row in rows)
    assert code == 0
    assert set(outcomes) <= {"explained", "cannot_tell", "failed"}
    assert (told["n_explained"], told["n_cannot_tell"], told["n_failed"]) == tuple(
        outcomes[name] for name in ("explained", "cannot_tell", "failed")
    )
    assert outcomes["explained"]
    assert outcomes["cannot_tell"]
    assert len(rows) == told["n_features"] == len({row["feature_id"] for row in rows})


def test_a_dry_run_sends_nothing_and_says_what_the_run_then_needs(root, anthropic, explain):
    with StubServer([GOOD]) as server:
        anthropic(server)
        flags = ("--provider", "anthropic", "--max-features", 5)
        _, before, _ = explain(*flags, "--dry-run")
        assert server.requests == []
        assert (before["n_calls"], before["n_cached"]) == (5, 0)
        _, told, _ = explain(*flags)
        assert len(server.requests) == before["n_calls"]
        assert told["usd"] <= before["usd"]
        _, after, _ = explain(*flags, "--dry-run")
        assert (after["n_cached"], after["usd"]) == (5, 0)


def test_a_budget_stops_the_run_in_one_sentence_and_the_next_run_pays_for_the_rest_only(root, anthropic, explain):
    with StubServer([GOOD], output_tokens=4_500) as server:  # near the worst case
        anthropic(server)
        flags = ("--provider", "anthropic", "--max-features", 8, "--concurrency", 1)
        _, needs, _ = explain(*flags, "--dry-run")
        code, _, said = explain(*flags, "--budget-usd", needs["usd"] / 2)
        n_before = len(server.requests)
        assert code == 2
        assert said.count("\n") == 1
        assert "budget" in said
        assert sum(row["usd"] for row in call_rows(root)) <= needs["usd"] / 2
        code, told, _ = explain(*flags, "--budget-usd", 2 * needs["usd"])
    assert (code, told["n_explained"]) == (0, 8)
    assert 0 < n_before < 8
    assert len(server.requests) == 8


def test_a_finished_run_is_not_paid_for_again(anthropic, explain):
    with StubServer([GOOD]) as server:
        anthropic(server)
        first = explain("--provider", "anthropic", "--max-features", 3)
        assert explain("--provider", "anthropic", "--max-features", 3) == first
        assert len(server.requests) == 3


def test_auto_without_a_key_is_the_words_alone(explain):
    code, told, _ = explain("--provider", "auto", "--no-score")
    assert (code, told["provider"]) == (0, "lexical")


def test_a_feature_without_spans_is_named(anthropic, explain):
    with StubServer([GOOD]) as server:
        anthropic(server)
        code, _, said = explain("--provider", "anthropic", "--features", "12,4000")
        assert (code, server.requests) == (2, [])
    assert "Feature 4000 has no spans" in said


def test_a_dead_key_ends_the_run_in_one_sentence(anthropic, explain):
    with StubServer([Fault.DEAD_KEY]) as server:
        anthropic(server)
        code, _, said = explain("--provider", "anthropic", "--max-features", 6, "--concurrency", 1)
        assert len(server.requests) == 1
    assert (code, said.count("\n")) == (2, 1)
    assert KEY not in said


def test_the_explanation_that_held_better_on_unseen_spans_is_shown(root, anthropic, explain):
    explain()  # the words alone, scored
    with StubServer([GOOD]) as server:
        anthropic(server)
        _, told, _ = explain("--provider", "anthropic")
    by_model = {row["feature_id"]: row["score"] for row in written(root)}
    by_words = {row["feature_id"]: row["words"] for row in written(root)}
    shown = {row["feature_id"]: row for row in open_workspace(root).explanations().to_pylist()}
    both = [f for f, score in by_model.items() if score is not None and by_words.get(f) is not None]
    better = [f for f in both if by_model[f] > by_words[f]]
    assert told["n_better_than_lexical"] == len(better)
    explained = {f for f in both if shown[f]["outcome"] == "explained"}
    worded = {row["feature_id"] for row in written(root, "lexical") if row["outcome"] == "explained"}
    assert {f for f in explained & worded if shown[f]["author_kind"] == "llm"} == set(better) & worded
    assert set(both) & worded - set(better), "the words must win somewhere"


def test_what_a_model_wrote_is_not_shown_over_words_that_are_unscored_or_without_a_pattern(root, anthropic, explain):
    explain("--no-score")
    _, first, _ = explain("--no-score")
    assert first["n_scored"] == 0
    with StubServer([GOOD]) as server:
        anthropic(server)
        explain("--provider", "anthropic")
    rows = {row["feature_id"]: row for row in written(root)}
    worded = {row["feature_id"]: row["outcome"] for row in written(root, "lexical")}
    shown = {row["feature_id"]: row["author_kind"] for row in open_workspace(root).explanations().to_pylist()}
    for feature, row in rows.items():
        bar = row["words"] if worded[feature] == "explained" else 0.5
        is_better = row["score"] is not None and bar is not None and row["score"] > bar
        assert shown[feature] == ("llm" if is_better else "lexical")
    assert set(shown.values()) == {"llm", "lexical"}


@pytest.mark.parametrize(
    "flags",
    [
        ("--features", "12"),
        ("--max-features", 3),
        ("--n-candidates", 2),
        ("--budget-usd", 1),
        ("--model", "m"),
        ("--provider", "auto", "--max-features", 3),
        ("--provider", "local", "--no-score"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(explain, root, flags):
    code, _, said = explain(*flags)
    assert (code, said.count("\n")) == (2, 1)
    assert written(root) == []
