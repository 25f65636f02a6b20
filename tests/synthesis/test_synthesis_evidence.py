"""What of a span is shown to the writer: from a beginning, each text once, with its lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.records import CONTENT_SEPARATOR, Span, Split
from facviz.synthesis.evidence import LEAD_CHARS, evidence, one_line, shown_text, with_lead

LONG = "word " * 100  # far more than is shown before a window
ROOM = 128  # tokens of a reply, enough for the longest lead


def span_of(contents, window, *, rank=0, doc_no=0):
    """A span whose window is the last place of `window` in the document, as one token."""
    start = CONTENT_SEPARATOR.join(contents).rindex(window)
    where = {"start_char": start, "end_char": start + len(window), "start_token": 7, "end_token": 8, "peak_token": 7}
    return Span(
        feature_id=3, rank=rank, quantile=1.0, split=Split.EXPLAIN, doc_no=doc_no, act=2.0 - rank / 100,
        tokens=(window,), acts=(2.0,), **where,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("contents", "shown"),
    [
        (["Make a title for this mirror"], "Make a title for this mirror"),
        (["mirror"], "mirror"),
        (["What do you see?", "Today I see a mirror"], "Today I see a mirror"),
        ([LONG, "mirror"], "mirror"),
        ([LONG + "It broke. Then he said: a mirror"], "Then he said: a mirror"),
        ([LONG + 'He cried "No!" We saw a mirror'], "We saw a mirror"),
        ([LONG + "\n    first line\nsecond mirror"], "first line\nsecond mirror"),
        ([LONG + "mirror"], "mirror"),
        ([LONG + "鏡が割れた。「見て！」mirror"], "「見て！」mirror"),
        ([LONG + "He said “no.” Then a mirror"], "Then a mirror"),
        ([LONG + "costs 3.5 each, a mirror"], "mirror"),
    ],
)
def test_evidence_begins_with_its_message_or_else_with_a_line_or_a_sentence(contents, shown):
    assert with_lead(span_of(contents, "mirror"), contents, ROOM).text == shown


@given(st.lists(st.text('ab. \n?"', max_size=400), min_size=1, max_size=3), st.data())
def test_a_lead_is_what_stands_before_the_window_in_its_message_and_no_more_than_is_allowed(contents, data):
    message = data.draw(st.integers(0, len(contents) - 1))
    place = data.draw(st.integers(0, len(contents[message])))
    contents[message] = contents[message][:place] + "MIRROR" + contents[message][place:]
    span = span_of(contents, "MIRROR")
    led = with_lead(span, contents, ROOM)
    assert len(led.lead) <= LEAD_CHARS
    assert contents[message][:place].endswith(led.lead)
    assert led.text == led.lead + span.text
    assert place > LEAD_CHARS or led.lead == contents[message][:place]


@pytest.mark.parametrize(
    ("max_tokens", "shown"),
    [
        (40, "It rained all day. Then the sun came out. We saw a mirror"),
        (11, "Then the sun came out. We saw a mirror"),
        (5, "We saw a mirror"),
        (3, "mirror"),
        (1, "mirror"),
    ],
)
def test_what_is_shown_is_about_as_long_as_a_reply_may_be(max_tokens, shown):
    contents = ["It rained all day. Then the sun came out. We saw a mirror"]
    assert with_lead(span_of(contents, "mirror"), contents, max_tokens).text == shown


def test_a_lead_changes_nothing_that_was_measured():
    contents = ["Make a title for this mirror"]
    span = span_of(contents, "mirror")
    led = with_lead(span, contents, ROOM)
    assert (led.act, led.acts, led.tokens, led.start_char) == (span.act, span.acts, span.tokens, span.start_char)


def test_one_text_under_several_questions_is_shown_once():
    review = "the food came cold and the waiter laughed at us when we asked him to warm it up again and left"
    asked = {0: [f"{review} . Good mirror"], 1: [f"{review} . Bad mirror"], 2: ["Another text with a mirror"]}
    spans = [span_of(contents, "mirror", rank=doc, doc_no=doc) for doc, contents in asked.items()]
    assert [s.doc_no for s in evidence(spans, asked, 5, ROOM)] == [0, 2]


def test_the_strongest_that_differ_are_shown_in_their_order():
    texts = {doc: [f"{name} is a mirror"] for doc, name in enumerate(["apple", "bread", "cloud", "drum"])}
    spans = [span_of(contents, "mirror", rank=doc, doc_no=doc) for doc, contents in texts.items()]
    assert [s.rank for s in evidence(spans[::-1], texts, 3, ROOM)] == [0, 1, 2]


def test_a_text_without_words_is_evidence_too():
    texts = {0: ["★★★"], 1: ["★★★"], 2: ["★"]}
    spans = [span_of(contents, contents[0], rank=doc, doc_no=doc) for doc, contents in texts.items()]
    assert [s.text for s in evidence(spans, texts, 5, ROOM)] == ["★★★", "★"]


def test_lines_stay_in_an_answer_and_go_in_a_list():
    contents = ["def f():  \n\treturn 1\n\n\n\nmirror\n"]
    led = with_lead(span_of(contents, "mirror\n"), contents, ROOM)
    assert shown_text(led) == "def f():\n    return 1\n\nmirror"
    assert one_line(led) == "def f(): return 1 mirror"
