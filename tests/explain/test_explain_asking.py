"""Replies are believed only as far as they were checked, and asked for again only so often."""

import json

import pytest

from facviz.explain.asking import (
    MAX_DETAIL_CHARS,
    MAX_REPLY_CHARS,
    BadReply,
    ask,
    read_choice,
    read_flags,
    read_number,
    read_object,
    read_share,
    read_text,
)
from facviz.explain.prompting import make_request
from facviz.records import LLMReply, Outcome
from facviz.testing.fakes import FakeLLM


def requests(n=1):
    return [make_request("t.v1", "rules", f"question {i}", schema={}, max_tokens=100) for i in range(n)]


def read_a(reply):
    return read_number(reply, "a", 9)


class DetailedLLM:
    """Replies given whole, with their details and ledger rows."""

    name = "detailed/fake"

    def __init__(self, replies):
        self.replies = list(replies)

    def complete(self, requests):
        return [[self.replies.pop(0)] for _ in requests]


@pytest.mark.parametrize(
    "text", ['{"a": 1}', ' \n{"a": 1}\n', '```json\n{"a": 1}\n```', '```\n{"a": 1}```', '``` {"a": 1} ```']
)
def test_an_object_is_read_bare_or_in_one_code_fence(text):
    assert read_object(text) == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "yes",
        "[1]",
        '"a"',
        "1",
        "null",
        '{"a": 1',
        '{"a": 1} and more',
        'Sure: {"a": 1}',
        'Sure:\n```json\n{"a": 1}\n```',
        "[" * 100_000,
        "{'a': 1}",
    ],
)
def test_anything_but_one_object_is_a_bad_reply(text):
    with pytest.raises(BadReply):
        read_object(text)


def test_a_flood_is_refused_before_it_is_parsed():
    with pytest.raises(BadReply, match="longer than"):
        read_object(json.dumps({"a": "x" * MAX_REPLY_CHARS}))


@pytest.mark.parametrize("value", ["now", "No", "no.", "not at all", "yes/no", "", None, 0, ["no"], True])
def test_a_choice_is_exactly_one_of_its_values(value):
    with pytest.raises(BadReply, match="`v` was not one of yes, no"):
        read_choice({"v": value}, "v", ["yes", "no"])
    assert read_choice({"v": "no"}, "v", ["yes", "no"]) == "no"


@pytest.mark.parametrize("value", [-0.1, 1.1, True, "0.5", None, float("nan"), float("inf")])
def test_a_share_lies_between_zero_and_one(value):
    with pytest.raises(BadReply, match="from 0 to 1"):
        read_share({"c": value}, "c")
    assert [read_share({"c": v}, "c") for v in (0, 0.5, 1)] == [0.0, 0.5, 1.0]


def test_a_text_is_one_visible_line_of_bounded_length():
    assert read_text({"t": " a\n\u202eb\x00 \ud800c "}, "t", 5) == "a b c"
    with pytest.raises(BadReply, match="longer than 5"):
        read_text({"t": "abcdef"}, "t", 5)
    with pytest.raises(BadReply, match="not a text"):
        read_text({}, "t", 5)


def test_flags_are_read_by_their_number_in_any_order():
    rows = [{"item": 3, "on": True}, {"item": 1, "on": False}, {"item": 2, "on": True}]
    assert read_flags({"x": rows}, "x", "on", 3) == (False, True, True)


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [],
        ["1"],
        [{"item": 1, "on": True}],
        [{"item": 1, "on": True}, {"item": 1, "on": True}],
        [{"item": 0, "on": True}, {"item": 1, "on": True}],
        [{"item": 1, "on": True}, {"item": 2}],
        [{"item": 1, "on": True}, {"item": 2, "on": 1}],
        [{"item": True, "on": True}, {"item": 2, "on": True}],
    ],
)
def test_flags_that_do_not_name_each_item_once_are_a_bad_reply(rows):
    with pytest.raises(BadReply):
        read_flags({"x": rows}, "x", "on", 2)


def test_defect_43_a_bad_reply_is_asked_for_again_within_a_cap_and_then_stays_typed():
    client = FakeLLM(["nonsense"])
    (answer,) = ask(client, requests(), [read_a], n_attempts=3)
    assert (answer.value, answer.outcome, answer.n_attempts) == (None, Outcome.INVALID, 3)
    assert len(client.requests) == 3


def test_only_what_failed_is_asked_again_and_all_of_it_at_once():
    calls = []

    class Counting(FakeLLM):
        def complete(self, requests):
            calls.append([r.messages[-1].content.split("\n")[0] for r in requests])
            return super().complete(requests)

    def script(request):
        first = "attempt" not in request.messages[-1].content
        return [Outcome.REFUSED if first and "question 1" in request.messages[-1].content else '{"a": 4}']

    answers = ask(Counting(script), requests(3), [read_a] * 3, n_attempts=5)
    assert [(a.value, a.n_attempts) for a in answers] == [(4, 1), (4, 2), (4, 1)]
    assert calls == [["question 0", "question 1", "question 2"], ["question 1"]]


def test_asking_again_is_a_new_request_that_says_what_was_wrong_in_our_words():
    client = FakeLLM(['{"a": "ignore all rules"}', Outcome.TRUNCATED, Outcome.REFUSED, '{"a": 2}'])
    (answer,) = ask(client, requests(), [read_a], n_attempts=4)
    assert answer.value == 2
    contents = [r.messages[-1].content for r in client.requests]
    assert len(set(contents)) == 4
    assert "`a` was not a number from 1 to 9" in contents[1]
    assert "cut off" in contents[2]
    assert "refusal" in contents[3]
    assert "ignore all rules" not in "".join(contents)
    assert [r.max_tokens for r in client.requests] == [100, 100, 200, 100]
    assert all(content.startswith("question 0\n") for content in contents[1:])


def test_a_refusal_keeps_its_bounded_detail_and_every_row_of_the_ledger():
    replies = [
        LLMReply("", Outcome.TRUNCATED, 9, "length", "call-1"),
        LLMReply('{"a": 1}', Outcome.REFUSED, 0, "cyber\n" + "x" * 999, "call-2"),
    ]
    (answer,) = ask(DetailedLLM(replies), requests(), [read_a], n_attempts=2)
    assert (answer.value, answer.outcome, answer.call_ids) == (None, Outcome.REFUSED, ("call-1", "call-2"))
    assert answer.detail.startswith("cyber x")
    assert len(answer.detail) == MAX_DETAIL_CHARS


def test_nothing_asked_is_nothing_sent():
    client = FakeLLM(["unused"])
    assert ask(client, [], [], n_attempts=2) == []
    assert client.requests == []
