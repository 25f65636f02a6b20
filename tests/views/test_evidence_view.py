"""The evidence for a feature: intervals against plain loops, near misses that never fire, duplicates folded."""

from __future__ import annotations

import math

import pytest

from facviz.explain.sampling import interval_of
from facviz.store.manifest import Scope
from facviz.store.related import active_together, doc_maxima
from facviz.store.schema import MODE, rows_to_arrow
from facviz.views.evidence import (
    Evidence,
    Group,
    evidence_html,
    fold,
    read_intervals,
    read_near_misses,
    read_silent,
)
from facviz.views.heat import SpanRow
from facviz.views.scope import look

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def looked(database):
    return look(database, database.workspace.manifest)


def near_each_other(database, *pairs):
    """Give features nearest features, as if their directions were alike."""
    rows = database.rows("feature_directions", sae_id=database.rows("saes")[0]["sae_id"])
    near = dict(pairs)
    for row in rows:
        row["neighbours"] = near.get(row["feature_id"], [])
        row["neighbour_cosines"] = [0.5] * len(row["neighbours"])
    scope = Scope("sae", rows[0]["sae_id"], "f" * 16)
    database.workspace.manifest.write_shard(scope, "feature", "0", rows_to_arrow("feature", rows))
    database.workspace.manifest.mark_done(scope, {})
    database.sync()


def test_intervals_hold_the_texts_whose_maximum_lies_in_them(database, looked):
    found = read_intervals(database, looked, 3, 8.0, n=4)  # fires with 5 on 48 texts: the third quarter of 8
    assert [len(group.rows) for group in found.groups] == [0, 4, 0, 0]
    strongest, second, *_ = found.groups
    assert (strongest.title, strongest.note) == ("6.00 to 8.00 · strongest", "none of the texts it fires on")
    assert (second.share, second.note) == (1.0, "100 % of the texts it fires on · 48 texts")
    assert {row.act for row in second.rows} == {5.0}
    _, acts = doc_maxima(database, looked.sae_id, looked.dataset.dataset_id, 3)
    assert sum(interval_of(act, 8.0) == 2 for act in acts) == 48


def test_where_too_few_spans_were_kept_other_texts_of_the_interval_follow_without_heat(database, looked):
    [group, *_] = read_intervals(database, looked, 3, 5.0, n=20).groups
    kept = [row for row in group.rows if row.peak is not None]
    drawn = [row for row in group.rows if row.peak is None]
    assert len(kept) == 6  # three of each half
    assert len(drawn) == 14
    assert all(row.act == 5.0 and all(math.isnan(act) for act in row.acts) for row in drawn)
    assert all("drum" in row.text and "was not kept" in row.note for row in drawn)
    assert len({row.note.split(" · ")[0] for row in group.rows}) == 20
    again = read_intervals(database, looked, 3, 5.0, n=20).groups[0].rows
    assert [row.text for row in again] == [row.text for row in group.rows]


def test_a_feature_that_never_fires_says_so(database, looked):
    found = read_intervals(database, looked, 25, 0.0)
    assert (found.groups, found.nothing) == ([], "This feature fires on none of these texts.")
    silent = read_silent(database, looked, 25, n=5)
    assert len(silent.texts) == 5


def test_near_misses_come_from_texts_on_which_the_feature_is_silent(database, looked):
    near_each_other(database, (14, [15, 2]))
    found = read_near_misses(database, looked, 14, 4.0, n=4)
    [group] = found.groups
    assert len(group.rows) == 4
    fires, _ = doc_maxima(database, looked.sae_id, looked.dataset.dataset_id, 14)
    shown = {int(row.note.split()[1]) - 1 for row in group.rows}
    assert not shown & set(fires.tolist())
    for row in group.rows:
        assert (row.peak, row.act, set(row.acts)) == (None, 0.0, {0.0})
        assert "fires here" in row.note
        assert row.tokens[row.ring].strip()
    assert any("feature 15 fires here" in row.note for row in group.rows)


def test_without_nearest_features_there_are_no_near_misses(database, looked):
    assert "No feature with a similar direction" in read_near_misses(database, looked, 14, 4.0).nothing


def test_where_the_nearest_feature_only_fires_together_with_it_there_is_no_near_miss(database, looked):
    near_each_other(database, (0, [24]))  # the twin
    assert "has this one as well" in read_near_misses(database, looked, 0, 2.0).nothing


def test_other_texts_are_silent_and_the_same_every_time(database, looked):
    found = read_silent(database, looked, 14, n=10)
    assert found.texts == read_silent(database, looked, 14, n=10).texts
    assert len(set(found.texts)) == 10
    fires, _ = doc_maxima(database, looked.sae_id, looked.dataset.dataset_id, 14)
    documents = database.rows("documents", dataset_id=looked.dataset.dataset_id)
    active = {row["text"] for row in documents if row["doc_no"] in set(fires.tolist())}
    assert not set(found.texts) & active


def span(text, peak=0, note="text 1"):
    tokens = [f" {word}" for word in text.split()]
    return SpanRow(tokens, [1.0] * len(tokens), 1.0, peak, note=note)


def test_the_same_words_around_the_peak_are_one_row_with_a_count():
    far = " ".join(f"w{i}" for i in range(10))
    rows = [span(f"The End {far}"), span(f"the end {far} more"), span("another one"), span(f"the END {far}")]
    folded = fold(rows)
    assert [row.text for row in folded] == [rows[0].text, "another one"]
    assert folded[0].note == "text 1 · 2 more with these words"
    assert folded[1].note == "text 1"


def test_everything_that_comes_from_texts_is_escaped():
    row = SpanRow([HOSTILE, "x"], [1.0, 0.0], 1.0, 0, before=HOSTILE, after=HOSTILE, note=HOSTILE)
    miss = SpanRow([HOSTILE, HOSTILE], [0.0, 0.0], 1.0, None, note=HOSTILE, act=0.0, ring=1)
    drawn = evidence_html(
        Evidence([Group(HOSTILE, HOSTILE, [row, miss], 2.0)]), mode="dark", context="full", warn=False
    )
    assert "<img" not in drawn
    assert 'data-try="&lt;img src=x onerror=alert(1)&gt;' in drawn
    assert 'style="width:100.0%"' in drawn
    assert 'class="fv-ring"' in drawn


def test_features_on_the_same_texts_equal_a_plain_count(database, looked):
    dataset_id, sae_id = looked.dataset.dataset_id, looked.sae_id
    docs: dict[int, set[int]] = {}
    for row in database.rows("doc_activations", sae_id=sae_id, dataset_id=dataset_id, mode=MODE):
        docs.setdefault(row["feature_id"], set()).add(row["doc_no"])
    for feature in (0, 5, 14):
        mine = docs[feature]
        expected = {
            other: len(mine & theirs) / len(mine | theirs)
            for other, theirs in docs.items()
            if other != feature and len(mine & theirs) >= 3
        }
        found = active_together(database, sae_id, dataset_id, feature, n=100)
        assert {row["feature_id"]: row["jaccard"] for row in found} == pytest.approx(expected)
        order = sorted(expected, key=lambda other: (-expected[other], other))
        assert [row["feature_id"] for row in found] == order
        assert [row["feature_id"] for row in active_together(database, sae_id, dataset_id, feature, n=2)] == order[:2]
    assert active_together(database, sae_id, dataset_id, 25, n=5) == []
