"""Does coverage predict quality? Pearson's r over mixes, with its interval, and always also without the gold arm.

One reference arm far from the others can make a correlation by itself, so a number without it stands beside every
number with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MIN_POINTS = 4
"""Fewer points leave Fisher's interval without a degree of freedom."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Pearson's r of n points with its 95 % interval (Fisher's z); None where it is not defined."""

    n: int
    r: float | None
    low: float | None
    high: float | None


def correlate(x: Sequence[float], y: Sequence[float]) -> Correlation:
    """Pearson's r of pairs; undefined for fewer than three points or where one side never varies.

    >>> correlate([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 5.0]).r
    0.9827
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(a) < MIN_POINTS - 1 or np.ptp(a) < 1e-12 or np.ptp(b) < 1e-12:
        return Correlation(len(a), None, None, None)
    found = stats.pearsonr(a, b)
    r = round(float(found.statistic), 4)
    if len(a) < MIN_POINTS:
        return Correlation(len(a), r, None, None)
    interval = found.confidence_interval(0.95)
    return Correlation(len(a), r, round(float(interval.low), 4), round(float(interval.high), 4))
