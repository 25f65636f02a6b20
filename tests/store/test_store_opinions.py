"""What each person thinks: apart from what holds, also of second looks and repeats, which change nothing."""

from __future__ import annotations

import pytest

from facviz.store.database import DATABASE_FILE, Database
from facviz.store.events import explanation_of, new_event, relevance_of, words_changed
from facviz.store.opinions import opinions

TARGET = explanation_of("sae", 1)


@pytest.fixture
def database(workspace):
    with Database(workspace) as opened:
        opened.sync()
        yield opened


def of(database, feature=1):
    rows = database.rows("opinions_of", sae_id="sae", feature_id=feature)
    return {(r["actor"], r["look"]): r["label"] for r in rows}


def held(database):
    [row] = database.rows("decisions", kind="explanation", sae_id=None)
    return row["author"], row["status"], row["text"]


def test_a_second_look_is_kept_beside_what_holds_and_changes_nothing(workspace, database):
    database.record("ann", TARGET, "edit", {"text": "birds", "seconds": 4.5, "blind": True, "saw": False})
    database.record("bob", TARGET, "reject", {"look": "second", "reason": "wrong"}, seen="")
    assert held(database) == ("ann", "edited", "birds")
    assert of(database) == {("ann", ""): "edited", ("bob", "second"): "rejected"}
    [ann, _] = database.rows("opinions_of", sae_id="sae", feature_id=1)
    assert (ann["seconds"], ann["is_blind"], ann["saw_machine"], ann["text"]) == (4.5, True, False, "birds")
    database.close()
    (workspace.root / DATABASE_FILE).unlink()
    with Database(workspace) as again:
        again.sync()
        assert of(again) == {("ann", ""): "edited", ("bob", "second"): "rejected"}
        assert held(again) == ("ann", "edited", "birds")
        with workspace.reader() as reader:
            assert of(reader) == of(again)


def test_undoing_what_holds_passes_over_second_looks_and_theirs_is_undone_by_themselves(database):
    database.record("ann", TARGET, "accept")
    database.record("bob", TARGET, "reject", {"look": "second"})
    database.undo_mine("bob")
    assert of(database) == {("ann", ""): "accepted"}
    database.redo_mine("bob")
    database.undo("ann", TARGET)
    assert of(database) == {("bob", "second"): "rejected"}
    assert database.rows("decisions", kind="explanation", sae_id=None) == []
    database.redo("ann", TARGET)
    assert held(database)[:2] == ("ann", "accepted")


def test_who_changes_what_they_see_of_another_is_no_second_witness(database):
    database.record("ann", TARGET, "accept")
    database.record("bob", TARGET, "reject", {"reason": "wrong"})
    assert held(database)[:2] == ("bob", "rejected")
    assert of(database) == {("ann", ""): "accepted"}
    database.record("ann", explanation_of("sae", 2), "accept")
    database.record("ann", explanation_of("sae", 2), "reject")
    assert of(database, 2) == {("ann", ""): "rejected"}


def test_a_repeat_stands_beside_the_first_answer_it_repeats(database):
    first = database.record("ann", TARGET, "accept")
    database.record("ann", TARGET, "reject", {"look": "repeat", "of": first["event_id"]})
    assert of(database) == {("ann", ""): "accepted", ("ann", "repeat"): "rejected"}
    [_, repeat] = database.rows("opinions_of", sae_id="sae", feature_id=1)
    assert repeat["first_label"] == "accepted"
    assert held(database)[:2] == ("ann", "accepted")


def test_skips_flags_and_reopened_things_are_no_opinion(database):
    for kind in ("skip", "flag", "reopen"):
        database.record("ann", TARGET, kind)
    assert of(database) == {}
    assert held(database)[:2] == ("ann", "unreviewed")
    database.record("ann", TARGET, "unsure")
    database.record("ann", relevance_of("sae", 1, "topic"), "verdict", {"verdict": "maybe"})
    rows = database.rows("opinions_of", sae_id="sae", feature_id=1)
    assert [(r["kind"], r["task"], r["label"]) for r in rows] == [
        ("explanation", "", "unsure"),
        ("relevance", "topic", "maybe"),
    ]


def test_every_decision_says_what_it_replaced(database):
    database.record("ann", TARGET, "edit", {"text": "big birds", "was": "birds that fly"})
    event = database.record("bob", TARGET, "reject", {"reason": "wrong"})
    assert event["payload"]["previous"] == {"status": "edited", "actor": "ann", "text": "big birds"}
    [first, _] = database.rows("events_of", target=TARGET.key)
    assert '"diff": [["+", "big"], ["=", "birds"], ["-", "that fly"]]' in first["payload"]


def test_accepting_the_machine_s_words_puts_a_person_s_away(database):
    database.record("ann", TARGET, "edit", {"text": "birds"})
    database.record("ann", TARGET, "accept", {"written": True})
    assert held(database) == ("ann", "accepted", None)
    database.undo("ann", TARGET)
    assert held(database) == ("ann", "edited", "birds")


def test_a_correction_is_stored_word_by_word():
    assert words_changed("a b c", "a x c d") == [["=", "a"], ["-", "b"], ["+", "x"], ["=", "c"], ["+", "d"]]
    assert words_changed("", "new") == [["+", "new"]]
    assert words_changed("same words", "same words") == [["=", "same words"]]


def test_logs_of_before_and_of_other_tools_still_read():
    old = new_event("ann", TARGET, "accept")
    foreign = [{"event_id": "x", "target": None}, {"event_id": "y", "target": "other/1", "payload": {}, "kind": "do"}]
    imported = new_event("eve", explanation_of("sae", 2), "edit", {"text": "t", "previous": "machine words"})
    rows = opinions([old, *foreign, imported])
    assert [(r["actor"], r["label"], r["saw_machine"]) for r in rows] == [
        ("ann", "accepted", True),
        ("eve", "edited", True),
    ]
