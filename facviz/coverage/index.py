"""Activations sorted within each feature, so that a new threshold is a binary search and never a pass over the matrix.

Made once for a data set; every threshold, per feature or one for all, is then answered from the sorted columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from facviz.coverage.activity import Matrix, Threshold, check_finite, threshold_row, width_of
from facviz.errors import InputError
from facviz.records import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class ActivityIndex:
    """The positive `g_i(x)` of a data set, feature after feature and strongest first within each.

    Feature i owns places `offsets[i]` to `offsets[i + 1]` of `values` and `docs`; `n_tokens` counts content tokens.
    """

    values: Floats  # [nnz] float32 or float64
    docs: Ints  # [nnz] document numbers
    offsets: Ints  # [d_sae + 1]
    n_docs: int
    n_tokens: Ints  # [n_docs]

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return len(self.offsets) - 1

    @property
    def total_tokens(self) -> int:
        """Content tokens of all documents."""
        return int(self.n_tokens.sum())

    def maxima(self) -> Floats:
        """The largest activation of each feature, float64 [d_sae]; 0 where it never fires."""
        found = np.zeros(self.d_sae)
        fires = np.diff(self.offsets) > 0
        found[fires] = self.values[self.offsets[:-1][fires]]
        return found

    def n_active(self, act_threshold: Threshold = 0.0, features: Ints | None = None) -> Ints:
        """Documents above the threshold of each feature (None: all); `act_threshold` is one number or one for each."""
        low, high = self._bounds(features)
        row = threshold_row(act_threshold, len(low))
        first = low.copy()
        open_ = np.flatnonzero(low < high)
        while open_.size:
            middle = (low[open_] + high[open_]) // 2
            above = self.values[middle] > row[open_]
            low[open_[above]] = middle[above] + 1
            high[open_[~above]] = middle[~above]
            open_ = open_[low[open_] < high[open_]]
        return low - first

    def mean_active(self, n_active: Ints, features: Ints | None = None) -> Floats:
        """Mean of the `n_active` strongest activations of each feature, float64; 0 where there are none."""
        first, _ = self._bounds(features)
        return _segment_sums(self.values, first, n_active) / np.maximum(n_active, 1)

    def p95(self) -> Floats:
        """95th percentile (linear) of the activations of each feature, float64 [d_sae]; NaN where it never fires."""
        n = np.diff(self.offsets)
        seen = n > 0
        place = 0.95 * (n[seen] - 1)
        below = np.floor(place).astype(np.int64)
        last = self.offsets[1:][seen] - 1
        low = self.values[last - below].astype(np.float64)
        high = self.values[last - np.minimum(below + 1, n[seen] - 1)].astype(np.float64)
        part = place - below
        found = np.full(n.size, np.nan)
        # NumPy's own interpolation, step for step: at δ = 1.0 the last bit decides a strict inequality.
        found[seen] = np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))
        return found

    def docs_of(self, n_active: Ints, features: Ints) -> tuple[Ints, Ints]:
        """Documents of the `n_active` strongest activations of each feature, one after another, and their offsets."""
        first, _ = self._bounds(features)
        offsets = np.concatenate([[0], np.cumsum(n_active)])
        places = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], n_active)
        return self.docs[places], offsets

    def _bounds(self, features: Ints | None) -> tuple[Ints, Ints]:
        wanted = slice(None) if features is None else features
        return self.offsets[:-1][wanted].copy(), self.offsets[1:][wanted].copy()


def index_activity(matrix: Matrix, n_tokens: Any = None) -> ActivityIndex:
    """The index of a documents × features matrix, dense or sparse; without token counts every document counts one.

    >>> found = index_activity(np.array([[2.0, 0.0], [3.0, 1.0]]))
    >>> found.n_active(2.0).tolist(), found.maxima().tolist()
    ([1, 0], [3.0, 1.0])
    """
    d_sae, n_docs = width_of(matrix), matrix.shape[0]
    columns = sparse.csc_array(matrix)
    if columns is matrix or not columns.has_canonical_format:
        columns = columns.copy()
        columns.sum_duplicates()
    check_finite(columns.data)
    features = np.repeat(np.arange(d_sae, dtype=np.int32), np.diff(columns.indptr))
    return index_entries(features, columns.indices, columns.data, d_sae=d_sae, n_docs=n_docs, n_tokens=n_tokens)


def index_entries(
    features: Ints, docs: Ints, values: Floats, *, d_sae: int, n_docs: int, n_tokens: Any = None
) -> ActivityIndex:
    """The index of activations as a list of entries, each document once per feature; those not above 0 are left out."""
    tokens = np.ones(n_docs, np.int64) if n_tokens is None else np.asarray(n_tokens, np.int64)
    if len(tokens) != n_docs:
        raise InputError(f"There are {n_docs} documents and {len(tokens)} token counts; give one count each.")
    values = np.asarray(values)
    if not (values > 0).all():
        kept = values > 0
        features, docs, values = features[kept], docs[kept], values[kept]
    order = _strongest_first(features, values)
    counts = np.bincount(features, minlength=d_sae)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ActivityIndex(values[order], docs[order].astype(np.int32), offsets, n_docs, tokens)


def join_indices(indices: Sequence[ActivityIndex]) -> ActivityIndex:
    """Several data sets as one, their documents numbered on."""
    first, *others = indices
    if not others:
        return first
    if {index.d_sae for index in others} != {first.d_sae}:
        raise InputError("These data sets were encoded with different SAEs; encode all with one.")
    starts = np.cumsum([0, *(index.n_docs for index in indices)])
    return index_entries(
        np.concatenate([np.repeat(np.arange(i.d_sae, dtype=np.int32), np.diff(i.offsets)) for i in indices]),
        np.concatenate([index.docs + start for index, start in zip(indices, starts)]),
        np.concatenate([index.values for index in indices]),
        d_sae=first.d_sae,
        n_docs=int(starts[-1]),
        n_tokens=np.concatenate([index.n_tokens for index in indices]),
    )


def positive_p95(anchor: Matrix) -> Floats:
    """95th percentile (linear) of each feature's positive `g_i` on the anchor set, float64 [d_sae]; NaN if never."""
    return index_activity(anchor).p95()


def _strongest_first(features: Ints, values: Floats) -> Ints:
    if values.dtype != np.float32:
        return np.lexsort((-values, features))
    # The bits of positive floats order as the floats do, so feature and value are one whole number: one sort, not two.
    key = features.astype(np.uint64) << np.uint64(32)
    key |= np.uint64(0xFFFFFFFF) - values.view(np.uint32).astype(np.uint64)
    return np.argsort(key, kind="stable")


def _segment_sums(values: Floats, first: Ints, counts: Ints) -> Floats:
    """Sum of `counts[i]` values from place `first[i]` on, float64."""
    sums = np.zeros(len(first))
    some = counts > 0
    if not some.any():
        return sums
    offsets = np.concatenate([[0], np.cumsum(counts[some])])
    places = np.arange(offsets[-1]) + np.repeat(first[some] - offsets[:-1], counts[some])
    sums[some] = np.add.reduceat(values[places], offsets[:-1], dtype=np.float64)  # what lies between is never touched
    return sums
