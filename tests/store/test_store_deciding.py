"""Deciding on many things at once, and taking back what one person did, whatever others did in between."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facviz.errors import InputError
from facviz.store.database import DATABASE_FILE, Database, rebuild_database
from facviz.store.deciding import Choice
from facviz.store.events import explanation_of, read_events, relevance_of
from facviz.store.workspace import Workspace


@pytest.fixture
def database(workspace):
    with Database(workspace) as opened:
        opened.sync()
        yield opened


def statuses(database):
    rows = database.rows("decisions", kind="explanation", sae_id=None)
    return {row["feature_id"]: row["status"] for row in rows}


def accept(*features):
    return [Choice(explanation_of("sae", f), "accept", seen="") for f in features]


def test_a_batch_is_one_write_one_undo_and_one_redo(workspace, database):
    events = database.record_many("ann", accept(1, 2, 3))
    assert statuses(database) == {1: "accepted", 2: "accepted", 3: "accepted"}
    assert len({e["payload"]["batch"] for e in events}) == 1
    database.undo_mine("ann")
    assert statuses(database) == {}
    database.redo_mine("ann")
    assert statuses(database) == {1: "accepted", 2: "accepted", 3: "accepted"}
    assert len(read_events(workspace.root / "events")) == 9
    (workspace.root / DATABASE_FILE).unlink()
    database.close()
    rebuild_database(workspace)
    with Database(workspace) as again:
        assert statuses(again) == {1: "accepted", 2: "accepted", 3: "accepted"}


def test_a_batch_with_one_outdated_choice_writes_nothing(workspace, database):
    database.record("bob", explanation_of("sae", 2), "flag")
    with pytest.raises(InputError, match="bob changed this"):
        database.record_many("ann", accept(1, 2, 3))
    assert statuses(database) == {2: "flagged"}
    assert len(read_events(workspace.root / "events")) == 1


def test_a_batch_of_nothing_is_nothing(workspace, database):
    assert database.record_many("ann", []) == []
    assert read_events(workspace.root / "events") == []


def test_undoing_my_decisions_leaves_what_others_did(database):
    database.record("ann", explanation_of("sae", 1), "accept")
    database.record("ann", explanation_of("sae", 2), "accept")
    database.record("bob", explanation_of("sae", 2), "reject", {"reason": "wrong"})
    database.record("bob", explanation_of("sae", 3), "accept")
    database.undo_mine("ann")
    assert statuses(database) == {1: "accepted", 2: "rejected", 3: "accepted"}
    database.undo_mine("ann")
    assert statuses(database) == {2: "rejected", 3: "accepted"}
    with pytest.raises(InputError, match="nothing of yours"):
        database.undo_mine("ann")


def test_a_named_decision_is_taken_back_once_with_its_batch(database):
    batch = database.record_many("ann", accept(1, 2))
    later = database.record("ann", explanation_of("sae", 3), "accept")
    database.undo_mine("ann", batch[0]["event_id"])
    assert statuses(database) == {3: "accepted"}
    with pytest.raises(InputError, match="nothing of yours"):
        database.undo_mine("ann", batch[0]["event_id"])
    with pytest.raises(InputError, match="nothing of yours"):
        database.undo_mine("bob", later["event_id"])


def test_an_undo_counts_only_the_kinds_asked_for(database):
    database.record("ann", explanation_of("sae", 1), "accept")
    database.record("ann", relevance_of("sae", 1, "topic"), "verdict", {"verdict": "no"})
    database.undo_mine("ann", kinds=["explanation"])
    assert statuses(database) == {}
    assert len(database.rows("decisions", kind="relevance", sae_id=None)) == 1


def test_a_redo_is_refused_after_a_new_decision(database):
    database.record("ann", explanation_of("sae", 1), "accept")
    database.undo_mine("ann")
    database.record("ann", explanation_of("sae", 2), "accept")
    with pytest.raises(InputError, match="no undo of yours"):
        database.redo_mine("ann")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["one", "two", "undo", "redo"]), max_size=14))
def test_any_sequence_of_batches_undos_and_redos_equals_two_stacks(tmp_path_factory, actions):
    with Database(Workspace.create(tmp_path_factory.mktemp("ws"))) as database:
        done, undone, number = [], [], 0
        for action in actions:
            if action in ("one", "two"):
                n = 1 if action == "one" else 2
                done.append(tuple(range(number, number + n)))
                undone.clear()
                database.record_many("ann", accept(*done[-1]))
                number += n
            elif action == "undo" and done:
                undone.append(done.pop())
                database.undo_mine("ann")
            elif action == "redo" and undone:
                done.append(undone.pop())
                database.redo_mine("ann")
        assert sorted(statuses(database)) == sorted(f for batch in done for f in batch)


def test_a_decision_of_nobody_is_refused(database):
    with pytest.raises(InputError, match="carries a name"):
        database.record(" ", explanation_of("sae", 1), "accept")
