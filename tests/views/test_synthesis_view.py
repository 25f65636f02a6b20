"""The closing gap on the planted run: twelve missing features (12-23), each filled by one verified text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from facviz.cli.parser import build_parser
from facviz.errors import InputError
from facviz.store.events import candidate_of
from facviz.views.charts import Cell
from facviz.views.coverage import coverage_runs
from facviz.views.synthesis import (
    Settings,
    asked_features,
    closing,
    finished_since,
    pace_of,
    projection,
    refusal,
    synthesis_arguments,
    targets,
)


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
    assert targets(queries, closed).suggested == tuple(f for f in planned if f not in (13, 15))[:8]


def test_targets_are_named_by_theme_and_words(database, run, planned, summaries):
    closed = closing(database, run, summaries)
    rows = [{"feature_id": 13, "theme": "late"}, {"feature_id": 14, "theme": "late"}]
    found = targets(SimpleNamespace(rows=lambda *_, **__: rows), closed)
    assert found.ids == tuple(planned)
    assert found.themes == {"late": (13, 14)}
    assert found.labels[13].startswith("late: ")
    assert not found.labels[12].startswith("late")
    assert found.suggested == ()


def test_the_command_asks_for_the_same_measurement_and_the_chosen_features(run):
    arguments = synthesis_arguments(run, [14, 12], Settings(2, 40, 0.7, 0.95))
    parsed = build_parser().parse_args(arguments)
    assert (parsed.command, parsed.features, parsed.per_feature) == ("synthesize", [14, 12], 2)
    assert (parsed.max_candidates, parsed.temperature, parsed.top_p) == (40, 0.7, 0.95)
    assert (parsed.threshold, parsed.kind, parsed.anchor, parsed.seed) == (0.5, "absolute", "anchor", "seed")
    assert parsed.n_bootstrap == 200
    assert asked_features(arguments, ()) == [14, 12]
    with pytest.raises(InputError, match="choose at least one"):
        synthesis_arguments(run, [], Settings())


def test_without_named_features_a_job_attempts_the_first_ones():
    cells = [Cell(f, "missing", "") for f in (5, 3, 8)]
    assert asked_features(["synthesize", "--max-features", "2"], cells) == [5, 3]
    assert asked_features(["synthesize"], cells) == [5, 3, 8]


def test_only_features_written_since_the_job_began_are_done(database, planned):
    entries = database.workspace.manifest.entries()
    assert finished_since(entries, 0.0) == planned
    assert finished_since(entries, 4_000_000_000.0) == []


def test_the_projection_knows_time_only_from_a_run_on_this_machine():
    job = SimpleNamespace(arguments=("synthesize",), result={"n_candidates": 100}, started_at=1000.0, ended_at=1050.0)
    other = SimpleNamespace(arguments=("coverage",), result={"fac": 1}, started_at=0.0, ended_at=9.0)
    running = SimpleNamespace(arguments=("synthesize",), result=None, started_at=0.0, ended_at=None)
    assert pace_of([other, running]) is None
    assert pace_of([running, other, job]) == 0.5
    assert "time unknown" in projection(3, Settings(), None)
    assert projection(2, Settings(max_candidates=84), 0.6) == (
        "At most 200 candidates for 2 features · 2 min 00 s at most at the pace of the last run"
    )


def test_a_saturated_or_complete_measurement_is_refused_in_a_sentence(run):
    assert refusal(run) == ""
    assert "saturated" in refusal(run | {"saturated": True, "n_missing": 3, "n_anchor": 4})
    assert "nothing to write" in refusal(run | {"n_missing": 0})
