"""When a feature counts as active: matrices of `g_i(x)`, thresholds and sets of feature ids, checked once here.

"Active" is `g_i(x) > act_threshold`, strictly, everywhere. Knows nothing of anchor and seed beyond their matrices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import sparse

from facviz.errors import CoverageError, InputError
from facviz.records import Bools, Floats, Ints

Matrix = Any  # documents × features: numpy.ndarray or any SciPy sparse array or matrix
Threshold = float | Floats  # one for all features, or one per feature
FeatureIds = Iterable[int] | Ints


def active_features(matrix: Matrix, act_threshold: Threshold = 0.0) -> Bools:
    """Which features any document activates, bool [d_sae]."""
    return doc_frequency(matrix, act_threshold) > 0


def doc_frequency(matrix: Matrix, act_threshold: Threshold = 0.0) -> Ints:
    """Number of documents that activate each feature, [d_sae]."""
    active = active_part(matrix, act_threshold)
    return np.bincount(active.indices, minlength=active.shape[1])


def active_part(matrix: Matrix, act_threshold: Threshold) -> Any:
    """CSR of only the activations strictly above the threshold; all of them are > 0."""
    row = threshold_row(act_threshold, width_of(matrix))
    if not sparse.issparse(matrix):
        values = np.asarray(matrix)
        check_finite(values)
        return sparse.csr_array(np.where(values > row, values, 0))
    csr = sparse.csr_array(matrix)
    check_finite(csr.data)
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    kept = csr.data > row[csr.indices]
    offsets = np.concatenate([[0], np.cumsum(kept)])[csr.indptr]
    return sparse.csr_array((csr.data[kept], csr.indices[kept], offsets), shape=csr.shape)


def anchor_target(anchor: Matrix, dataset: Matrix, features: FeatureIds | None, act_threshold: Threshold) -> Bools:
    """`F ∩ act(anchor)` as a mask: the denominator, never empty."""
    wanted = feature_mask(features, common_width(anchor, dataset))
    if not wanted.any():
        raise CoverageError("No features are selected, so FAC has no denominator; lower the relevance level.")
    target = wanted & active_features(anchor, act_threshold)
    if not target.any():
        raise CoverageError(
            f"None of the {int(wanted.sum())} selected features is active on the anchor set at this threshold, so FAC "
            "has no denominator; lower the threshold or use a larger anchor set."
        )
    return target


def feature_mask(features: FeatureIds | None, d_sae: int) -> Bools:
    """Ids as bool [d_sae], None = all; refuses masks, decimals and ids the SAE does not have."""
    mask = np.zeros(d_sae, dtype=bool)
    if features is None:
        return ~mask
    ids = features if isinstance(features, np.ndarray) else np.array(list(features))
    if not ids.size:
        return mask
    if ids.dtype.kind not in "iu" or ids.ndim != 1:
        raise InputError("Features must be a flat list of whole feature ids; np.flatnonzero turns a mask into one.")
    if ids.min() < 0 or ids.max() >= d_sae:
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise InputError(f"Feature id {wrong} does not exist in this SAE; give ids from 0 to {d_sae - 1}.")
    mask[ids] = True
    return mask


def without_always_on(features: FeatureIds | None, is_always_on: Bools) -> Ints:
    """Sorted feature ids (None = all) less those flagged as firing nearly everywhere, bool [d_sae]."""
    flags = np.asarray(is_always_on, dtype=bool)
    return np.flatnonzero(feature_mask(features, flags.size) & ~flags)


def relative_thresholds(p95: Floats, value: float) -> Floats:
    """δ × each feature's `positive_p95`; infinite (never active) for features the anchor set never fires."""
    _check_threshold_value(value)
    own = np.asarray(p95, dtype=np.float64)
    usable = np.isfinite(own) & (own > 0)
    return np.where(usable, value * np.where(usable, own, 0.0), np.inf)


def thresholds(kind: str, value: float, p95: Floats) -> Floats:
    """One `act_threshold` per feature, [d_sae]; `p95` gives the scale (relative) or only the width (absolute)."""
    if kind == "relative":
        return relative_thresholds(p95, value)
    if kind == "absolute":
        _check_threshold_value(value)
        return np.full(len(p95), float(value))
    raise InputError(f"The threshold kind {kind!r} is unknown; choose relative or absolute.")


def common_width(anchor: Matrix, dataset: Matrix) -> int:
    """The d_sae both matrices share; refuses matrices of two SAEs."""
    d_sae, other = width_of(anchor), width_of(dataset)
    if d_sae != other:
        raise InputError(f"The anchor set has {d_sae} features, the data set {other}; encode both with one SAE.")
    return d_sae


def width_of(matrix: Matrix) -> int:
    """The d_sae of a documents × features matrix; refuses anything not two-dimensional."""
    if getattr(matrix, "ndim", 0) != 2:
        raise InputError("Activations must be a documents × features matrix; give a single document as one row.")
    return int(matrix.shape[1])


def threshold_row(act_threshold: Threshold, d_sae: int) -> Floats:
    """One checked threshold for each of `d_sae` features, float64."""
    # Always float64: compared with a Python number, NumPy would round δ to the matrix's float32.
    row = np.asarray(act_threshold, dtype=np.float64)
    if row.ndim and row.shape != (d_sae,):
        raise InputError(f"act_threshold has shape {row.shape}; give one number, or one for each of {d_sae} features.")
    if not (row >= 0).all():
        raise InputError("act_threshold holds a negative number or NaN; give numbers of at least 0.")
    return np.broadcast_to(row, (d_sae,))


def _check_threshold_value(value: float) -> None:
    if not 0 <= value < np.inf:
        raise InputError(f"The threshold δ is {value}; give a finite number of at least 0.")


def check_finite(values: Any) -> None:
    """Refuses NaN and infinities."""
    if not np.isfinite(values).all():
        raise InputError("The activations hold NaN or infinite values; capture them again before measuring coverage.")
