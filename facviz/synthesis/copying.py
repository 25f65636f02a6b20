"""Does the target still fire when the words a sample copied are taken out? Copying is the cheapest way to make it fire.

Copied are runs of four or more words that a text the generator saw has too, unless several texts of the corpus share
the run: "can you help me with" is nobody's property. The word at the target's peak stays, so that a feature which fires
on a word is not punished for that word: alone among what is left, it still fires. What goes is the context around it,
so that a feature which needs a context, and found it only in what was pasted, falls silent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from facviz.overlap import Word, placed_words, runs, words_of
from facviz.protocols import Encoder
from facviz.records import CONTENT_SEPARATOR, Candidate, Document, Encoded
from facviz.synthesis.gates import COPY_RUN_WORDS
from facviz.synthesis.plan import FeatureBrief

MASKED_RUN_WORDS = 4
"""Runs of three words are shared by chance; eight and more are turned down as copied whatever fires."""
ONLY_COPIED = "fires only on copied words"

PeakPlace = Callable[[Document, int], tuple[int, int]]
"""Where in `Document.text` the token at a position stands; a range below 0 for one that is no content."""


@dataclass(frozen=True, slots=True)
class CopyGate:
    """Measures a sample without the words it copied; `is_rejecting` False only records what it found."""

    encoder: Encoder
    peak_place: PeakPlace
    is_formula: Callable[[str], bool]
    is_rejecting: bool = True

    def check(
        self, brief: FeatureBrief, candidate: Candidate, shown: Sequence[str], alone: Encoded
    ) -> tuple[dict[str, Any], str | None]:
        """`masked_words` taken out and `masked_act` measured without them; None where nothing was copied."""
        document = brief.document_of(candidate)
        start, end = self.peak_place(document, int(alone.peaks[0, brief.feature_id]) - 1)
        masked, n_masked = without_copied(document, shown, (start, end), self.is_formula)
        measures: dict[str, Any] = {"masked_words": n_masked, "masked_act": None, "anti_copy": self.is_rejecting}
        if not n_masked:
            return measures, None
        act = float(self.encoder.encode_alone(masked).max_acts[0, brief.feature_id])
        is_silent = act <= max(brief.act_threshold, 0.0)
        return measures | {"masked_act": act}, ONLY_COPIED if is_silent and self.is_rejecting else None

    def accept(self, text: str) -> None:
        """What was accepted before does not matter here."""


def without_copied(
    document: Document, shown: Sequence[str], peak: tuple[int, int], is_formula: Callable[[str], bool]
) -> tuple[Document, int]:
    """The document without copied words, and how many those were; the word at `peak` stays.

    Where the peak is no word but a mark or a break, the word before it stays.
    """
    theirs = {run for text in shown for run in runs(words_of(text), MASKED_RUN_WORDS)}
    messages, n_masked, offset = [], 0, 0
    for message in document.messages:
        words = placed_words(message.content)
        copied = _copied(words, theirs, is_formula)
        if offset <= peak[0] < offset + len(message.content):
            copied.discard(_at_peak(words, peak[1] - offset))
        messages.append(dataclasses.replace(message, content=_cut(message.content, words, copied)))
        n_masked += len(copied)
        offset += len(message.content) + len(CONTENT_SEPARATOR)
    return dataclasses.replace(document, messages=tuple(messages)), n_masked


def _copied(words: Sequence[Word], theirs: set[str], is_formula: Callable[[str], bool]) -> set[int]:
    """Numbers of the words inside a copied run."""
    found = set[int]()
    for first in range(len(words) - MASKED_RUN_WORDS + 1):
        run = " ".join(word.text for word in words[first : first + MASKED_RUN_WORDS])
        if run in theirs and not is_formula(run):
            found.update(range(first, first + MASKED_RUN_WORDS))
    return found


def own_parts(texts: Iterable[str], is_formula: Callable[[str], bool]) -> tuple[str, ...]:
    """What is a text's own, from the first to the last word of each stretch: runs that are no copy are left out.

    Who may not write "Did the reviewer find this movie good or bad?" writes no text of a set in which hundreds ask it.
    """
    return tuple(part for text in texts for part in _own_parts(text, is_formula))


def _own_parts(text: str, is_formula: Callable[[str], bool]) -> list[str]:
    words = placed_words(text)
    size = min(COPY_RUN_WORDS, len(words))
    if not size:
        return [text]
    shared = set[int]()
    for first in range(len(words) - size + 1):
        if is_formula(" ".join(word.text for word in words[first : first + size])):
            shared.update(range(first, first + size))
    own = _stretches(set(range(len(words))) - shared)
    return [text[words[numbers[0]].start : words[numbers[-1]].end] for numbers in own]


def _stretches(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers that follow each other, together."""
    groups = groupby(enumerate(sorted(numbers)), key=lambda item: item[1] - item[0])
    return [[number for _, number in group] for _, group in groups]


def _at_peak(words: Sequence[Word], end: int) -> int:
    """The last word that begins before the peak token ends; −1 where none does."""
    return max((number for number, word in enumerate(words) if word.start < end), default=-1)


def _cut(content: str, words: Sequence[Word], copied: set[int]) -> str:
    """The content without these words, nor the marks between two of them; white space is closed up."""
    if not copied:
        return content
    kept, place = [], 0
    for numbers in _stretches(copied):
        kept.append(content[place : words[numbers[0]].start])
        place = words[numbers[-1]].end
    return " ".join("".join([*kept, content[place:]]).split())
