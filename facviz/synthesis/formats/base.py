"""What a task format owes: how a reply is read, which document is measured, and what is kept beside it.

A reply becomes a `Parsed` sample or an `Invalid` one with a reason. Nothing is guessed: what does not follow the form
is turned down, never repaired into something the model did not write (known defect 33).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from facviz.records import Document
from facviz.synthesis.formats.cleaning import MAX_REPLY_CHARS, BadSample, cut_back, unwrap
from facviz.synthesis.safety import is_withheld

Fields = Mapping[str, Any]

EMPTY, CUT_OFF, WITHHELD = "empty", "invalid format: it was cut off before its end", "withheld"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A sample that keeps to its format.

    `document` is what is measured and exported, `text` the same as people read it, `fields` what the format holds
    beside it (empty where the text is all there is), `sign` which pole of the task's rubric it stands for.
    """

    format: str
    document: Document
    sign: int
    fields: Fields = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All contents of the document; token offsets count in it."""
        return self.document.text


@dataclass(frozen=True, slots=True)
class Invalid:
    """A reply that is no sample, and why; the reason is ours and quotes nothing of the reply."""

    reason: str


@dataclass(frozen=True, slots=True)
class SampleFormat(ABC):
    """One task format; `roles` and `sign` are those of the task it serves."""

    roles: tuple[str, ...] = ("user",)
    sign: int = 1

    name: ClassVar[str]
    schema: ClassVar[Mapping[str, Any]]
    """What a provider that promises JSON is held to."""
    labels: ClassVar[tuple[str, ...]] = ()
    """What the lines of the plain layout begin with, in order; none where the reply is the text itself."""
    words: ClassVar[tuple[int, int]] = (3, 120)
    """Fewest and most words of the measured document, for the gate that counts them."""
    max_tokens: ClassVar[int] = 64
    """Room a whole sample needs in the plain layout."""
    max_json_tokens: ClassVar[int] = 300
    """Room it needs as JSON."""
    has_examples: ClassVar[bool] = True
    is_cut_back: ClassVar[bool] = False
    """Whether a sample that broke off may end with its last whole sentence."""

    @property
    def rules_template(self) -> str:
        """What the writer is told of the form."""
        return f"format_{self.name}.v1"

    @property
    def examples_template(self) -> str | None:
        """Samples in the plain layout, each held to the same checks (known defect 32)."""
        return f"examples_{self.name}.v1" if self.has_examples else None

    def parse(self, reply: str, *, is_cut: bool = False) -> Parsed | Invalid:
        """The sample in a reply, or why there is none; `is_cut` says that the model ran out of tokens."""
        if len(reply) > MAX_REPLY_CHARS:
            return Invalid(f"invalid format: it was longer than {MAX_REPLY_CHARS} characters")
        if is_withheld(reply):
            return Invalid(WITHHELD)
        if is_cut and not self.is_cut_back:
            return Invalid(CUT_OFF)
        try:
            text = unwrap(reply)
            if not text:
                return Invalid(EMPTY)
            parsed = self._read(cut_back(text) if is_cut else text)
        except BadSample as bad:
            return Invalid(f"invalid format: {bad}")
        # Escapes can hide words from the first look, and two fields may together say what neither does.
        return Invalid(WITHHELD) if is_withheld(all_text(parsed)) else parsed

    def restore(self, text: str, fields: Fields) -> Parsed:
        """A stored sample again, from its fields, or from its text alone where it has none."""
        if fields:
            return Parsed(self.name, self._document(fields), self.sign, fields)
        return Parsed(self.name, Document.from_text(text, role=self.roles[0]), self.sign)

    @abstractmethod
    def layout(self, sample: Parsed) -> str:
        """A sample as a model without JSON writes it."""

    @abstractmethod
    def as_json(self, sample: Parsed) -> dict[str, Any]:
        """A sample as the schema has it."""

    @abstractmethod
    def _read(self, text: str) -> Parsed:
        """The sample in a non-empty reply.

        Raises:
            BadSample: it breaks the form.
        """

    def _document(self, fields: Fields) -> Document:
        """The measured document of a sample with fields."""
        raise NotImplementedError

    def _parsed(self, fields: Fields) -> Parsed:
        kept = {"format": self.name, "sign": self.sign, **fields}
        return Parsed(self.name, self._document(kept), self.sign, kept)


def all_text(parsed: Parsed) -> str:
    """Every text of a sample, those of the fields included."""
    return "\n".join([parsed.document.text, *_strings(parsed.fields)])


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [text for part in value for text in _strings(part)] if isinstance(value, list | tuple) else []
