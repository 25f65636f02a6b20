"""What remains: counts add up, the nearest text is the strongest, and the advice follows from what stopped it."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from facviz.store.events import candidate_of
from facviz.views.coverage import coverage_runs
from facviz.views.remaining import (
    advice,
    near_bar_html,
    remaining_rows,
    remaining_words,
    share_bar_html,
    unreached,
)
from facviz.views.synthesis import closing


@pytest.fixture
def closed(database):
    [run] = coverage_runs(database, [])
    sample = database.rows("samples")[0]
    database.record("ann", candidate_of(sample["candidate_id"]), "reject")
    return closing(database, run, {})


def test_only_what_was_tried_in_vain_is_listed_with_its_nearest_text_and_reasons(database, closed):
    [feature_id] = unreached(closed)
    [row] = remaining_rows(database, closed, [feature_id])
    [synthesis] = database.rows("syntheses")
    own = [c for c in database.rows("candidates", synth_id=synthesis["synth_id"]) if c["feature_id"] == feature_id]
    assert row.sample.row["act"] == max(c["act"] for c in own)
    assert row.share == pytest.approx(max(c["act"] / c["act_threshold"] for c in own))
    assert row.n_candidates == f"{len(own)} candidates"
    reasons = Counter(c["reject_reason"] for c in own if c["reject_reason"])
    assert "rejected by people 1" in row.reasons
    assert all(str(n) in row.reasons for n in reasons.values())
    assert row.advice.startswith("A person turned down")
    assert remaining_words(closed) == "1 feature of 12 could not be reached: 1 exhausted."


def test_nothing_is_said_where_everything_is_filled(database, closed):
    filled = dataclasses.replace(closed, cells=tuple(dataclasses.replace(c, state="filled") for c in closed.cells))
    assert remaining_words(filled) == ""
    assert unreached(filled) == []
    assert remaining_rows(database, filled, []) == []


@pytest.mark.parametrize(
    ("state", "share", "tally", "strategies", "words"),
    [
        ("budget", 0.5, {"target does not fire": 9}, {"paper"}, "raise it"),
        ("refused", None, {"refused": 9}, {"paper"}, "local model"),
        ("exhausted", 0.5, {"withheld": 9, "target does not fire": 1}, {"paper"}, "local model"),
        ("exhausted", 1.2, {"copied": 9, "target does not fire": 1}, {"paper"}, "vary more"),
        ("exhausted", 0.9, {"target does not fire": 9}, {"paper"}, "Nearly there"),
        ("exhausted", 0.5, {"target does not fire": 9}, {"paper"}, "Steer it"),
        ("exhausted", 0.1, {"target does not fire": 9}, {"steered"}, "check the explanation"),
        ("exhausted", 0.5, {"target does not fire": 9}, {"paper+steered"}, "larger model"),
        ("exhausted", None, {}, {"steered"}, "larger model"),
    ],
)
def test_the_advice_follows_from_what_stopped_the_feature(state, share, tally, strategies, words):
    assert words in advice(state, share, tally, strategies)


def test_a_feature_that_no_anchor_text_goes_far_enough_for_is_told_apart():
    tally = {"target does not fire": 9}
    assert "leave it out" in advice("exhausted", 0.95, tally, {"paper"}, is_beyond_anchor=True)
    assert "raise it" in advice("budget", 0.95, tally, {"paper"}, is_beyond_anchor=True)
    assert "vary more" in advice("exhausted", 0.95, {"copied": 9}, {"paper"}, is_beyond_anchor=True)


def test_the_advice_is_told_what_lies_beyond_the_anchor_set(database, closed, monkeypatch):
    [feature_id] = unreached(closed)
    monkeypatch.setattr("facviz.views.remaining.advice", lambda *_, is_beyond_anchor, **__: str(is_beyond_anchor))
    said = []
    for ids in (frozenset(), frozenset({feature_id})):
        monkeypatch.setattr("facviz.views.remaining.beyond_anchor", lambda queries, run, ids=ids: ids)
        [row] = remaining_rows(database, closed, [feature_id])
        said.append(row.advice)
    assert said == ["False", "True"]


def test_bars_end_at_one_and_a_half_thresholds_and_escape_their_words(database, closed):
    assert "width:100.0%" in near_bar_html(9.0, "x")
    assert "width:33.3%" in near_bar_html(0.5, "x")
    assert "fv-near-over" in near_bar_html(1.2, "x", is_verified=True)
    assert "fv-near-over" not in near_bar_html(1.2, "x")  # green means filled, and this text did not count
    assert "&lt;b&gt;" in near_bar_html(0.5, "<b>")
    [row] = remaining_rows(database, closed, unreached(closed))
    assert "silent" in share_bar_html(dataclasses.replace(row, share=None, best="silent"))
