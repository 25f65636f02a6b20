"""Samples shown to a writer: each held to the checks that its own samples meet (known defect 32)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from facviz.prompts import template_text
from facviz.synthesis.formats.base import Invalid, Parsed, SampleFormat

_RULE, _USES = "\n---\n", "Uses:"


@dataclass(frozen=True, slots=True)
class Example:
    """A sample, and the words that it was asked to use."""

    words: str
    sample: Parsed


@cache
def examples_of(form: SampleFormat) -> tuple[Example, ...]:
    """The packaged samples of a format; none for plain text.

    Raises:
        ValueError: one breaks the rules of its own format.
    """
    if form.examples_template is None:
        return ()
    return tuple(_example(form, part) for part in template_text(form.examples_template).split(_RULE))


def _example(form: SampleFormat, part: str) -> Example:
    head, _, layout = part.partition("\n")
    sample = form.parse(layout)
    if isinstance(sample, Invalid) or not head.startswith(_USES):
        raise ValueError(f"An example of {form.name} breaks its rules; correct {form.examples_template}.md.")
    return Example(head.removeprefix(_USES).strip(), sample)
