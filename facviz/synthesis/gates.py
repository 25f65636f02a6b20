"""Gates a candidate passes before it counts; each leaves what it measured, and the first that fails is the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

MIN_WORDS, MAX_WORDS = 3, 120
COPY_RUN_WORDS = 8
FORMULA_TEXTS = 3
"""Texts of the corpus that share a run of words before it counts as their manner of speaking, which nobody copies."""
MIN_DISTINCT_TRIGRAMS = 0.6
GATES_VERSION = 2
"""Raised when the same candidate may get another verdict, so that synthesis is not taken for done."""
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # written without spaces: each counts as a word
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W{_IDEOGRAPHS}]+")


def words_of(text: str) -> list[str]:
    """Lower-cased words, punctuation left out."""
    return _WORD.findall(text.lower())


def normalised(text: str) -> str:
    """What exact duplicates are compared by: words alone."""
    return " ".join(words_of(text))


class TextGates:
    """Length, duplicates, copying and repetition; knows the corpora and everything accepted so far."""

    def __init__(self, known_texts: Iterable[str], *, words: tuple[int, int] = (MIN_WORDS, MAX_WORDS)) -> None:
        self._words = words
        self._known = {normalised(t) for t in known_texts}
        self._corpus = [f" {text} " for text in sorted(self._known)]
        self._formulas: dict[str, bool] = {}

    def check(self, text: str, shown: Sequence[str]) -> tuple[dict[str, Any], str | None]:
        """Measures, and the reason for rejection or None; `shown` are the texts the generator saw."""
        words = words_of(text)
        copied = longest_shared_run(words, [words_of(s) for s in shown])
        distinct = distinct_trigrams(words)
        gates: dict[str, Any] = {"n_words": len(words), "copied_words": copied, "distinct_trigrams": distinct}
        if not self._words[0] <= len(words) <= self._words[1]:
            return gates, "length"
        if normalised(text) in self._known:
            return gates, "duplicate"
        size = min(COPY_RUN_WORDS, len(words))
        if copied >= size and not all(map(self._is_formula, shared_runs(words, [words_of(s) for s in shown], size))):
            return gates, "copied"
        if distinct < MIN_DISTINCT_TRIGRAMS:
            return gates, "repetitive"
        return gates, None

    def _is_formula(self, run: str) -> bool:
        if run not in self._formulas:
            holders = islice((text for text in self._corpus if f" {run} " in text), FORMULA_TEXTS)
            self._formulas[run] = len(list(holders)) == FORMULA_TEXTS
        return self._formulas[run]

    def accept(self, text: str) -> None:
        """Remember an accepted sample, so that the same text is not accepted twice."""
        self._known.add(normalised(text))


def distinct_trigrams(words: Sequence[str]) -> float:
    """Share of word trigrams that are distinct; 1 for texts too short to repeat one."""
    trigrams = list(zip(words, words[1:], words[2:]))
    return len(set(trigrams)) / len(trigrams) if trigrams else 1.0


def shared_runs(words: Sequence[str], others: Sequence[Sequence[str]], size: int) -> set[str]:
    """Runs of `size` words that also stand in one of the other texts."""
    theirs = {run for other in others for run in _runs(other, size)}
    return theirs.intersection(_runs(words, size))


def _runs(words: Sequence[str], size: int) -> set[str]:
    return {" ".join(words[i : i + size]) for i in range(len(words) - size + 1)}


def longest_shared_run(words: Sequence[str], others: Sequence[Sequence[str]]) -> int:
    """Longest run of words that also stands, in order, in one of the other texts."""
    best = 0
    for other in others:
        previous = [0] * (len(other) + 1)
        for word in words:
            current = [0] * (len(other) + 1)
            for j, candidate in enumerate(other):
                if candidate == word:
                    current[j + 1] = previous[j] + 1
            best = max(best, *current)
            previous = current
    return best
