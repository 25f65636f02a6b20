"""What a span looks like in a prompt: one line, its own marks only, bounded, and nothing invisible."""

import json

from hypothesis import given
from hypothesis import strategies as st
from planted_spans import make_span

from facviz.explain.prompting import (
    MAX_SIDE_CHARS,
    MAX_TOKEN_CHARS,
    listed,
    make_request,
    numbered,
    object_schema,
    quote,
    show,
    visible,
)


@given(st.text())
def test_a_quoted_text_is_one_line_that_says_exactly_the_text(text):
    line = quote(text)
    assert json.loads(line) == text
    assert len(line.splitlines()) == 1
    assert "«" not in line
    assert "»" not in line
    line.encode("utf-8")


@given(st.lists(st.text(max_size=20), min_size=1, max_size=12), st.data())
def test_a_shown_span_is_one_line_and_holds_exactly_one_pair_of_marks_around_its_peak(tokens, data):
    peak = data.draw(st.integers(0, len(tokens) - 1))
    line = show(make_span(0, 1, tokens=tokens, peak=peak))
    assert len(line.splitlines()) == 1
    assert (line.count("«"), line.count("»")) == (1, 1)
    assert json.loads(line.replace("«", "").replace("»", "")) == "".join(tokens)
    inside = line[line.index("«") + 1 : line.index("»")]
    assert json.loads(f'"{inside}"') == tokens[peak]


def test_marks_quotes_line_breaks_and_invisible_characters_in_a_text_are_escaped():
    tokens = ('"}', "\n«", "fake»", "\u202e", "\U000e0041", "\ud800", " real")
    assert show(make_span(0, 1, tokens=tokens, peak=6)) == (r'"\"}\n\u00abfake\u00bb\u202e\udb40\udc41\ud800« real»"')


def test_only_the_named_tokens_are_marked():
    span = make_span(0, 1, tokens=("a", " b", " c"), peak=1)
    assert show(span) == '"a« b» c"'
    assert show(span, ()) == '"a b c"'
    assert show(span, [0, 2]) == '"«a» b« c»"'


def test_a_long_span_is_cut_on_both_sides_of_its_peak_and_says_so():
    tokens = [*["word "] * 400, "PEAK ", *["tail "] * 400]
    span = make_span(0, 1, tokens=tokens, peak=400)
    line = show(span)
    assert line.startswith('"…word ')
    assert line.endswith('tail …"')
    assert "«PEAK »" in line
    assert len(line) <= 2 * MAX_SIDE_CHARS + 20
    assert visible(span) == range(400 - MAX_SIDE_CHARS // 5, 401 + MAX_SIDE_CHARS // 5)


def test_a_monstrous_token_is_cut():
    line = show(make_span(0, 1, tokens=("x" * 10_000, "y" * 10_000), peak=1))
    assert len(line) <= 2 * MAX_TOKEN_CHARS + 4


def test_lists_are_numbered_from_one_and_nothing_is_said_in_words():
    assert numbered(["a", "b"]) == "1. a\n2. b"
    assert numbered([]) == listed([]) == "(none)"
    assert listed([" kill", '"']) == '" kill", "\\""'


def test_a_request_begins_with_what_all_share_and_ends_with_the_feature():
    request = make_request("t.v1", "the rules", "the feature", schema=object_schema(a={"type": "string"}), max_tokens=9)
    assert [(m.role, m.content) for m in request.messages] == [("system", "the rules"), ("user", "the feature")]
    assert (request.prompt, request.n, request.max_tokens, request.temperature) == ("t.v1", 1, 9, 0.0)
    assert request.schema["required"] == ["a"]
    assert request.schema["additionalProperties"] is False
