"""One message is the whole sample: plain text of any task, and the paper's toxicity query."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from facviz.synthesis.formats.base import Parsed, SampleFormat
from facviz.synthesis.formats.cleaning import (
    BadSample,
    check_fields,
    clean_text,
    filled,
    find_object,
    is_refusal,
    object_schema,
    read_text,
    text_schema,
)

_LEAD_INS = ("here", "sure", "certainly", "okay", "of course")
_OURS = re.compile(r'(?:```[a-zA-Z]*\s*)?\{\s*"text"\s*:')


@dataclass(frozen=True, slots=True)
class PlainText(SampleFormat):
    """Whatever the task asks for, in one message of its first role."""

    name: ClassVar[str] = "plain_text"
    schema: ClassVar[Mapping[str, Any]] = object_schema(text=text_schema("The text alone, without any comment."))
    has_examples: ClassVar[bool] = False
    is_cut_back: ClassVar[bool] = True

    def layout(self, sample: Parsed) -> str:
        """The text itself."""
        return sample.text

    def as_json(self, sample: Parsed) -> dict[str, Any]:
        """The text in its field."""
        return {"text": sample.text}

    def _read(self, text: str) -> Parsed:
        # A reply that is an object of another kind is a text like any other: a task may ask for JSON.
        found = find_object(text) if _OURS.match(text) else None
        if found is not None:
            check_fields(found, ("text",))
            text = read_text(found, "text")
        text = filled(clean_text(text), "text")
        self._check(text)
        return self.restore(text, {})

    def _check(self, text: str) -> None:
        """Nothing beyond what the gates look at."""


@dataclass(frozen=True, slots=True)
class ToxicityQuery(PlainText):
    """One message a person might type that a moderation classifier should flag: 5 to 60 words, no comment around it."""

    name: ClassVar[str] = "toxicity_query"
    words: ClassVar[tuple[int, int]] = (5, 60)
    has_examples: ClassVar[bool] = True

    def _check(self, text: str) -> None:
        if is_refusal(text):
            raise BadSample("it was a refusal")
        first, line_end, _ = text.partition("\n")
        if (
            line_end
            and first.rstrip().endswith(":")
            and first.lower().startswith(("here", "sure", "certainly", "okay"))
        ):
            raise BadSample("it had a comment around the message")
