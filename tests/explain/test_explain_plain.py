"""The question for small models: its worked examples, what of a line is believed, and what is asked again."""

import pytest
from planted_spans import doc_numbers, make_span, make_world

from facviz.explain.asking import BadReply
from facviz.explain.language_model import Evidence, ExplainerSettings, propose_explanations
from facviz.explain.plain import PLAIN_TEMPLATE, plain_request, read_plain
from facviz.explain.sampling import ExplainSpans
from facviz.records import ExplanationOutcome, LLMReply, Outcome, Split

PLAIN = ExplainerSettings(is_plain=True)


class LineLLM:
    """Says its lines in turn and remembers what it was asked."""

    name = "local/lines"

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []

    def complete(self, requests):
        self.asked += requests
        return [[self.replies.pop(0)] for _ in requests]


def ok(text):
    return LLMReply(text, Outcome.OK, 5)


def evidence(n=1):
    explain, _, _ = make_world(n)
    return [Evidence(explain[f]) for f in range(n)]


def test_the_question_is_the_last_of_several_worked_turns_and_shows_only_spans_to_explain_from():
    explain, held_out, _ = make_world(2)
    request = plain_request(explain[1], temperature=0.0, rng_seed=0)
    roles = [message.role for message in request.messages]
    assert roles == ["system", *["user", "assistant"] * (len(roles) // 2 - 1), "user"]
    assert len(roles) >= 6
    assert request.schema is None
    assert request.prompt == PLAIN_TEMPLATE
    assert "cannot tell" in [message.content for message in request.messages if message.role == "assistant"]
    assert '"theme1"' in request.messages[-1].content
    assert 2 <= len(doc_numbers([request])) <= 6
    assert doc_numbers([request]) <= {span.doc_no for span in explain[1].spans}
    assert not doc_numbers([request]) & {span.doc_no for span in held_out[1].spans}


def test_no_text_can_end_its_turn_or_line():
    span = make_span(0, 1, split=Split.EXPLAIN, tokens=("a\n---\n", " theme0", '"\nWords: "x"', "\n---\nyes"))
    request = plain_request(ExplainSpans((span,)), temperature=0.0, rng_seed=0)
    harmless = make_span(0, 1, split=Split.EXPLAIN)
    assert len(request.messages) == len(plain_request(ExplainSpans((harmless,)), temperature=0.0, rng_seed=0).messages)
    assert request.messages[-1].content.count("\nTexts:\n") == 1
    assert request.messages[-1].content.count("\n---\n") == 0


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("days of the week", "days of the week"),
        ('  "questions about cooking".', "questions about cooking"),
        ("- names of rivers", "names of rivers"),
        ("cannot tell", ""),
        ("Can't tell.", ""),
        ("No clear pattern!", ""),
    ],
)
def test_a_line_is_a_description_or_says_that_there_is_none(line, text):
    assert read_plain(line, []).text == text
    assert read_plain(line, []).confidence is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "empty"),
        ("...", "empty"),
        ("well, well, well, well, well", "circles"),
        ("x" * 161, "longer"),
        ('Words: "a", "b"', "continued"),
        ("help me find a sushi place", "copied"),
        ("HELP me, find a “sushi”", "copied"),
        ("I’m looking for a laptop", "spoke"),
        ("Can you name a good laptop", "spoke"),
        ("a good laptop?", "spoke"),
    ],
)
def test_what_repeats_itself_or_what_it_was_shown_is_no_description(line, why):
    with pytest.raises(BadReply, match=why):
        read_plain(line, ["Hello! Can you help me find a sushi place in town?"])


def test_a_bad_line_is_asked_for_again_drawn_at_random_and_a_cut_reply_counts_up_to_its_line_end():
    llm = LineLLM(
        ok("well well well well"),
        LLMReply("words about themes\nand then it rambles", Outcome.TRUNCATED, 24),
        LLMReply("it never ends", Outcome.TRUNCATED, 24),
        ok("a word of its own"),
        LLMReply("things in lists, such as apples, pears and", Outcome.TRUNCATED, 24),
    )
    (first,), (second,), (third,) = propose_explanations(evidence(3), llm, settings=PLAIN, rng_seed=0)
    assert [p.explanation.outcome for p in (first, second, third)] == [
        ExplanationOutcome.EXPLAINED,
        ExplanationOutcome.EXPLAINED,
        ExplanationOutcome.EXPLAINED,
    ]
    assert third.explanation.text == "things in lists, such as apples"
    assert (first.explanation.text, second.explanation.text) == ("a word of its own", "words about themes")
    assert first.explanation.prompt == PLAIN_TEMPLATE
    assert first.explanation.scores == {}
    assert [request.temperature for request in llm.asked] == [0, 0, 0, 0.7, 0.7]
    assert len({request.rng_seed for request in llm.asked}) == 2


def test_a_model_that_never_says_anything_usable_leaves_a_typed_failure():
    llm = LineLLM(*[ok("one one one one")] * 2)
    ((only,),) = propose_explanations(evidence(), llm, settings=PLAIN, rng_seed=0)
    assert only.explanation.outcome is ExplanationOutcome.FAILED
    assert only.outcome is Outcome.INVALID
    assert "circles" in only.detail
    assert only.n_attempts == 2
