"""Choosing what to write for: every filter equals a loop, the order is asked for, and pages lose nothing."""

from __future__ import annotations

import dataclasses

import pytest

from facviz.store.events import candidate_of
from facviz.views.coverage import coverage_runs
from facviz.views.synthesis import closing
from facviz.views.targets import MOST_RELEVANT, Wanted, find_targets, target_rows


@pytest.fixture
def closed(database):
    [run] = coverage_runs(database, [])
    for sample in database.rows("samples")[:3]:
        database.record("ann", candidate_of(sample["candidate_id"]), "reject")
    return closing(database, run, {})


@pytest.fixture
def missing(database, closed):
    return database.rows("missing", coverage_id=closed.run["coverage_id"])


def test_what_is_not_filled_is_shown_unless_more_is_asked_for(database, closed, missing):
    left = [c.feature_id for c in closed.cells if c.state != "filled"]
    assert len(left) == 3
    assert find_targets(database, closed, Wanted()).ids == tuple(left)
    everything = find_targets(database, closed, Wanted(state="all"))
    assert everything.ids == tuple(r["feature_id"] for r in missing)
    assert everything.states == {"exhausted": 3, "filled": 9}
    assert find_targets(database, closed, Wanted(state="filled")).ids == tuple(
        f for f in everything.ids if f not in left
    )


def test_words_and_numbers_are_searched_for_all_at_once(database, closed):
    everything = {c.feature_id: c.label.lower() for c in closed.cells}
    word = everything[14].split()[-1].strip('"')
    found = find_targets(database, closed, Wanted(search=word.upper(), state="all")).ids
    assert found == tuple(f for f, label in everything.items() if word in f"{f} {label} no theme")
    assert 14 in found
    assert find_targets(database, closed, Wanted(search="14", state="all")).ids == (14,)
    assert find_targets(database, closed, Wanted(search="nothing such", state="all")).ids == ()


def test_the_order_is_by_relevance_or_by_documents_of_the_anchor_set(database, closed, missing):
    by_docs = sorted(missing, key=lambda r: (-r["n_anchor_docs"], r["feature_id"]))
    found = find_targets(database, closed, Wanted(state="all", order="gain"))
    assert found.ids == tuple(r["feature_id"] for r in by_docs)


def test_rows_say_what_a_feature_is_worth_and_how_near_a_text_came(database, closed, missing):
    ids = [r["feature_id"] for r in missing][:4]
    rows = target_rows(database, closed, ids)
    assert [r.feature_id for r in rows] == ids
    candidates = database.rows("feature_bests", coverage_id=closed.run["coverage_id"])
    shares = {r["feature_id"]: r["share"] for r in candidates}
    for row, stored in zip(rows, missing):
        assert row.n_docs == str(stored["n_anchor_docs"])
        assert row.best == f"{shares[row.feature_id]:.2f} × δ"


def test_the_suggested_ones_are_the_first_untried(database, closed, missing):
    assert find_targets(database, closed, Wanted()).suggested == ()
    cells = tuple(dataclasses.replace(c, state="missing" if c.feature_id != 13 else "exhausted") for c in closed.cells)
    found = find_targets(database, dataclasses.replace(closed, cells=cells), Wanted(search="14"))
    untried = [r["feature_id"] for r in missing if r["feature_id"] != 13]
    assert found.suggested == tuple(untried[:MOST_RELEVANT])  # whatever the list is narrowed to
    assert found.ids == (14,)
