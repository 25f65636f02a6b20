"""What the pipeline hands to synthesis: the evidence of each missing feature, and never a span held out for scoring."""

from __future__ import annotations

import random
import re

import pytest

from facviz import open_workspace
from facviz.config import CoverageConfig, SynthesisConfig, load_run_config
from facviz.errors import CoverageError, InputError
from facviz.pipeline import synthesis as stage
from facviz.pipeline.session import Session
from facviz.pipeline.synthesis_inputs import read_briefs
from facviz.testing.fakes import FakeLLM, SilentProgress
from facviz.testing.planted import WORDS
from facviz.testing.workspaces import NEUTRALS

COVERAGE = CoverageConfig(anchor="anchor", seed="seed", kind="absolute", threshold=0.5, n_bootstrap=200)


def asked_for(request) -> int:
    """Feature whose word the last turn asks for: the briefs' words are the only ones of the corpus in it."""
    return next(f for f in range(12, 24) if re.search(rf"\b{WORDS[f]}\b", request.messages[-1].content))


@pytest.fixture
def fake(monkeypatch):
    """Writes for every request one text that fires the asked-for word, then one that does not, in turn."""

    def script(request):
        word = WORDS[asked_for(request)]
        others = [WORDS[request.rng_seed // 12**i % 12] for i in range(3)]
        return [" ".join([*others, WORDS[slot % 12], word if slot % 2 == 0 else "island"]) for slot in range(request.n)]

    fake = FakeLLM(script)
    monkeypatch.setattr("facviz.llm.local.LocalChat", lambda backbone: fake)
    return fake


@pytest.fixture
def workspace(loop_copy):
    return open_workspace(loop_copy / "workspace")


@pytest.fixture
def synthesize(loop_copy, workspace):
    config = load_run_config(loop_copy / "planted.toml")

    def run(measured=None, **settings):
        [found] = workspace.manifest.latest_done("coverage").values()
        plan = {"pair_candidates": 2, "max_candidates": 4, "batch": 4, "embedding_gate": False} | settings
        session = Session(workspace, config.backbone, SilentProgress())
        return stage.synthesize(session, measured or found, COVERAGE, SynthesisConfig(**plan))

    return run


def spans_of(workspace, feature, split):
    [anchor] = [d for d in workspace.manifest.latest_done("data").values() if d["name"] == "anchor"]
    rows = workspace.spans(feature).to_pylist()
    return ["".join(r["tokens"]) for r in rows if r["split"] == split and r["dataset_id"] == anchor["dataset_id"]]


def test_requests_show_every_evidence_span_and_none_held_out_for_scoring(workspace, synthesize, fake):
    told = synthesize()
    assert (told["n_attempted"], told["n_filled"]) == (12, 12)
    assert len(fake.requests) == 2 * 12
    said = {feature: [] for feature in range(12, 24)}
    for request in fake.requests:
        said[asked_for(request)].append(" | ".join(m.content for m in request.messages))
    for feature, (first, guided) in said.items():
        shown, held_out = (spans_of(workspace, feature, split) for split in ("explain", "score"))
        assert shown
        assert all(span in first for span in shown)
        assert held_out
        assert not any(span in text for span in held_out for text in (first, guided))
        assert f'fires on "{WORDS[feature]}"' in first
        assert guided != first


def test_no_more_evidence_is_shown_than_asked_for(workspace, synthesize, fake):
    synthesize(evidence_spans=1, max_features=1)
    first = fake.requests[0]
    assert sum(m.role == "assistant" for m in first.messages) == 1


def test_the_most_relevant_features_come_first_and_their_number_is_in_the_record(workspace, synthesize, fake):
    told = synthesize(max_features=3)
    with workspace.reader() as reader:
        missing = [r["feature_id"] for r in reader.rows("missing", coverage_id=told["coverage_id"])]
        tried = [r["feature_id"] for r in reader.rows("synthesis_features", synth_id=told["synth_id"])]
    assert tried == sorted(missing[:3])
    assert told["n_attempted"] == 3


def test_a_brief_says_how_far_the_anchor_set_goes(workspace):
    [measured] = workspace.manifest.latest_done("coverage").values()
    with workspace.reader() as reader:
        briefs = read_briefs(reader, measured, COVERAGE, SynthesisConfig())
        dataset_id = reader.dataset("anchor")["dataset_id"]
        every = reader.rows("stats", sae_id=measured["sae_id"], mode=measured["mode"], dataset_id=dataset_id)
    largest = {row["feature_id"]: row["max_act"] for row in every}
    assert len(briefs) == 12
    assert {b.feature_id: b.anchor_max for b in briefs} == {b.feature_id: largest[b.feature_id] for b in briefs}
    assert not any(b.is_beyond_anchor for b in briefs)


def test_asked_for_features_are_attempted_once_each(workspace, synthesize, fake):
    told = synthesize(features=(20, 13, 20))
    with workspace.reader() as reader:
        candidates = reader.rows("candidates", synth_id=told["synth_id"])
    assert told["n_attempted"] == 2
    assert told["n_candidates"] == len(candidates)
    assert {c["feature_id"] for c in candidates} == {13, 20}


def test_a_feature_that_is_not_missing_is_refused(synthesize, fake):
    with pytest.raises(InputError, match="Feature 3 is not among the 12 missing features"):
        synthesize(features=(12, 3))


def test_nothing_missing_is_nothing_to_do(workspace, synthesize, fake):
    [measured] = workspace.manifest.latest_done("coverage").values()
    with pytest.raises(CoverageError, match="nothing to synthesize"):
        synthesize(measured | {"n_missing": 0})


def test_without_any_accepted_sample_coverage_stays_where_it_was(workspace, synthesize, fake, monkeypatch):
    silent = FakeLLM(["apple bread cloud drum"])
    monkeypatch.setattr("facviz.llm.local.LocalChat", lambda backbone: silent)
    told = synthesize()
    assert (told["n_filled"], told["n_accepted"], told["missing_coverage"]) == (0, 0, 0.0)
    assert told["fac_after"] == told["fac_before"] == round(5 / 17, 4)
    assert told["pair_states"] == {"none_active": 12}


def test_fac_afterwards_counts_the_seed_set_and_the_samples_together(workspace, synthesize, monkeypatch):
    def script(request):
        rng = random.Random(request.rng_seed)
        words = [WORDS[asked_for(request)], "island"] * (request.n // 2)
        return [" ".join([*rng.sample(NEUTRALS, 4), word]) for word in words]

    monkeypatch.setattr("facviz.llm.local.LocalChat", lambda backbone: FakeLLM(script))
    told = synthesize(max_features=3)
    assert told["n_filled"] == 3
    assert told["missing_coverage"] == round(3 / 12, 4)
    assert told["fac_after"] == round((5 + 3) / 17, 4)


def test_an_accepted_sample_stands_in_no_corpus_and_only_once(workspace, synthesize, fake):
    told = synthesize(per_feature=2)
    with workspace.reader() as reader:
        accepted = [c["text"] for c in reader.rows("candidates", synth_id=told["synth_id"]) if c["accepted"]]
        corpus = {
            r["text"] for d in reader.rows("datasets") for r in reader.rows("documents", dataset_id=d["dataset_id"])
        }
    assert len(accepted) == len(set(accepted)) == told["n_accepted"] == 24
    assert not corpus & set(accepted)


def test_how_every_feature_ended_is_in_the_summary_with_who_wrote(workspace, synthesize, fake):
    told = synthesize(max_features=3)
    assert told["states"] == {"filled": 3}
    assert (told["strategy"], told["generator"], told["usd"], told["stopped"]) == ("paper", "scripted/fake", 0.0, None)


def test_progress_says_how_many_are_filled_so_far(workspace, synthesize, fake, monkeypatch):
    told = []
    monkeypatch.setattr(SilentProgress, "update", lambda self, *words: told.append(words))
    synthesize(max_features=3)
    features = [(done, total, note) for stage, done, total, note in told if stage == "synthesize features"]
    assert features == [(n, 3, f"features, {n} of {n} filled") for n in (1, 2, 3)]
    batches = [note for stage, _, _, note in told if stage == "synthesize"]
    assert len(batches) == 3 * 2
    assert all(", 0 of 0 filled" in note for note in batches[:3])


def test_one_step_leaves_no_pairs_and_its_samples_name_their_strategy_and_prompt(workspace, synthesize, fake):
    told = synthesize(strategy="one-step", max_features=3)
    with workspace.reader() as reader:
        candidates = reader.rows("candidates", synth_id=told["synth_id"])
        pairs = reader.rows("pairs", synth_id=told["synth_id"])
    assert (told["n_filled"], told["pair_states"], pairs) == (3, {}, [])
    assert {(c["strategy"], c["step"], c["prompt"]) for c in candidates} == {
        ("one-step", "one-step", "synthesize_request.v1")
    }


def test_a_dry_run_asks_nothing_loads_nothing_and_knows_what_is_done(workspace, synthesize, fake, monkeypatch):
    monkeypatch.setattr(stage, "synthesize", stage.estimate)
    before = synthesize(per_feature=4)
    assert (before["n_calls"], before["n_cached"], before["n_features"]) == (12 * (2 + 4), 0, 12)
    assert (before["usd"], before["seconds"], fake.requests) == (0.0, None, [])
    monkeypatch.undo()


def test_a_killed_synthesis_asks_only_for_what_is_left(workspace, synthesize, fake, monkeypatch):
    class Killed(FakeLLM):
        def complete(self, requests):
            if len(self.requests) == 8:  # two waves of four features
                raise KeyboardInterrupt
            return super().complete(requests)

    killed = Killed(fake._script)
    monkeypatch.setattr("facviz.llm.local.LocalChat", lambda backbone: killed)
    with pytest.raises(KeyboardInterrupt):
        synthesize()
    monkeypatch.setattr("facviz.llm.local.LocalChat", lambda backbone: fake)
    told = synthesize()
    assert len(fake.requests) == 2 * 12 - 8
    assert not {r.rng_seed for r in killed.requests} & {r.rng_seed for r in fake.requests}
    with workspace.reader() as reader:
        ids = [c["candidate_id"] for c in reader.rows("candidates", synth_id=told["synth_id"])]
    assert len(ids) == len(set(ids)) == told["n_candidates"]
