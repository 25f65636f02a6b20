"""Coverage at whatever δ somebody turns to: from columns sorted once, so that nothing but searches depends on δ.

Everything follows by the rules of `facviz.coverage`, so that a page shows what `facviz coverage` would print. What
takes longer than a move of the slider, intervals by resampling, is apart: `measure_sure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from facviz.coverage import (
    GRIDS,
    ActivityIndex,
    Kind,
    Unseen,
    bootstrap_shares,
    expected_shares,
    is_saturated,
    thresholds,
    unseen_features,
)
from facviz.errors import CoverageError
from facviz.records import Bools, Floats, Ints
from facviz.store.gap import TaskFeatures
from facviz.views.charts import Curve

N_BOOTSTRAP = 1000
N_BOOTSTRAP_WIDE = 300
_WIDE = 20_000_000  # documents × features from which a moved threshold would be felt to wait for a thousand resamples
LEVELS = ("yes", "probably", "maybe")
KINDS: tuple[Kind, ...] = ("relative", "absolute")
_CURVE_STEPS = 40
_RAREFACTION_POINTS = 40
_TOP_RELATIVE = 2.0
_FEWEST_SHARE = 0.05
"""A share of fewer of the relevant features than this jumps with every single one; the curve ends before."""


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """A task's features, [n], and the sorted activations of both sets with each feature's largest."""

    task: TaskFeatures
    anchor: ActivityIndex
    seed: ActivityIndex
    max_anchor: Floats
    max_seed: Floats

    @property
    def features(self) -> Ints:
        """Ids of the features that matter at any level."""
        return self.task.features


@dataclass(frozen=True, slots=True, eq=False)
class LevelEffect:
    """What counting from one level on gives, and the features that it adds to the level above."""

    level: str
    n_relevant: int
    n_anchor: int
    n_missing: int
    added_missing: Ints
    added_covered: Ints

    @property
    def fac(self) -> float | None:
        """None where no feature of the level is active on the anchor set."""
        return (self.n_anchor - self.n_missing) / self.n_anchor if self.n_anchor else None


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """Coverage at one δ; `missing` are ids, `threshold_of` and `n_docs_of` say δ and anchor documents of a feature."""

    kind: Kind
    threshold: float
    level: str
    fac: float
    fac_frequency: float
    fac_magnitude: float
    n_relevant: int
    n_anchor: int
    n_covered: int
    target: Ints
    missing: Ints
    target_threshold: Floats  # [n_anchor]
    weights: Floats  # [n_anchor, 3]: each the same, by anchor documents, by mean strength
    saturated: bool
    unsaturated: float | None
    curve: tuple[tuple[float, float], ...]
    growth: tuple[Curve, ...]
    beyond: Curve
    unseen: Unseen
    levels: tuple[LevelEffect, ...]
    threshold_of: Mapping[int, float]
    n_docs_of: Mapping[int, int]

    @property
    def n_missing(self) -> int:
        """Features the seed set misses."""
        return len(self.missing)


@dataclass(frozen=True, slots=True)
class Sure:
    """95 % intervals of the three forms of FAC, from `n_bootstrap` resamples of the seed set's documents."""

    fac: tuple[float, float]
    frequency: tuple[float, float]
    magnitude: tuple[float, float]
    n_bootstrap: int


def make_lens(task: TaskFeatures, anchor: ActivityIndex, seed: ActivityIndex) -> Lens:
    """What of a question does not depend on δ."""
    return Lens(task, anchor, seed, anchor.maxima()[task.features], seed.maxima()[task.features])


def highest_threshold(lens: Lens, kind: Kind) -> float:
    """The largest δ worth turning to: twice the p95, or the anchor set's largest activation."""
    if kind == "relative":
        return _TOP_RELATIVE
    top = float(lens.max_anchor.max(initial=0.0))
    return float(np.ceil(top)) or 1.0


def measure_live(lens: Lens, level: str, kind: Kind, threshold: float) -> Live:
    """Everything about one δ but the intervals.

    Raises:
        CoverageError: no relevant feature is active on the anchor set at this δ.
    """
    row = thresholds(kind, threshold, lens.task.p95)
    in_anchor, in_seed = (index.n_active(row, lens.features) for index in (lens.anchor, lens.seed))
    is_relevant = lens.task.rank <= LEVELS.index(level)
    is_target = is_relevant & (in_anchor > 0)
    if not is_target.any():
        raise CoverageError("No relevant feature is active on the anchor set at this threshold; lower δ.")
    shown, target = in_seed[is_target], lens.features[is_target]
    strength = lens.anchor.mean_active(in_anchor[is_target], target)
    weights = np.stack([np.ones(len(target)), in_anchor[is_target], strength], axis=1)
    fac, by_frequency, by_magnitude = (weights[shown > 0].sum(axis=0) / weights.sum(axis=0)).tolist()
    n_anchor, n_covered = len(target), int((shown > 0).sum())
    unseen = unseen_features(shown, lens.seed.n_docs)
    ids = lens.features[is_relevant].tolist()
    return Live(
        kind=kind,
        threshold=threshold,
        level=level,
        fac=fac,
        fac_frequency=by_frequency,
        fac_magnitude=by_magnitude,
        n_relevant=len(ids),
        n_anchor=n_anchor,
        n_covered=n_covered,
        target=target,
        missing=target[shown == 0],
        target_threshold=row[is_target],
        weights=weights,
        saturated=is_saturated(n_anchor - n_covered, n_anchor),
        unsaturated=_unsaturated(lens, is_relevant, kind),
        curve=fac_curve(lens, level, kind, threshold),
        growth=(
            _growth("seed", shown, lens.seed.n_docs),
            _growth("anchor", in_anchor[is_target], lens.anchor.n_docs),
        ),
        beyond=_beyond(unseen, n_anchor),
        unseen=unseen,
        levels=_levels(lens, in_anchor > 0, in_seed > 0),
        threshold_of=dict(zip(ids, row[is_relevant].tolist())),
        n_docs_of=dict(zip(ids, in_anchor[is_relevant].tolist())),
    )


def measure_sure(lens: Lens, live: Live, *, n_bootstrap: int | None = None) -> Sure:
    """Intervals of what `measure_live` found; None takes 1,000 resamples, of wide questions 300."""
    if n_bootstrap is None:
        n_bootstrap = N_BOOTSTRAP_WIDE if lens.seed.n_docs * len(live.target) > _WIDE else N_BOOTSTRAP
    fac, frequency, magnitude = shares_interval(live, lens.seed, n_bootstrap=n_bootstrap)
    return Sure(fac, frequency, magnitude, n_bootstrap)


def shares_interval(live: Live, dataset: ActivityIndex, *, n_bootstrap: int) -> list[tuple[float, float]]:
    """Intervals of the three forms of FAC of any data set."""
    n_active = dataset.n_active(live.target_threshold, live.target)
    docs, offsets = dataset.docs_of(n_active, live.target)
    return bootstrap_shares(docs, offsets, live.weights, dataset.n_docs, n_bootstrap=n_bootstrap)


def fac_curve(lens: Lens, level: str, kind: Kind, threshold: float) -> tuple[tuple[float, float], ...]:
    """Exact (δ, FAC) from each feature's largest activation in both sets, `threshold` among the points."""
    is_relevant = lens.task.rank <= LEVELS.index(level)
    grid = np.linspace(0, highest_threshold(lens, kind), _CURVE_STEPS + 1).round(4).tolist()
    counted = ((value, *_counts(lens, is_relevant, kind, value)) for value in sorted({*grid, *GRIDS[kind], threshold}))
    fewest = max(1.0, _FEWEST_SHARE * int(is_relevant.sum()))
    shown = [point for point in counted if point[1] >= fewest or (point[0] == threshold and point[1])]
    return tuple((value, (n_anchor - n_missing) / n_anchor) for value, n_anchor, n_missing in shown)


def _counts(lens: Lens, is_relevant: Bools, kind: Kind, threshold: float) -> tuple[int, int]:
    """Features of the anchor set and how many of them are missing."""
    row = thresholds(kind, threshold, lens.task.p95)
    is_target = is_relevant & (lens.max_anchor > row)
    return int(is_target.sum()), int((is_target & ~(lens.max_seed > row)).sum())


def _unsaturated(lens: Lens, is_relevant: Bools, kind: Kind) -> float | None:
    counted = ((value, *_counts(lens, is_relevant, kind, value)) for value in GRIDS[kind])
    return next((value for value, n_anchor, n_missing in counted if not is_saturated(n_missing, n_anchor)), None)


def _levels(lens: Lens, in_anchor: Bools, in_seed: Bools) -> tuple[LevelEffect, ...]:
    effects = []
    for place, level in enumerate(LEVELS):
        counted = lens.task.rank <= place
        added = (lens.task.rank == place) & in_anchor
        effects.append(
            LevelEffect(
                level=level,
                n_relevant=int(counted.sum()),
                n_anchor=int((counted & in_anchor).sum()),
                n_missing=int((counted & in_anchor & ~in_seed).sum()),
                added_missing=lens.features[added & ~in_seed],
                added_covered=lens.features[added & in_seed],
            )
        )
    return tuple(effects)


def _growth(meaning: Any, frequency: Ints, n_docs: int) -> Curve:
    """Expected FAC of ever more documents of a set."""
    if n_docs == 0:
        return Curve(meaning, (), (), meaning)
    sizes = np.unique(np.geomspace(1, n_docs, _RAREFACTION_POINTS).round().astype(np.int64))
    fac = expected_shares(frequency, n_docs, sizes)
    return Curve(meaning, sizes.tolist(), fac.tolist(), meaning)


def _beyond(unseen: Unseen, n_anchor: int) -> Curve:
    """Expected FAC of the seed set with as many documents of the same kind again."""
    more = np.unique(np.linspace(0, unseen.n_docs, 20).round().astype(np.int64))
    fac = np.minimum(unseen.shown_by(more) / n_anchor, 1.0)
    return Curve("seed", (unseen.n_docs + more).tolist(), fac.tolist(), "seed")
