"""Baselines on a workspace: equal budgets, what stands in the tables, what pages make of it, and resuming."""

from __future__ import annotations

import json
import random
from contextlib import closing as closed_after

import pytest

from facviz import open_workspace
from facviz.config import CoverageConfig, SynthesisConfig, load_run_config
from facviz.errors import InputError
from facviz.pipeline import synthesis as stage
from facviz.pipeline.session import Session
from facviz.store.database import Database
from facviz.synthesis.baselines import BASELINES
from facviz.synthesis.pool import NO_FEATURE, NOTHING_FIRES
from facviz.testing.fakes import FakeLLM, SilentProgress
from facviz.testing.planted import WORDS
from facviz.views.coverage import coverage_runs
from facviz.views.samples import facets, sample_page
from facviz.views.synthesis import closing

COVERAGE = CoverageConfig(anchor="anchor", seed="seed", kind="absolute", threshold=0.5, n_bootstrap=200)
N_DRAWN = 12 * (2 + 4)


def varied(request):
    rng = random.Random(request.rng_seed)
    return [" ".join(rng.sample(WORDS, 6)) for _ in range(request.n)]


@pytest.fixture
def fake(monkeypatch):
    """Six different words a reply; the request's seed decides."""
    fake = FakeLLM(varied)
    monkeypatch.setattr("facviz.llm.local.LocalChat", lambda backbone: fake)
    return fake


@pytest.fixture
def workspace(loop_copy):
    return open_workspace(loop_copy / "workspace")


@pytest.fixture
def measured(workspace):
    [found] = workspace.manifest.latest_done("coverage").values()
    return found


@pytest.fixture
def synthesize(loop_copy, workspace, measured):
    config = load_run_config(loop_copy / "planted.toml")

    def run(strategy, ask=stage.synthesize, **settings):
        plan = {"pair_candidates": 2, "max_candidates": 4, "batch": 16, "embedding_gate": False} | settings
        session = Session(workspace, config.backbone, SilentProgress())
        return ask(session, measured, COVERAGE, SynthesisConfig(strategy=strategy, **plan))

    return run


@pytest.mark.parametrize("strategy", BASELINES)
def test_a_baseline_draws_what_a_targeted_strategy_may_and_leaves_a_row_a_missing_feature(
    workspace, synthesize, fake, strategy
):
    told = synthesize(strategy)
    assert told["strategy"] == strategy
    assert sum(r.n for r in fake.requests) == told["n_candidates"] == N_DRAWN
    with workspace.reader() as reader:
        rows = reader.rows("candidates", synth_id=told["synth_id"])
        states = reader.rows("synthesis_features", synth_id=told["synth_id"])
    assert len(rows) == len({r["candidate_id"] for r in rows}) == N_DRAWN
    assert {r["strategy"] for r in rows} == {strategy}
    assert [s["feature_id"] for s in states] == list(range(12, 24))
    accepted = [r for r in rows if r["accepted"]]
    credited = {f for r in accepted for f in json.loads(r["gates"])["credited"]}
    assert {s["feature_id"] for s in states if s["state"] == "filled"} == credited
    assert told["missing_coverage"] == round(len(credited) / 12, 4)
    for row in rows:
        words = {WORDS.index(w) for w in row["text"].split()}
        if row["accepted"]:
            assert set(json.loads(row["gates"])["credited"]) == words & set(range(12, 24))
            assert row["act"] == max(2 + f % 4 for f in words & set(range(12, 24)))
        else:
            assert row["feature_id"] == NO_FEATURE


def test_random_feature_aims_at_relevant_features_that_nothing_misses_and_then_at_others(workspace, synthesize, fake):
    told = synthesize("random-feature", features=(12, 13, 14, 15))
    with workspace.reader() as reader:
        rows = reader.rows("candidates", synth_id=told["synth_id"])
    assert {json.loads(r["gates"])["aimed_at"] for r in rows} < {0, 1, 2, 3, 24}
    assert told["n_candidates"] == 4 * 6
    more = synthesize("random-feature")
    with workspace.reader() as reader:
        rows = reader.rows("candidates", synth_id=more["synth_id"])
    aimed_at = {json.loads(r["gates"])["aimed_at"] for r in rows}
    assert len(aimed_at) == 12
    assert {0, 1, 2, 3, 24} < aimed_at <= {*range(12), 24}


def test_what_is_shown_comes_from_the_seed_set(workspace, synthesize, fake):
    synthesize("self-instruct")
    with workspace.reader() as reader:
        seed = {r["text"] for r in reader.rows("documents", dataset_id=reader.dataset("seed")["dataset_id"])}
    shown = {m.content for r in fake.requests for m in r.messages if m.role == "assistant"}
    assert shown <= seed
    assert len(shown) > 10


def test_the_estimate_of_a_baseline_is_its_pool(synthesize, fake):
    for strategy in BASELINES:
        assert synthesize(strategy, stage.estimate)["n_calls"] == N_DRAWN
    synthesize("plain")
    told = synthesize("plain", stage.estimate)
    assert (told["n_calls"], told["n_cached"]) == (N_DRAWN, N_DRAWN)


@pytest.mark.parametrize("strategy", ["evol", "random-feature"])
def test_a_killed_baseline_asks_only_for_what_is_left(workspace, synthesize, fake, monkeypatch, strategy):
    class Killed(FakeLLM):
        left = 2

        def complete(self, requests):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return super().complete(requests)

    killed = Killed(varied)
    monkeypatch.setattr("facviz.llm.local.LocalChat", lambda backbone: killed)
    with pytest.raises(KeyboardInterrupt):
        synthesize(strategy)
    monkeypatch.setattr("facviz.llm.local.LocalChat", lambda backbone: fake)
    told = synthesize(strategy)
    assert 0 < sum(r.n for r in fake.requests) == N_DRAWN - sum(r.n for r in killed.requests) < N_DRAWN
    with workspace.reader() as reader:
        ids = [c["candidate_id"] for c in reader.rows("candidates", synth_id=told["synth_id"])]
    assert len(ids) == len(set(ids)) == N_DRAWN


def test_pages_show_texts_that_belong_to_no_feature(workspace, synthesize, measured, monkeypatch):
    def without_marked(request):
        rng = random.Random(request.rng_seed)
        return [" ".join(rng.sample(WORDS[:12], 5)) for _ in range(request.n)]

    silent = FakeLLM(without_marked)
    monkeypatch.setattr("facviz.llm.local.LocalChat", lambda backbone: silent)
    told = synthesize("plain")
    with closed_after(Database(workspace)) as database:
        database.sync()
        [run] = coverage_runs(database, [])
        [facet] = [f for f in facets(database, told["coverage_id"]) if f.reason == NOTHING_FIRES]
        page = sample_page(database, run, facet, 1)
        closed = closing(database, run, {told["synth_id"]: told})
    assert N_DRAWN / 2 < facet.n <= N_DRAWN  # a few are near copies of the corpus
    assert {(sample.feature_id, sample.is_accepted) for sample in page} == {(NO_FEATURE, False)}
    assert {cell.feature_id for cell in closed.cells} == set(range(12, 24))
    assert closed.n_candidates > N_DRAWN


def test_magpie_of_a_paid_provider_is_refused_before_anything_is_loaded(synthesize, fake):
    with pytest.raises(InputError, match="--provider local"):
        synthesize("magpie", provider="anthropic")
    assert fake.requests == []
