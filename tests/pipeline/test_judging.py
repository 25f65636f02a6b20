"""`facviz relevance --source llm`: who is asked about what, what stays undecided, and that coverage can use it."""

from __future__ import annotations

import json

import pytest

from facviz.cli import main
from facviz.llm.ledger import call_rows
from facviz.store.database import Database
from facviz.store.events import explanation_of
from facviz.store.workspace import open_workspace
from facviz.testing.llm_server import Fault, StubServer


def verdict(word):
    return json.dumps({"rationale": "because", "verdict": word})


@pytest.fixture
def root(loop_copy, monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return loop_copy / "workspace"


@pytest.fixture
def openai(monkeypatch):
    def use(server):
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")

    return use


@pytest.fixture
def facviz(root, capsys):
    def run(command, *flags):
        code = main([command, "--workspace", str(root), "--json", "--quiet", *map(str, flags)])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return run


JUDGE = ("--task", "topic", "--labels", "anchor", "--source", "llm")


def explained(root):
    return [row for row in open_workspace(root).explanations().to_pylist() if row["outcome"] == "explained"]


def judged(root):
    with open_workspace(root).reader() as reader:
        [sae] = reader.rows("saes")
        rows = [r for r in reader.rows("relevance", task="topic", sae_id=sae["sae_id"]) if r["source"] == "llm"]
    return {row["feature_id"]: row for row in rows}


def test_only_explained_features_are_judged_and_the_judge_is_named(root, facviz, openai):
    with StubServer([verdict("probably")]) as server:
        openai(server)
        code, told, _ = facviz("relevance", *JUDGE)
    n = len(explained(root))
    assert (code, told["n_judged"], told["probably"], told["n_failed"], told["n_without_spans"]) == (0, n, n, 0, 0)
    assert told["model"] == "openai/stub-model"
    assert told["explainers"] == sorted({row["author"] for row in explained(root)})
    asked = [request.prompt for request in server.requests if request.path.endswith("completions")]
    assert len(asked) == n
    assert {row["author"] for row in judged(root).values()} == {"openai/stub-model"}


def test_a_reply_nobody_can_read_is_no_verdict_and_not_a_no(root, facviz, openai):
    replies = [verdict("yes"), Fault.REFUSAL, "No, I know nothing of it.", verdict("definitely")]
    with StubServer(lambda number, _: replies[number % len(replies)]) as server:
        openai(server)
        code, told, _ = facviz("relevance", *JUDGE, "--concurrency", 1)
    assert code == 0
    assert told["no"] == 0
    assert told["n_failed"] > 0
    assert told["yes"] == len(judged(root)) == told["n_judged"]


def test_coverage_counts_what_the_judge_found_relevant(root, facviz, openai):
    keep = {row["feature_id"] for row in explained(root)}
    with StubServer([verdict("yes")]) as server:
        openai(server)
        facviz("relevance", *JUDGE)
    gap = ("--task", "topic", "--anchor", "anchor", "--seed", "seed", "--relevance-source", "llm", "--kind", "absolute")
    code, measured, said = facviz("coverage", *gap, "--threshold", 0.5)
    assert (code, said) == (0, ""), said
    assert measured["relevance_source"] == "llm"
    assert 0 < measured["n_relevant"] <= len(keep)


def test_words_a_person_changed_are_judged_anew_and_only_they_are_sent_again(root, facviz, openai):
    with StubServer([verdict("maybe")]) as server:
        openai(server)
        facviz("relevance", *JUDGE)
        n_before = sum(request.path.endswith("completions") for request in server.requests)
        row = explained(root)[0]
        with Database(open_workspace(root)) as database:
            database.record("ann", explanation_of(row["sae_id"], row["feature_id"]), "edit", {"text": "her own words"})
        facviz("relevance", *JUDGE)
        asked = [request for request in server.requests if request.path.endswith("completions")]
    assert len(asked) == n_before + 1
    assert "her own words" in asked[-1].prompt
    assert len(call_rows(root)) == n_before + 1


def test_a_dry_run_sends_nothing(facviz, openai, root):
    with StubServer([verdict("yes")]) as server:
        openai(server)
        code, told, _ = facviz("relevance", *JUDGE, "--dry-run")
        assert not [request for request in server.requests if request.path.endswith("completions")]
    assert (code, told["n_calls"], told["usd"]) == (0, len(explained(root)), None)


def test_without_any_model_it_says_what_to_set(facviz, root):
    code, _, said = facviz("relevance", *JUDGE)
    assert code == 2
    assert "ANTHROPIC_API_KEY" in said


@pytest.mark.parametrize("flags", [("--model", "m"), ("--budget-usd", 1), ("--provider", "local")])
def test_a_model_is_refused_where_none_is_asked(facviz, root, flags):
    code, _, said = facviz("relevance", "--task", "topic", "--labels", "anchor", *flags)
    assert (code, said.count("\n")) == (2, 1)
    assert "source llm" in said
