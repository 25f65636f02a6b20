"""AUPRC with its uncertainty: a bootstrap over test documents and seeds at once, the same draws for every arm.

Test documents are drawn within each label, so that prevalence, the floor of AUPRC, is that of the test set in every
draw. The same draws for all arms make differences paired: what is hard about a draw is hard for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from facviz.records import Bools, Floats, Ints

_CHUNK = 64
_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """An arm minus the arm without additions, with its 95 % interval and the share of draws above zero."""

    value: float
    low: float
    high: float
    share_above: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def average_precision(scores: Floats, positive: Bools, weights: Floats | None = None) -> Floats:
    """AUPRC of one ranking under several weightings of its documents, [n_weightings]; ties count as one step.

    >>> average_precision(np.array([3.0, 2.0, 1.0]), np.array([True, False, True])).round(4).tolist()
    [0.8333]
    """
    order = np.argsort(-scores, kind="stable")
    ranked, labels = scores[order], positive[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    drawn = (np.ones((1, len(scores))) if weights is None else np.asarray(weights, np.float64))[:, order]
    all_above = np.cumsum(drawn, axis=1)[:, ends]
    true_above = np.cumsum(drawn * labels, axis=1)[:, ends]
    steps = np.diff(true_above, axis=1, prepend=0.0)
    precision = np.divide(true_above, all_above, out=np.zeros_like(true_above), where=all_above > 0)
    total = true_above[:, -1]
    summed = (steps * precision).sum(axis=1)
    found: Floats = np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)
    return found


def compare_arms(
    scores: Mapping[str, Floats], positive: Bools, *, against: str, n_bootstrap: int, rng_seed: int
) -> tuple[dict[str, Interval], dict[str, Difference]]:
    """AUPRC of every arm, and its difference to `against`; `scores` are [n_seeds, n_test] per arm, seeds in one order.

    An arm with a single row (a line, not an arm) takes part with that row in every draw.
    """
    n_seeds = max(len(rows) for rows in scores.values())
    values = {arm: [float(average_precision(row, positive)[0]) for row in rows] for arm, rows in scores.items()}
    rng = np.random.default_rng(rng_seed)
    seeds = rng.integers(n_seeds, size=(n_bootstrap, n_seeds))
    weights = _weights(positive, n_bootstrap, rng)
    draws = {arm: _draws(rows, positive, weights, seeds) for arm, rows in scores.items()}
    means = {arm: float(np.mean(found)) for arm, found in values.items()}
    intervals = {arm: Interval(means[arm], *_bounds(found)) for arm, found in draws.items()}
    base = draws[against]
    differences = {
        arm: Difference(
            means[arm] - means[against], *_bounds(found - base), float((found > base).mean()) if len(found) else 0.0
        )
        for arm, found in draws.items()
        if arm != against
    }
    return intervals, differences


def _weights(positive: Bools, n_bootstrap: int, rng: np.random.Generator) -> Ints:
    """How often each test document stands in each draw, [n_bootstrap, n_test]."""
    weights = np.zeros((n_bootstrap, len(positive)), np.int16)
    for side in (positive, ~positive):
        columns = np.flatnonzero(side)
        if len(columns):
            weights[:, columns] = rng.multinomial(len(columns), np.full(len(columns), 1 / len(columns)), n_bootstrap)
    return weights


def _draws(rows: Floats, positive: Bools, weights: Ints, seeds: Ints) -> Floats:
    """Mean AUPRC over the drawn seeds on the drawn documents, [n_bootstrap]."""
    by_seed = np.empty((len(rows), len(weights)))
    for number, row in enumerate(rows):
        for start in range(0, len(weights), _CHUNK):
            part = weights[start : start + _CHUNK]
            by_seed[number, start : start + _CHUNK] = average_precision(row, positive, part.astype(np.float64))
    chosen = seeds % len(rows)
    means: Floats = by_seed[chosen, np.arange(len(weights))[:, None]].mean(axis=1)
    return means


def _bounds(found: Floats) -> tuple[float, float]:
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.quantile(found, [_TAIL, 1 - _TAIL])
    return float(low), float(high)
