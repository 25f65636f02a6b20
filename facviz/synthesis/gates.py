"""Gates a text passes before anything is measured; each leaves what it found, and the first that fails is the reason.

What must be measured on a model is in `sample_gates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from facviz.overlap import (
    ShingleIndex,
    distinct_trigrams,
    longest_shared_run,
    normalised,
    runs,
    shared_runs,
    shingles,
    words_of,
)
from facviz.synthesis.cleaning import artefact_in

MIN_WORDS, MAX_WORDS = 3, 120
COPY_RUN_WORDS = 8
FORMULA_TEXTS = 3
"""Texts of the corpus that share a run of words before it counts as their manner of speaking, which nobody copies."""
SAME_SHARE, SAME_TRIGRAMS = 0.5, 12
"""Two texts of the corpus are one under two questions when they share that part of the shorter one's word trigrams, and
so many: short messages that begin alike are two."""
MANY_TEXTS = 30
"""Texts that share a run of words which is a formula however much else they share, as of a set with one instruction."""
MIN_DISTINCT_TRIGRAMS = 0.6
NEAR_JACCARD = 0.7
"""Part of the word trigrams two texts share from which on one is the other reworded.

Of the demo's messages 0.3 % come so near to another one; at .5 it would be 11 % of those of 9 to 12 words, honest ones
that share a polite opening.
"""
EVALUATION_RUN_WORDS = 13
"""A run that also stands in an evaluation text gives it away: the length that is usual for decontamination."""
MIN_EVALUATION_WORDS = 5
"""Evaluation texts shorter than this, such as a greeting, give nothing away unless they are the whole sample."""
GATES_VERSION = 4
"""Raised when the same candidate may get another verdict, so that synthesis is not taken for done."""


def overlaps(name: str) -> str:
    """Why a text is turned down that an evaluation set holds."""
    return f"overlaps evaluation set {name}"


class TextGates:
    """Artefacts, length, duplicates, leaks, copying and repetition; knows the corpora and all that was accepted.

    `evaluation_sets` are the texts of each dataset that something will be tested on, by its name; `words` are the
    fewest and the most that a sample may have.
    """

    def __init__(
        self,
        known_texts: Iterable[str],
        evaluation_sets: Mapping[str, Iterable[str]] | None = None,
        *,
        words: tuple[int, int] = (MIN_WORDS, MAX_WORDS),
    ) -> None:
        self._words = words
        self._known = {normalised(t) for t in known_texts}
        self._corpus = [f" {text} " for text in sorted(self._known)]
        self._holders: dict[str, list[int]] = {}
        self._formulas: dict[str, bool] = {}
        self._near = ShingleIndex()
        for text in sorted(self._known):
            self._near.add(text.split())
        self._evaluation = {name: EvaluationTexts(texts) for name, texts in (evaluation_sets or {}).items()}

    def check(self, text: str, shown: Sequence[str]) -> tuple[dict[str, Any], str | None]:
        """Measures, and the reason for rejection or None; `shown` are the texts the generator saw."""
        words, seen = words_of(text), [words_of(s) for s in shown]
        near, _ = self._near.nearest(words)
        leak = next((name for name, found in self._evaluation.items() if found.holds(words)), None)
        gates: dict[str, Any] = {
            "n_words": len(words),
            "copied_words": longest_shared_run(words, seen),
            "distinct_trigrams": distinct_trigrams(words),
            "near_jaccard": round(near, 4),
            "evaluation_overlap": (leak or "") if self._evaluation else None,
        }
        artefact = artefact_in(text)
        if artefact is not None:
            return gates | {"artefact": artefact}, "artefact"
        if not self._words[0] <= len(words) <= self._words[1]:
            return gates, "length"
        if normalised(text) in self._known:
            return gates, "duplicate"
        if leak is not None:
            return gates, overlaps(leak)
        size = min(COPY_RUN_WORDS, len(words))
        if gates["copied_words"] >= size and not all(map(self.is_formula, shared_runs(words, seen, size))):
            return gates, "copied"
        if near >= NEAR_JACCARD:
            return gates, "near duplicate"
        if gates["distinct_trigrams"] < MIN_DISTINCT_TRIGRAMS:
            return gates, "repetitive"
        return gates, None

    def is_formula(self, run: str) -> bool:
        """Whether so many texts of the corpus hold a run of words that nobody can be said to copy it.

        One text that stands there several times, as a review under each of its questions, is one text.
        """
        if run not in self._formulas:
            rarest = min((self._holders_of(word) for word in run.split()), key=len, default=())
            holders = (self._corpus[i] for i in rarest if f" {run} " in self._corpus[i])
            self._formulas[run] = _are_different(islice(holders, MANY_TEXTS))
        return self._formulas[run]

    def _holders_of(self, word: str) -> Sequence[int]:
        """Texts of the corpus that hold a word, so that few are looked through for a run; made when first asked."""
        if not self._holders:
            for i, text in enumerate(self._corpus):
                for held in set(text.split()):
                    self._holders.setdefault(held, []).append(i)
        return self._holders.get(word, ())

    def accept(self, text: str) -> None:
        """Remember an accepted sample, so that neither it nor one like it is accepted again."""
        if (known := normalised(text)) not in self._known:
            self._known.add(known)
            self._near.add(known.split())


def _are_different(texts: Iterable[str]) -> bool:
    """Whether enough of the texts are no likenesses of each other, or there are so many that it does not matter."""
    different = list[frozenset[tuple[str, ...]]]()
    for n_texts, own in enumerate(map(_trigrams, texts), 1):
        if not any(_is_same(own, other) for other in different):
            different.append(own)
        if len(different) == FORMULA_TEXTS or n_texts == MANY_TEXTS:
            return True
    return False


def _is_same(own: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> bool:
    return len(own & other) >= max(SAME_TRIGRAMS, SAME_SHARE * min(len(own), len(other)))


@lru_cache(maxsize=256)
def _trigrams(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(shingles(text.split()))


class EvaluationTexts:
    """The texts of one evaluation set, by the runs of words that give them away."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = {normalised(t) for t in texts}
        self._joined = "\n".join(f" {text} " for text in sorted(self._texts))
        self._runs: set[str] = set()
        self._sizes: set[int] = set()
        for words in (text.split() for text in self._texts):
            size = min(len(words), EVALUATION_RUN_WORDS)
            if size >= MIN_EVALUATION_WORDS:
                self._runs |= runs(words, size)
                self._sizes.add(size)

    def holds(self, words: Sequence[str]) -> bool:
        """Whether the words share a run of 13 with a text of the set, or the shorter of the two stands in the other."""
        whole = " ".join(words)
        if whole in self._texts:
            return True
        if MIN_EVALUATION_WORDS <= len(words) < EVALUATION_RUN_WORDS and f" {whole} " in self._joined:
            return True
        return any(not self._runs.isdisjoint(runs(words, size)) for size in self._sizes)
