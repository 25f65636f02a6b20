"""The log of human decisions: what holds after edits, undos and undone undos, whatever was killed in between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.errors import InputError
from facviz.store.events import (
    LOG_FILE,
    MAX_LIST_NAME,
    MAX_TEXT,
    UNDO,
    Target,
    active_events,
    append_event,
    candidate_of,
    decide,
    decisions,
    explanation_of,
    list_of,
    listed_of,
    new_event,
    read_events,
    relevance_of,
)

TARGET = explanation_of("abc", 7)


def edit(text):
    return new_event("ann", TARGET, "edit", {"text": text})


def undo(event):
    return new_event("ann", TARGET, UNDO, undoes=event["event_id"])


@pytest.mark.parametrize(
    "target",
    [TARGET, relevance_of("abc", 0, "my/own task"), candidate_of("c1"), list_of("l1"), listed_of("abc", 3, "l1")],
    ids=["explanation", "task", "sample", "list", "listed"],
)
def test_a_target_is_found_again_from_its_logged_name(target):
    assert Target.parse(target.key) == target


@pytest.mark.parametrize(
    "key",
    [
        "",
        "list",
        "list/",
        "listed/abc/1",
        "explanation",
        "explanation/abc",
        "explanation/abc/x",
        "relevance/abc/1",
        "x/abc/1",
    ],
)
def test_an_unknown_name_is_no_target(key):
    assert Target.parse(key) is None


def test_the_last_edit_gives_the_text_and_a_later_accept_keeps_it():
    first, second = edit("one"), edit(" two ")
    row = decide(TARGET, [first, second, new_event("bob", TARGET, "accept")])
    assert (row["text"], row["status"], row["author"], row["n_events"]) == ("two", "accepted", "bob", 3)


def test_undo_goes_back_step_by_step_and_an_undone_undo_comes_forward():
    first, second = edit("one"), edit("two")
    log = [first, second, undo(second)]
    assert decide(TARGET, log)["text"] == "one"
    log.append(undo(first))
    assert decide(TARGET, log) is None
    log.append(undo(log[-1]))
    assert decide(TARGET, log)["text"] == "one"


@given(st.lists(st.sampled_from(["edit", "undo"]), max_size=30))
def test_any_sequence_of_edits_and_undos_equals_a_stack(actions):
    log, stack = [], []
    for number, action in enumerate(actions):
        if action == "edit":
            log.append(edit(str(number)))
            stack.append(log[-1])
        elif stack:
            log.append(undo(stack.pop()))
    assert active_events(log) == stack
    row = decide(TARGET, log)
    assert (row["text"] if row else None) == (stack[-1]["payload"]["text"] if stack else None)


def test_events_survive_a_torn_line_and_come_back_in_the_order_they_happened(tmp_path):
    first = edit("one")
    append_event(tmp_path, first)
    with (tmp_path / LOG_FILE).open("a") as file:
        file.write('{"event_id": "to')
    second = edit("two")
    append_event(tmp_path, second)
    assert read_events(tmp_path) == [first, second]
    assert [row["text"] for row in decisions(read_events(tmp_path))] == ["two"]


@pytest.mark.parametrize(
    ("kind", "payload", "sentence"),
    [
        ("approve", {}, "choose one of accept, edit"),
        ("edit", {"text": "  "}, "write a few words"),
        ("edit", {"text": "x" * (MAX_TEXT + 1)}, "keep it below 2,000"),
    ],
)
def test_a_decision_that_does_not_fit_is_refused_in_one_sentence(kind, payload, sentence):
    with pytest.raises(InputError, match=sentence):
        new_event("ann", TARGET, kind, payload)


def test_targets_do_not_mix_and_foreign_entries_are_passed_over():
    other = new_event("ann", candidate_of("c1"), "approve")
    rows = decisions([edit("one"), other, {"event_id": "x", "target": None}, {"event_id": "y", "payload": {}}])
    assert [(r["kind"], r["status"]) for r in rows] == [("explanation", "edited"), ("candidate", "approved")]


def test_a_list_has_the_name_it_was_given_last_until_it_is_deleted():
    target = list_of("l1")
    log = [
        new_event("ann", target, "create", {"text": " my \n list "}),
        new_event("bob", target, "rename", {"text": "new"}),
    ]
    assert (decide(target, log)["text"], decide(target, log)["status"]) == ("new", "kept")
    log.append(new_event("ann", target, "delete"))
    assert decide(target, log)["status"] == "deleted"
    log.append(new_event("ann", target, UNDO, undoes=log[-1]["event_id"]))
    assert (decide(target, log)["text"], decide(target, log)["status"]) == ("new", "kept")
    assert decide(target, log[:1])["text"] == "my list"


def test_a_note_stays_with_its_place_on_a_list():
    target = listed_of("abc", 3, "l1")
    log = [new_event("ann", target, "add", {"text": "first"}), new_event("ann", target, "note", {"text": ""})]
    row = decide(target, log)
    assert (row["status"], row["text"], row["list_id"], row["feature_id"]) == ("listed", "", "l1", 3)
    assert decide(target, log[:1])["text"] == "first"
    log.append(new_event("ann", target, "remove"))
    assert decide(target, log)["status"] == "removed"


@pytest.mark.parametrize(
    ("target", "kind", "text", "sentence"),
    [
        (list_of("l1"), "create", "  ", "has no name yet"),
        (list_of("l1"), "rename", "x" * (MAX_LIST_NAME + 1), "keep it below 60"),
        (listed_of("abc", 1, "l1"), "note", "x" * (MAX_TEXT + 1), "The note has 2,001 characters"),
    ],
)
def test_a_name_or_a_note_that_does_not_fit_is_refused_in_one_sentence(target, kind, text, sentence):
    with pytest.raises(InputError, match=sentence):
        new_event("ann", target, kind, {"text": text})
