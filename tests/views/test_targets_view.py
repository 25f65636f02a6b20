"""Choosing what to write for: every filter equals a loop, the order is asked for, and pages lose nothing."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from facviz.store.events import candidate_of
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.views import targets
from facviz.views.coverage import coverage_runs
from facviz.views.html_page import html_text
from facviz.views.report import stakeholder_report
from facviz.views.synthesis import closing
from facviz.views.targets import MOST_RELEVANT, Wanted, beyond_anchor, find_targets, target_rows


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


def test_where_labels_tell_no_themes_the_groups_of_the_map_do(database, closed, missing):
    assert find_targets(database, closed, Wanted()).themes == {}
    sae_id, manifest = closed.run["sae_id"], database.workspace.manifest
    names = {0: "drums & more", 1: "<b>food</b>"}
    places = [{"feature_id": f, "cluster": f % 3 - 1} for f in range(26)]  # -1 is in no group
    for table, rows in (
        ("feature_map", [{"sae_id": sae_id, "umap_x": 0.0, "umap_y": 0.0, **row} for row in places]),
        ("feature_cluster", [{"sae_id": sae_id, "cluster": c, "name": n, "n_features": 9} for c, n in names.items()]),
    ):
        scope = Scope(table, sae_id, "1")
        manifest.write_shard(scope, table, "0", rows_to_arrow(table, rows))
        manifest.mark_done(scope, {})
    database.sync()
    group_of = {r["feature_id"]: names.get(r["cluster"], "no theme") for r in places}
    found = find_targets(database, closed, Wanted(state="all"))
    assert found.themes == Counter(group_of[r["feature_id"]] for r in missing)
    theme = names[1]
    narrowed = find_targets(database, closed, Wanted(state="all", theme=theme))
    assert narrowed.ids == tuple(r["feature_id"] for r in missing if group_of[r["feature_id"]] == theme)
    [row] = target_rows(database, closed, narrowed.ids[:1])
    assert row.theme == theme
    page, _ = stakeholder_report(database, database.workspace.manifest)
    assert html_text(theme) in page


class Weaker:
    """The same tables, where the anchor set shows some features no more strongly than a sample must."""

    def __init__(self, database, ids):
        self._database, self._ids = database, ids

    def __getattr__(self, name):
        return getattr(self._database, name)

    def rows(self, name, **parameters):
        if name == "beyond_anchor":
            return [{"feature_id": f} for f in self._ids]
        return self._database.rows(name, **parameters)


@pytest.mark.parametrize("margin", [0.5, 1.05, 9.0, 99.0])
def test_beyond_the_anchor_set_is_what_fires_in_no_anchor_text_as_a_sample_must(
    database, closed, missing, margin, monkeypatch
):
    run = closed.run
    of = {"sae_id": run["sae_id"], "mode": run["mode"], "dataset_id": database.dataset(run["anchor"])["dataset_id"]}
    largest = {s["feature_id"]: s["max_act"] for s in database.rows("stats", **of)}
    by_hand = {r["feature_id"] for r in missing if largest[r["feature_id"]] <= margin * r["act_threshold"]}
    monkeypatch.setattr(targets, "VERIFICATION_MARGIN", margin)
    assert beyond_anchor(database, run) == by_hand
    assert len(by_hand) == {0.5: 0, 1.05: 0, 9.0: 9, 99.0: 12}[margin]


def test_what_is_beyond_the_anchor_set_comes_last_by_gain_and_among_those_suggested(database, closed, missing):
    ids = [r["feature_id"] for r in missing]
    weaker = Weaker(database, ids[:2])
    untried = dataclasses.replace(closed, cells=tuple(dataclasses.replace(c, state="missing") for c in closed.cells))
    found = find_targets(weaker, untried, Wanted(order="gain"))
    assert set(found.ids[-2:]) == set(ids[:2])
    assert found.suggested == tuple(ids[2 : 2 + MOST_RELEVANT])
    assert find_targets(weaker, untried, Wanted()).ids == tuple(ids)  # by relevance nothing moves
    assert [row.is_beyond_anchor for row in target_rows(weaker, untried, ids[1:3])] == [True, False]
    few = dataclasses.replace(closed, cells=tuple(c for c in untried.cells if c.feature_id in ids[:2]))
    assert find_targets(weaker, few, Wanted()).suggested == tuple(ids[:2])  # better these than none


def test_rows_say_what_a_feature_is_worth_and_how_near_a_text_came(database, closed, missing):
    ids = [r["feature_id"] for r in missing][:4]
    rows = target_rows(database, closed, ids)
    assert [r.feature_id for r in rows] == ids
    candidates = database.rows("feature_bests", coverage_id=closed.run["coverage_id"])
    shares = {r["feature_id"]: r["share"] for r in candidates}
    for row, stored in zip(rows, missing):
        assert row.n_docs == f"{stored['n_anchor_docs']} texts"
        assert row.best == f"{shares[row.feature_id]:.2f} × δ"


def test_the_suggested_ones_are_the_first_untried(database, closed, missing):
    assert find_targets(database, closed, Wanted()).suggested == ()
    cells = tuple(dataclasses.replace(c, state="missing" if c.feature_id != 13 else "exhausted") for c in closed.cells)
    found = find_targets(database, dataclasses.replace(closed, cells=cells), Wanted(search="14"))
    untried = [r["feature_id"] for r in missing if r["feature_id"] != 13]
    assert found.suggested == tuple(untried[:MOST_RELEVANT])  # whatever the list is narrowed to
    assert found.ids == (14,)
