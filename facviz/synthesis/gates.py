"""Gates a candidate passes before it counts; each leaves what it measured, and the first that fails is the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from facviz.overlap import distinct_trigrams, longest_shared_run, normalised, shared_runs, words_of

MIN_WORDS, MAX_WORDS = 3, 120
COPY_RUN_WORDS = 8
FORMULA_TEXTS = 3
"""Texts of the corpus that share a run of words before it counts as their manner of speaking, which nobody copies."""
MIN_DISTINCT_TRIGRAMS = 0.6
GATES_VERSION = 2
"""Raised when the same candidate may get another verdict, so that synthesis is not taken for done."""


class TextGates:
    """Length, duplicates, copying and repetition; knows the corpora and everything accepted so far."""

    def __init__(self, known_texts: Iterable[str]) -> None:
        self._known = {normalised(t) for t in known_texts}
        self._corpus = [f" {text} " for text in sorted(self._known)]
        self._formulas: dict[str, bool] = {}

    def check(self, text: str, shown: Sequence[str]) -> tuple[dict[str, Any], str | None]:
        """Measures, and the reason for rejection or None; `shown` are the texts the generator saw."""
        words = words_of(text)
        copied = longest_shared_run(words, [words_of(s) for s in shown])
        distinct = distinct_trigrams(words)
        gates: dict[str, Any] = {"n_words": len(words), "copied_words": copied, "distinct_trigrams": distinct}
        if not MIN_WORDS <= len(words) <= MAX_WORDS:
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
