"""The review queue's view: position, neighbours, counts, and what a reader did."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from facviz.store.database import Database
from facviz.store.events import candidate_of, explanation_of, relevance_of
from facviz.store.events import queue_of as queue_of_name
from facviz.store.workspace import open_workspace
from facviz.views.review import (
    Asked,
    describe,
    members_of,
    my_decisions,
    next_repeat,
    pace,
    progress,
    read_queue,
    saved_queues,
)
from facviz.views.scope import look


@pytest.fixture
def planted(loop_copy):
    """Database of the planted loop, open, and what is looked at."""
    with Database(open_workspace(loop_copy / "workspace")) as database:
        database.sync()
        yield database, look(database, database.workspace.manifest)


def queue_of(database, looked, order="value", wanted="waiting", feature_id=None, me="ann"):
    return read_queue(database, looked, Asked(order=order, show=wanted), feature_id, me)


def walk(database, looked, order, wanted="waiting"):
    """Feature ids in the order a reader meets them, by going on until the first comes again."""
    view = queue_of(database, looked, order, wanted, None)
    seen = [view.feature_id]
    while view.after is not None and view.after != seen[0]:
        view = queue_of(database, looked, order, wanted, view.after)
        seen.append(view.feature_id)
        assert view.place == len(seen)
    return seen


def test_going_on_meets_every_explanation_once_missing_ones_first(planted):
    order = walk(*planted, "value")
    assert sorted(order) == list(range(25))
    assert set(order[:12]) == set(range(12, 24))  # the marked words, which the seed set lacks
    assert set(order[12:17]) == {0, 1, 2, 3, 24}  # the rest of what matters
    assert walk(*planted, "density")[-1] in range(12, 24)


def test_a_decision_takes_an_item_out_of_the_queue_and_keeps_what_follows(planted):
    database, looked = planted
    first = queue_of(database, looked, "value", "waiting", None)
    database.record("ann", explanation_of(looked.sae_id, first.feature_id), "accept")
    view = queue_of(database, looked, "value", "waiting", first.feature_id)
    assert (view.feature_id, view.place, view.after, view.n) == (first.feature_id, None, first.after, 24)
    assert (view.counts["waiting"], view.counts["accepted"], view.n_done) == (24, 1, 1)
    assert progress(view) == (1 / 25, "1 of 25 reviewed · 4.0 %")
    assert queue_of(database, looked, "value", "accepted", None).feature_id == first.feature_id


def test_a_skipped_item_still_waits(planted):
    database, looked = planted
    database.record("ann", explanation_of(looked.sae_id, 3), "skip")
    view = queue_of(database, looked, "value", "waiting", None)
    assert (view.counts["waiting"], view.counts["skipped"], view.n_done) == (25, 1, 0)


def test_an_empty_list_has_no_item_and_an_unknown_feature_gives_the_first(planted):
    empty = queue_of(*planted, "value", "flagged", None)
    assert (empty.feature_id, empty.n, empty.after) == (None, 0, None)
    first = queue_of(*planted, "value", "waiting", None)
    assert queue_of(*planted, feature_id=999) == first
    assert Asked.of({"order": "nonsense", "show": "<b>", "weak": "yes", "words": " x "}) == Asked(words="x")


def test_my_decisions_are_mine_newest_first_and_can_be_undone_while_they_hold(planted):
    database, looked = planted
    database.record("ann", explanation_of(looked.sae_id, 1), "accept")
    database.record("ann", explanation_of(looked.sae_id, 2), "accept")
    database.record("bob", explanation_of(looked.sae_id, 2), "flag")
    database.record("ann", relevance_of(looked.sae_id, 1, "toxicity"), "verdict", {"verdict": "no"})
    database.record("ann", candidate_of("c0ffee99"), "approve")
    database.undo("ann", candidate_of("c0ffee99"))
    mine = my_decisions(database, "ann", datetime.now(UTC))
    assert [(d.words, d.can_undo) for d in mine] == [
        ("judged feature 1 for toxicity", True),
        ("accepted feature 2", True),
        ("accepted feature 1", True),
    ]
    assert len(my_decisions(database, "ann", datetime.now(UTC), n=2)) == 2
    assert my_decisions(database, "nobody", datetime.now(UTC)) == []


def test_pace_is_decisions_a_minute_and_unknown_at_first():
    assert pace([], 10.0) == "–"
    assert pace([5.0], 10.0) == "–"
    assert pace([0.0, 20.0, 30.0], 60.0) == "3.00"


def test_filters_narrow_the_list_and_its_counts_and_say_so_in_words(planted):
    database, looked = planted
    missing = read_queue(database, looked, Asked(state="filled"), None, "ann")
    everything = queue_of(database, looked)
    assert 0 < missing.n < everything.n == missing.n_all == 25
    assert (missing.counts["waiting"], missing.n_done) == (missing.n, 0)
    mirror = Asked(words="Mirror")
    view = read_queue(database, looked, mirror, None, "ann")
    assert 12 in members_of(database, looked, mirror, "ann")[0]
    assert view.n == len(members_of(database, looked, mirror, "ann")[0])
    assert read_queue(database, looked, Asked(weak="1"), None, "ann").n == 0  # nothing was scored
    assert describe(Asked(state="filled", weak="1", words="x"), 3) == (
        "3 in “To review”, filled, score at most 0.7, explanation has “x”"
    )


def test_an_item_says_why_it_comes_now(planted):
    database, looked = planted
    parts = dict(queue_of(database, looked).why)
    assert parts["Worth a look"].endswith("= effect × uncertainty")
    assert "missing" in parts["Effect on coverage"]
    assert "not scored" in parts["Uncertainty"]


def test_a_saved_queue_is_the_newest_of_its_name_and_goes_when_removed(planted):
    database, _ = planted
    database.record("ann", queue_of_name("mine"), "save", {"asked": {"show": "flagged"}})
    database.record("bob", queue_of_name("mine"), "save", {"asked": {"show": "mixed", "order": "<b>"}})
    database.record("ann", queue_of_name("other"), "save", {"asked": {}})
    [mine, other] = saved_queues(database)
    assert (mine.name, mine.by, mine.asked) == ("mine", "bob", Asked(show="mixed"))
    database.record("ann", queue_of_name("other"), "remove")
    assert [queue.name for queue in saved_queues(database)] == ["mine"]
    assert Asked.of(mine.asked.address) == mine.asked
    assert other.asked == Asked()


def test_one_decision_in_twenty_is_asked_again_once_there_are_enough(planted):
    database, looked = planted
    assert next_repeat(database, looked.sae_id, "ann", "00000000" * 4) is None
    for feature in range(20):
        database.record("ann", explanation_of(looked.sae_id, feature), "accept")
    drawn = {next_repeat(database, looked.sae_id, "ann", "00000000" + f"{i:08x}" + "0" * 16) for i in range(40)}
    assert drawn == set(range(10))  # not the last ten
    lots = [f"{i:08x}" + "0" * 24 for i in range(1000)]
    assert sum(next_repeat(database, looked.sae_id, "ann", lot) is not None for lot in lots[:200]) == 10
