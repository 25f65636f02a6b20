"""What generators leave around a text goes, and what real people write stays."""

from __future__ import annotations

import pytest

from facviz.synthesis.cleaning import artefact_in, clean_sample
from facviz.synthesis.gates import TextGates

TEXT = "how do I get candle wax out of a rug"
HONEST = [
    "My query: it says 3 users are online, why?",
    "Dear assistant, the user before me said: hello there",
    "What does print('a\\nb\\n') print?",
    "Explain `\\n` and `\\t` in C, please",
    "Text me: is it fine to write Human: or Assistant: inside a message?",
    "1. buy milk\n2. call mum\n3. sleep",
    "is <b>bold</b> valid, and what is a <table>?",
    "the assistant said no\nand the user left",
]


@pytest.mark.parametrize(
    "reply",
    [
        f"Query-1: {TEXT}",
        f"query 12: {TEXT}",
        f"Message: {TEXT}",
        f"- Example #2: {TEXT}",
        f"User message: {TEXT}",
        f"Assistant: {TEXT}",
        f"assistant\n{TEXT}",
        f"<|im_start|>user\n{TEXT}<|im_end|>",
        f"{TEXT}<|im_end|>\n<|im_start|>assistant\nUse an iron.",
        f"{TEXT}\nassistant\nUse an iron.",
        f"[INST] {TEXT} [/INST] Use an iron.",
        f"<s>{TEXT}</s>",
        f"<|start_header_id|>user<|end_header_id|>\n\n{TEXT}<|eot_id|>",
        f"Assistant: Query-1: {TEXT}",
        TEXT.replace(" out", "\tout"),
    ],
)
def test_defect_9_marks_of_the_generator_are_taken_off_and_nothing_else_is(reply):
    assert artefact_in(reply) is not None
    assert clean_sample(reply) == TEXT
    assert artefact_in(TEXT) is None


def test_defect_9_spelled_out_line_breaks_become_line_breaks():
    assert clean_sample("first line\\nsecond line\\r\\nthird") == "first line\nsecond line\nthird"


@pytest.mark.parametrize("text", HONEST)
def test_what_people_write_is_left_alone(text):
    assert clean_sample(text) == text
    assert artefact_in(text) is None


@pytest.mark.parametrize("text", ["", "   ", "<|im_end|>", "assistant", "Query-1:"])
def test_marks_alone_leave_nothing(text):
    assert clean_sample(text) == ""


def test_defect_9_a_mark_that_was_not_taken_off_is_turned_down_by_name():
    gates, reason = TextGates([]).check(f"Query-1: {TEXT}", ())
    assert (gates["artefact"], reason) == ("label", "artefact")
    assert "artefact" not in TextGates([]).check(TEXT, ())[0]
