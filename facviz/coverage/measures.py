"""FAC and its relatives: which relevant features of the anchor set a data set activates, and which are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from facviz.coverage.activity import (
    FeatureIds,
    Matrix,
    Threshold,
    active_features,
    active_part,
    anchor_target,
    common_width,
    doc_frequency,
    feature_mask,
    thresholds,
    width_of,
)
from facviz.coverage.index import positive_p95
from facviz.coverage.sampling import bootstrap_interval
from facviz.errors import CoverageError
from facviz.records import Floats, Ints

Kind = Literal["relative", "absolute"]

GRIDS: Mapping[str, tuple[float, ...]] = {
    "relative": (0.5, 0.75, 1.0, 1.25, 1.5),
    "absolute": (0.0, 0.5, 1.0, 1.5, 2.0, 4.0),
}
"""Values of δ a curve is drawn over, per kind of threshold."""

FEWEST_MISSING = 5
FEWEST_MISSING_SHARE = 0.01


class CurvePoint(NamedTuple):
    """FAC at one δ; `fac` is None where no relevant feature is active on the anchor set."""

    threshold: float
    fac: float | None
    n_anchor: int
    n_missing: int


@dataclass(frozen=True, slots=True, eq=False)
class CoverageResult:
    """One coverage measurement with everything it follows from; `n_anchor` is the denominator of `fac`."""

    fac: float
    fac_low: float | None  # None when no interval was asked for
    fac_high: float | None
    n_relevant: int
    n_anchor: int
    n_covered: int
    n_missing: int
    missing: Ints  # sorted feature ids
    saturated: bool
    unsaturated_threshold: float | None  # smallest δ of the grid that is not saturated
    kind: Kind
    threshold: float
    curve: tuple[CurvePoint, ...]
    n_anchor_docs: int
    n_seed_docs: int
    n_bootstrap: int
    rng_seed: int


def compute_fac(
    anchor: Matrix, dataset: Matrix, *, features: FeatureIds | None = None, act_threshold: Threshold = 0.0
) -> float:
    """Share of the anchor set's (task-relevant) features that `dataset` also activates, a fraction (paper eq. 4–5).

    >>> anchor, seed = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]), np.array([[1.0, 0.0, 5.0]])
    >>> round(compute_fac(anchor, seed), 4)
    0.6667

    Raises:
        CoverageError: no feature is selected, or none of them is active on the anchor set.
    """
    target = anchor_target(anchor, dataset, features, act_threshold)
    return float(active_features(dataset, act_threshold)[target].mean())


def missing_features(
    anchor: Matrix, dataset: Matrix, *, features: FeatureIds | None = None, act_threshold: Threshold = 0.0
) -> Ints:
    """Sorted ids the anchor set activates and `dataset` does not: a set difference on activations (paper eq. 6).

    >>> anchor, seed = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]), np.array([[1.0, 0.0, 5.0]])
    >>> missing_features(anchor, seed).tolist()
    [1]
    """
    d_sae = common_width(anchor, dataset)
    in_anchor = active_features(anchor, act_threshold) & feature_mask(features, d_sae)
    return np.flatnonzero(in_anchor & ~active_features(dataset, act_threshold))


def missing_coverage(missing: FeatureIds, generated: Matrix, *, act_threshold: Threshold = 0.0) -> float:
    """Share of the missing features that a generated set activates: the percentages the paper prints.

    >>> generated = np.array([[0.0, 4.0, 0.0], [0.0, 0.0, 0.5]])
    >>> missing_coverage([1, 2], generated, act_threshold=1.0)
    0.5

    Raises:
        CoverageError: nothing is missing, so there is no denominator.
    """
    target = feature_mask(missing, width_of(generated))
    if not target.any():
        raise CoverageError("No feature is missing, so there is nothing to cover; raise act_threshold to see a gap.")
    return float(active_features(generated, act_threshold)[target].mean())


def fac_frequency(
    anchor: Matrix, dataset: Matrix, *, features: FeatureIds | None = None, act_threshold: Threshold = 0.0
) -> float:
    """FAC with each feature weighted by the share of anchor documents that activate it (paper L.6, FAC-freq)."""
    weights = doc_frequency(anchor, act_threshold).astype(np.float64)
    return _weighted_fac(weights, anchor, dataset, features, act_threshold)


def fac_magnitude(
    anchor: Matrix, dataset: Matrix, *, features: FeatureIds | None = None, act_threshold: Threshold = 0.0
) -> float:
    """FAC with each feature weighted by its mean `g_i` on the anchor documents that activate it (paper L.6)."""
    active = active_part(anchor, act_threshold)
    total = np.bincount(active.indices, weights=active.data, minlength=active.shape[1])
    weights = total / np.maximum(doc_frequency(anchor, act_threshold), 1)
    return _weighted_fac(weights, anchor, dataset, features, act_threshold)


def _weighted_fac(
    weights: Floats, anchor: Matrix, dataset: Matrix, features: FeatureIds | None, act_threshold: Threshold
) -> float:
    target = anchor_target(anchor, dataset, features, act_threshold)
    covered = target & active_features(dataset, act_threshold)
    return float(weights[covered].sum() / weights[target].sum())


def is_saturated(n_missing: int, n_anchor: int) -> bool:
    """Whether too few features are missing for synthesis to prove anything: fewer than max(5, 1 %)."""
    return n_missing < max(FEWEST_MISSING, FEWEST_MISSING_SHARE * n_anchor)


def measure_coverage(
    anchor: Matrix,
    seed: Matrix,
    *,
    p95: Floats | None = None,
    kind: Kind = "relative",
    threshold: float = 1.0,
    features: FeatureIds | None = None,
    n_bootstrap: int = 1000,
    rng_seed: int = 0,
) -> CoverageResult:
    """FAC of the seed set with interval, gap, curve and saturation; `p95` None is taken from the anchor set.

    Raises:
        CoverageError: no feature is selected, or none of them is active on the anchor set.
    """
    d_sae = common_width(anchor, seed)
    p95 = _scale(anchor, p95, kind)
    row = thresholds(kind, threshold, p95)
    relevant = np.flatnonzero(feature_mask(features, d_sae))
    target = anchor_target(anchor, seed, relevant, row)
    missing = missing_features(anchor, seed, features=relevant, act_threshold=row)
    n_anchor, n_missing = int(target.sum()), missing.size
    curve = coverage_curve(anchor, seed, p95=p95, kind=kind, features=relevant)
    low, high = None, None
    if n_bootstrap:
        low, high = bootstrap_interval(
            anchor, seed, features=relevant, act_threshold=row, n_bootstrap=n_bootstrap, rng_seed=rng_seed
        )
    return CoverageResult(
        fac=(n_anchor - n_missing) / n_anchor,
        fac_low=low,
        fac_high=high,
        n_relevant=relevant.size,
        n_anchor=n_anchor,
        n_covered=n_anchor - n_missing,
        n_missing=n_missing,
        missing=missing,
        saturated=is_saturated(n_missing, n_anchor),
        unsaturated_threshold=next((p.threshold for p in curve if not is_saturated(p.n_missing, p.n_anchor)), None),
        kind=kind,
        threshold=float(threshold),
        curve=tuple(curve),
        n_anchor_docs=anchor.shape[0],
        n_seed_docs=seed.shape[0],
        n_bootstrap=n_bootstrap,
        rng_seed=rng_seed,
    )


def coverage_curve(
    anchor: Matrix,
    dataset: Matrix,
    *,
    p95: Floats | None = None,
    kind: Kind = "relative",
    features: FeatureIds | None = None,
    grid: Sequence[float] | None = None,
) -> list[CurvePoint]:
    """FAC at each δ of an ascending grid (None: the kind's own), the denominator recomputed for each."""
    wanted = feature_mask(features, common_width(anchor, dataset))
    p95 = _scale(anchor, p95, kind)
    points = []
    for value in sorted(GRIDS[kind] if grid is None else grid):
        row = thresholds(kind, value, p95)
        target = active_features(anchor, row) & wanted
        n_anchor = int(target.sum())
        n_missing = int((target & ~active_features(dataset, row)).sum())
        points.append(
            CurvePoint(float(value), (n_anchor - n_missing) / n_anchor if n_anchor else None, n_anchor, n_missing)
        )
    return points


def _scale(anchor: Matrix, p95: Floats | None, kind: str) -> Floats:
    if p95 is not None:
        return p95
    return positive_p95(anchor) if kind == "relative" else np.full(width_of(anchor), np.nan)
