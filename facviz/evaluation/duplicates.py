"""Which test documents also stand, word for word or nearly, among the texts somebody may train on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from facviz.records import Bools

SHINGLE_WORDS = 3
_CHUNK = 512


def exact_duplicates(words: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> Bools:
    """Which texts have the same words in the same order as one of the others; texts without words never do."""
    known = {tuple(w) for w in others}
    return np.array([bool(w) and tuple(w) in known for w in words], bool)


def near_duplicates(words: Sequence[Sequence[str]], others: Sequence[Sequence[str]], *, min_jaccard: float) -> Bools:
    """Which texts share at least this part of their word trigrams with one of the others, exact copies included.

    The measure is the Jaccard index of the two sets; a text of fewer than three words is one shingle.
    """
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
        for shingle in _shingles(words):
            rows.append(number)
            columns.append(vocabulary.setdefault(shingle, len(vocabulary)))
    ones = np.ones(len(rows), np.int32)
    return sparse.csr_matrix((ones, (rows, columns)), shape=(len(texts), max(1, len(vocabulary))))


def _shingles(words: Sequence[str]) -> set[tuple[str, ...]]:
    if not words:
        return set()
    return {tuple(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}
