"""An instruction and its answer, written together; the answer is what the task's features are measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from facviz.overlap import normalised, words_of
from facviz.records import Document, Message
from facviz.synthesis.formats.base import Fields, Parsed, SampleFormat
from facviz.synthesis.formats.cleaning import (
    BadSample,
    check_fields,
    clean_text,
    filled,
    find_object,
    is_refusal,
    object_schema,
    read_once,
    read_text,
    text_schema,
    without_markers,
)

MAX_ANSWER_WORDS = 599
MIN_WORDS, MAX_INSTRUCTION_WORDS = 3, 150


@dataclass(frozen=True, slots=True)
class InstructionAnswer(SampleFormat):
    """What a person asks, and a full answer in Markdown of less than 600 words."""

    name: ClassVar[str] = "instruction_answer"
    schema: ClassVar[Mapping[str, Any]] = object_schema(
        instruction=text_schema("What a person would type, and nothing around it."),
        answer=text_schema("The assistant's answer, complete and in Markdown, under 600 words."),
    )
    labels: ClassVar[tuple[str, ...]] = ("Instruction", "Answer")
    words: ClassVar[tuple[int, int]] = (6, MAX_ANSWER_WORDS + MAX_INSTRUCTION_WORDS)
    max_tokens: ClassVar[int] = 256
    max_json_tokens: ClassVar[int] = 1600

    def layout(self, sample: Parsed) -> str:
        """Both parts under their labels."""
        return f"Instruction: {sample.fields['instruction']}\nAnswer: {sample.fields['answer']}"

    def as_json(self, sample: Parsed) -> dict[str, Any]:
        """Both parts."""
        return {"instruction": sample.fields["instruction"], "answer": sample.fields["answer"]}

    def _read(self, text: str) -> Parsed:
        found = find_object(text)
        if found is None:
            instruction, answer = read_once(text, self.labels).values()
        else:
            check_fields(found, ("instruction", "answer"))
            instruction, answer = read_text(found, "instruction"), read_text(found, "answer")
        instruction = filled(clean_text(instruction), "instruction")
        answer = without_markers(answer).expandtabs(4)  # else kept to the letter: code in it may write `\n`
        _check(instruction, answer)
        return self._parsed({"instruction": instruction, "answer": answer})

    def _document(self, fields: Fields) -> Document:
        return Document((Message("user", fields["instruction"]), Message("assistant", fields["answer"])))


def _check(instruction: str, answer: str) -> None:
    n_asked, n_answered = len(words_of(instruction)), len(words_of(answer))
    if not MIN_WORDS <= n_asked <= MAX_INSTRUCTION_WORDS:
        raise BadSample(f"the instruction had {n_asked} words, not {MIN_WORDS} to {MAX_INSTRUCTION_WORDS}")
    if not MIN_WORDS <= n_answered <= MAX_ANSWER_WORDS:
        raise BadSample(f"the answer had {n_answered} words, not {MIN_WORDS} to {MAX_ANSWER_WORDS}")
    if normalised(instruction) == normalised(answer):
        raise BadSample("the answer repeated the instruction")
    if is_refusal(answer):
        raise BadSample("the answer was a refusal")
