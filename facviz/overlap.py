"""What texts share, counted in words: copied runs, exact copies, and the Jaccard index of their word trigrams.

Samples are gated by it and test sets cleaned by it, so it lies below both and knows neither.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from facviz.records import Bools

SHINGLE_WORDS = 3
_CHUNK = 512
IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # written without spaces: each counts as a word
_WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\W{IDEOGRAPHS}]+")


class Word(NamedTuple):
    """A lower-cased word and where it stands in its text."""

    text: str
    start: int
    end: int


def placed_words(text: str) -> list[Word]:
    """The words of a text with their places."""
    return [Word(m[0].lower(), m.start(), m.end()) for m in _WORD.finditer(text)]


def words_of(text: str) -> list[str]:
    """Lower-cased words, punctuation left out."""
    return _WORD.findall(text.lower())


def normalised(text: str) -> str:
    """What exact duplicates are compared by: words alone."""
    return " ".join(words_of(text))


def distinct_trigrams(words: Sequence[str]) -> float:
    """Share of word trigrams that are distinct; 1 for texts too short to repeat one."""
    trigrams = list(zip(words, words[1:], words[2:]))
    return len(set(trigrams)) / len(trigrams) if trigrams else 1.0


def runs(words: Sequence[str], size: int) -> set[str]:
    """All runs of `size` words, each as one string."""
    return {" ".join(words[i : i + size]) for i in range(len(words) - size + 1)}


def shared_runs(words: Sequence[str], others: Sequence[Sequence[str]], size: int) -> set[str]:
    """Runs of `size` words that also stand in one of the other texts."""
    theirs = {run for other in others for run in runs(other, size)}
    return theirs.intersection(runs(words, size))


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


def shingles(words: Sequence[str]) -> set[tuple[str, ...]]:
    """Word trigrams; a text of fewer than three words is one shingle."""
    if not words:
        return set()
    return {tuple(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}


class ShingleIndex:
    """Texts by their word trigrams, for asking which of them one new text is nearest to; it can grow."""

    def __init__(self) -> None:
        self._holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        self._sizes: list[int] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, words: Sequence[str]) -> None:
        """Remember a text; texts are numbered in the order they come."""
        own = shingles(words)
        for shingle in own:
            self._holders[shingle].append(len(self._sizes))
        self._sizes.append(len(own))

    def nearest(self, words: Sequence[str]) -> tuple[float, int]:
        """The highest Jaccard index and the number of the text that has it; 0 and −1 where nothing is shared."""
        own = shingles(words)
        shared = Counter(number for shingle in own for number in self._holders.get(shingle, ()))
        likeness = {number: n / (len(own) + self._sizes[number] - n) for number, n in shared.items()}
        number = max(likeness, key=lambda n: (likeness[n], -n), default=-1)
        return likeness.get(number, 0.0), number


def exact_duplicates(words: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> Bools:
    """Which texts have the same words in the same order as one of the others; texts without words never do."""
    known = {tuple(w) for w in others}
    return np.array([bool(w) and tuple(w) in known for w in words], bool)


def near_duplicates(words: Sequence[Sequence[str]], others: Sequence[Sequence[str]], *, min_jaccard: float) -> Bools:
    """Which texts share at least this part of their word trigrams with one of the others, exact copies included."""
    if not words or not others:
        return np.zeros(len(words), bool)
    vocabulary: dict[tuple[str, ...], int] = {}
    left, right = (_shingle_matrix(texts, vocabulary) for texts in (words, others))
    width = len(vocabulary)
    left.resize((len(words), width))
    right.resize((len(others), width))
    sizes_left, sizes_right = (np.asarray(m.sum(axis=1)).ravel() for m in (left, right))
    found = np.zeros(len(words), bool)
    transposed = right.T.tocsr()
    for start in range(0, len(words), _CHUNK):
        shared = (left[start : start + _CHUNK] @ transposed).tocoo()
        union = sizes_left[start + shared.row] + sizes_right[shared.col] - shared.data
        found[start + shared.row[shared.data >= min_jaccard * union]] = True
    return found


def _shingle_matrix(texts: Sequence[Sequence[str]], vocabulary: dict[tuple[str, ...], int]) -> sparse.csr_matrix:
    """Texts × shingles, 1 where a text has one; new shingles get the next number."""
    rows, columns = [], []
    for number, words in enumerate(texts):
        for shingle in shingles(words):
            rows.append(number)
            columns.append(vocabulary.setdefault(shingle, len(vocabulary)))
    ones = np.ones(len(rows), np.int32)
    return sparse.csr_matrix((ones, (rows, columns)), shape=(len(texts), max(1, len(vocabulary))))
