"""What more texts of the same kind would still show: the Chao2 estimate of unseen features, and FAC beyond the set.

Chao2 (Chao 1987, in its incidence form with bias correction) reads the number of features nobody saw yet from those
that stand in exactly one and exactly two documents. It is a lower bound: too rare a feature leaves no such trace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facviz.records import Floats, Ints

_Z95 = 1.96


@dataclass(frozen=True, slots=True)
class Unseen:
    """How many of the features not shown yet more documents of the same kind would show, with a 95 % interval."""

    n_shown: int
    n_once: int  # features that stand in exactly one document
    n_twice: int
    estimate: float  # never more than the features that are left
    low: float
    high: float
    n_docs: int

    def shown_by(self, n_more: Sequence[int] | Ints) -> Floats:
        """Expected number of features that the set and `n_more` documents of the same kind show (Chao et al. 2014)."""
        more = np.asarray(n_more, np.float64)
        if not self.estimate or not self.n_once:
            return np.full(more.shape, float(self.n_shown))
        per_document = self.n_once / (self.n_docs * self.estimate + self.n_once)
        return self.n_shown + self.estimate * -np.expm1(more * math.log1p(-per_document))


def unseen_features(frequency: Ints, n_docs: int) -> Unseen:
    """Chao2 of the features of interest, feature i standing in `frequency[i]` of `n_docs` documents, 0 where unseen.

    >>> found = unseen_features(np.array([1, 1, 1, 1, 2, 9, 0, 0, 0, 0]), n_docs=10)
    >>> found.n_shown, found.n_once, found.n_twice, round(found.estimate, 2)
    (6, 4, 1, 2.7)
    """
    shown = frequency[frequency > 0]
    once, twice = int((shown == 1).sum()), int((shown == 2).sum())
    left = len(frequency) - len(shown)
    if not n_docs or not once or not left:
        return Unseen(len(shown), once, twice, 0.0, 0.0, 0.0, n_docs)
    scale = (n_docs - 1) / n_docs
    estimate = scale * once * (once - 1) / (2 * (twice + 1))
    low, high = _log_normal(estimate, _variance(once, twice, scale, len(shown), estimate))
    return Unseen(len(shown), once, twice, min(estimate, left), min(low, left), min(high, left), n_docs)


def _variance(once: int, twice: int, scale: float, n_shown: int, estimate: float) -> float:
    """Variance of the bias-corrected Chao2 (Chao 1987; Colwell's EstimateS, equations for f₂ > 0 and f₂ = 0)."""
    half = once * (once - 1) / (2 * (twice + 1))
    if twice:
        return (
            scale * half
            + scale**2 * once * (2 * once - 1) ** 2 / (4 * (twice + 1) ** 2)
            + scale**2 * once**2 * twice * (once - 1) ** 2 / (4 * (twice + 1) ** 4)
        )
    total = n_shown + estimate
    variance = scale * half + scale**2 * once * (2 * once - 1) ** 2 / 4 - scale**2 * once**4 / (4 * total)
    return max(variance, 0.0)


def _log_normal(estimate: float, variance: float) -> tuple[float, float]:
    if estimate <= 0:
        return 0.0, 0.0
    spread = math.exp(_Z95 * math.sqrt(math.log1p(variance / estimate**2)))
    return estimate / spread, estimate * spread
