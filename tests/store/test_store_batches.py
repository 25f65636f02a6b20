"""Many decisions as one: whole on disk or not at all, undone as one, and nobody's own decision touched."""

from __future__ import annotations

import json

import pytest

from facviz.errors import InputError
from facviz.store.batches import MAX_BATCH, decide_all, last_batch, undo_batch
from facviz.store.database import Database
from facviz.store.events import LOG_FILE, explanation_of, read_events, relevance_of
from facviz.store.saved_views import MAX_NAME, remove_view, save_view, saved_views

TARGETS = [explanation_of("sae", i) for i in range(5)]


@pytest.fixture
def database(workspace):
    with Database(workspace) as opened:
        opened.sync()
        yield opened


def status_of(database):
    return {r["feature_id"]: r["status"] for r in database.rows("decisions", kind="explanation", sae_id="sae")}


def test_what_somebody_decided_is_left_alone_and_one_undo_takes_the_rest_back(database):
    database.record("bob", TARGETS[1], "reject", {"reason": "wrong"})
    database.record("bob", TARGETS[2], "accept")
    database.undo("bob", TARGETS[2])
    batch = decide_all(database, "ann", TARGETS, "accept")
    assert batch.n_decisions == 4
    assert status_of(database) == {0: "accepted", 1: "rejected", 2: "accepted", 3: "accepted", 4: "accepted"}
    assert last_batch(database, "ann").n_decisions == 4
    assert undo_batch(database, "ann", batch.batch_id) == 4
    assert status_of(database) == {1: "rejected"}
    assert last_batch(database, "ann") is None
    with pytest.raises(InputError, match="taken back already"):
        undo_batch(database, "ann", batch.batch_id)


def test_a_later_decision_on_one_of_them_stays_when_the_batch_is_taken_back(database):
    batch = decide_all(database, "ann", TARGETS, "accept")
    database.record("bob", TARGETS[0], "edit", {"text": "better words"})
    database.undo("ann", TARGETS[3])
    assert undo_batch(database, "bob", batch.batch_id) == 4
    assert status_of(database) == {0: "edited"}


def test_a_batch_is_one_line_so_that_a_kill_leaves_all_of_it_or_none(database, workspace):
    decide_all(database, "ann", TARGETS, "accept")
    log = workspace.root / "events" / LOG_FILE
    [line] = log.read_bytes().splitlines()
    for cut in (1, len(line) // 2, len(line) - 1):
        log.write_bytes(line[:cut])
        assert read_events(log.parent) == []
    log.write_bytes(line + b"\n")
    assert len(read_events(log.parent)) == 5


def test_a_rebuilt_file_and_another_reader_see_the_batch(database, workspace):
    decide_all(database, "ann", TARGETS, "accept")
    with workspace.reader() as reader:
        assert len(reader.rows("decisions", kind="explanation", sae_id="sae")) == 5
    database.close()
    database.path.unlink()
    with Database(workspace) as again:
        again.sync()
        assert set(status_of(again).values()) == {"accepted"}
        assert last_batch(again, "ann").n_decisions == 5


def test_verdicts_carry_what_was_said(database):
    targets = [relevance_of("sae", i, "my task") for i in range(3)]
    batch = decide_all(database, "ann", targets, "verdict", {"verdict": "no"})
    rows = database.rows("decisions", kind="relevance", sae_id="sae")
    assert [(r["task"], r["verdict"]) for r in rows] == [("my task", "no")] * 3
    undo_batch(database, "ann", batch.batch_id)
    assert database.rows("decisions", kind="relevance", sae_id="sae") == []


def test_nothing_left_to_decide_and_too_much_at_once_are_one_sentence(database):
    decide_all(database, "ann", TARGETS, "accept")
    with pytest.raises(InputError, match="every one of these already"):
        decide_all(database, "bob", TARGETS, "accept")
    with pytest.raises(InputError, match="narrow them"):
        decide_all(database, "bob", TARGETS * (MAX_BATCH // 5 + 1), "accept")


def test_only_the_newest_batch_that_holds_is_the_last(database):
    first = decide_all(database, "ann", TARGETS[:2], "accept")
    second = decide_all(database, "ann", TARGETS[2:], "accept")
    assert last_batch(database, "ann").batch_id == second.batch_id
    undo_batch(database, "ann", second.batch_id)
    assert last_batch(database, "ann").batch_id == first.batch_id
    assert last_batch(database, "bob") is None


def test_saved_views_are_kept_replaced_and_removed(database, workspace):
    save_view(database, "ann", "features", " the  gap / mine ", {"coverage": "missing"})
    save_view(database, "bob", "features", "Ambers", {"sort": "max"})
    save_view(database, "bob", "other", "elsewhere", {})
    save_view(database, "bob", "features", "the gap / mine", {"coverage": "filled"})
    found = [(v.name, dict(v.query), v.actor) for v in saved_views(database, "features")]
    assert found == [("Ambers", {"sort": "max"}, "bob"), ("the gap / mine", {"coverage": "filled"}, "bob")]
    remove_view(database, "ann", "features", "Ambers")
    with workspace.reader() as reader:
        assert [v.name for v in saved_views(reader, "features")] == ["the gap / mine"]
        assert reader.rows("decisions", kind="explanation", sae_id=None) == []


@pytest.mark.parametrize("name", ["", "   ", "x" * (MAX_NAME + 1)])
def test_a_view_without_a_name_or_with_a_long_one_is_refused(database, name):
    with pytest.raises(InputError, match="name"):
        save_view(database, "ann", "features", name, {})
    assert saved_views(database, "features") == []


def test_a_hostile_payload_is_no_view(database, workspace):
    event = {"event_id": "e", "at": "2026", "actor": "x", "target": "view/features/n", "kind": "save_view"}
    log = workspace.root / "events" / "other.jsonl"
    log.parent.mkdir(exist_ok=True)
    log.write_text(json.dumps(event | {"payload": {"query": "no object"}, "undoes": None}) + "\n")
    database.sync()
    assert saved_views(database, "features") == []
