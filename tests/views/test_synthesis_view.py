"""The closing gap on the planted run: twelve missing features (12-23), each filled by one verified text."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from facviz.store.events import candidate_of
from facviz.views.charts import Cell
from facviz.views.coverage import coverage_runs
from facviz.views.synthesis import asked_features, closing, finished_since, outcome_words, refusal


@pytest.fixture
def run(database):
    [found] = coverage_runs(database, [])
    return found


@pytest.fixture
def planned(database, run):
    """The missing features as synthesis takes them: equally relevant, but for the last bits of their scores."""
    return [row["feature_id"] for row in database.rows("missing", coverage_id=run["coverage_id"])]


@pytest.fixture
def summaries(database):
    return database.workspace.manifest.latest_done("synthesize")


def test_a_finished_planted_run_is_filled_entirely(database, run, planned, summaries):
    closed = closing(database, run, summaries)
    assert [(c.feature_id, c.state) for c in closed.cells] == [(f, "filled") for f in planned]
    assert sorted(planned) == list(range(12, 24))
    assert (closed.n_missing, closed.n_tried, closed.n_filled) == (12, 12, 12)
    assert (closed.n_accepted, closed.n_reviewed) == (12, 0)
    assert closed.n_candidates == len(database.rows("candidates", synth_id=next(iter(summaries))))
    assert (closed.fac_before, closed.fac_after, closed.is_exact) == (0.2941, 1.0, True)
    assert closed.gain == "+71 points"
    assert "all 12 verified texts" in closed.counted


def test_a_rejected_text_takes_its_feature_back_and_makes_the_figure_a_lower_bound(database, run, summaries):
    samples = database.rows("samples")
    database.record("ann", candidate_of(samples[0]["candidate_id"]), "reject")
    database.record("ann", candidate_of(samples[1]["candidate_id"]), "approve")
    closed = closing(database, run, summaries)
    assert [c.feature_id for c in closed.cells if c.state == "exhausted"] == [samples[0]["feature_id"]]
    assert (closed.n_filled, closed.n_approved, closed.n_rejected) == (11, 1, 1)
    assert closed.fac_after == pytest.approx((5 + 11) / 17)
    assert not closed.is_exact
    assert closed.counted.startswith("At least")
    database.undo("ann", candidate_of(samples[0]["candidate_id"]))
    assert closing(database, run, summaries).fac_after == 1.0


def test_what_a_text_activates_beside_its_target_is_said_where_fac_counts_more_than_the_squares(
    database, run, summaries
):
    closed = closing(database, run, summaries)
    assert closed.besides == ""
    fewer = dataclasses.replace(closed, n_filled=10)
    assert fewer.besides.startswith("FAC also counts 2 of the others, above δ in a text that was not written for it")
    assert dataclasses.replace(fewer, is_exact=False).besides == ""
    assert dataclasses.replace(fewer, fac_after=None).besides == ""
    assert dataclasses.replace(fewer, run={**run, "n_anchor": 60_000}).besides == ""


def test_an_unfinished_synthesis_counts_its_targets_only(database, run):
    closed = closing(database, run, {})
    assert closed.fac_after == pytest.approx(17 / 17)
    assert not closed.is_exact


def test_without_texts_every_cell_is_missing_or_waiting(database, run, planned):
    untouched = run | {"coverage_id": "none"}
    assert closing(database, untouched, {}).fac_after is None
    assert closing(database, untouched, {}).gain == ""
    fresh = {"missing": database.rows("missing", coverage_id=run["coverage_id"])}
    queries = SimpleNamespace(rows=lambda name, **_: fresh.get(name, []))
    closed = closing(queries, run, {}, waiting=[13, 15])
    assert {c.feature_id for c in closed.cells if c.state == "waiting"} == {13, 15}
    assert {c.state for c in closed.cells} == {"waiting", "missing"}


def test_a_feature_ends_as_the_furthest_of_several_runs_left_it(database, run, planned):
    ends = [("a", 13, "budget"), ("b", 13, "refused"), ("a", 14, "exhausted"), ("b", 14, "budget"), ("a", 15, "budget")]
    ends += [("a", 16, "paired_only"), ("a", 17, "filled")]
    rows = {
        "missing": database.rows("missing", coverage_id=run["coverage_id"]),
        "synthesis_states": [{"synth_id": s, "feature_id": f, "state": state} for s, f, state in ends],
    }
    closed = closing(SimpleNamespace(rows=lambda name, **_: rows.get(name, [])), run, {})
    states = {c.feature_id: c.state for c in closed.cells}
    assert [states[f] for f in (13, 14, 15, 16)] == ["refused", "exhausted", "budget", "missing"]
    assert states[17] == "exhausted"  # filled, and no text of it is kept
    assert closed.n_tried == 4


def test_without_named_features_a_job_attempts_the_first_ones():
    cells = [Cell(f, "missing", "") for f in (5, 3, 8)]
    assert asked_features(["synthesize", "--max-features", "2"], cells) == [5, 3]
    assert asked_features(["synthesize"], cells) == [5, 3, 8]


def test_only_features_written_since_the_job_began_are_done(database, planned):
    entries = database.workspace.manifest.entries()
    assert sorted(finished_since(entries, 0.0)) == sorted(planned)
    again = [*entries, {**entries[-1], "table": "synthesis_feature", "scope": "synthesize/x", "shard": "12"}]
    assert finished_since(again, 0.0)[-1] == 12  # a later pass ends a feature again
    assert len(finished_since(again, 0.0)) == len(planned)
    assert finished_since(entries, 4_000_000_000.0) == []


def test_the_outcome_is_said_in_counts_that_add_up():
    done = {
        "n_attempted": 4,
        "n_filled": 2,
        "n_accepted": 2,
        "n_candidates": 300,
        "usd": 0.5,
        "stopped": "No money left.",
    }
    done["states"] = {"filled": 2, "exhausted": 1, "budget": 1}
    assert outcome_words(done) == (
        "2 of 4 features filled · 2 verified of 300 texts · 1 budget · 1 exhausted · $0.50 spent · No money left."
    )
    assert outcome_words({"n_attempted": 1, "n_filled": 1, "n_accepted": 1, "n_candidates": 1}) == (
        "1 of 1 feature filled · 1 verified of 1 text"
    )


def test_a_saturated_or_complete_measurement_is_refused_in_a_sentence(run):
    assert refusal(run) == ""
    assert "saturated" in refusal(run | {"saturated": True, "n_missing": 3, "n_anchor": 4})
    assert "nothing to write" in refusal(run | {"n_missing": 0})
