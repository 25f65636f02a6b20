"""Two data sets side by side in feature space: what the second gains, loses, and shows far less or more of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from facviz.coverage.index import ActivityIndex
from facviz.errors import InputError
from facviz.records import Bools, Floats, Ints

Change = Literal["gained", "lost", "weakened", "strengthened", "kept", "absent"]
CHANGES: tuple[Change, ...] = ("gained", "lost", "weakened", "strengthened", "kept", "absent")
"""Every feature has exactly one."""

HALF = 0.5
MAX_Q = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """How each feature fares from one set to the next, [n] in the order of `features`.

    `ratio` is how many documents activate it per content token in the second set, over that in the first; infinite
    where only the second has it, NaN where neither does. `q` is how surprising the change is by chance.
    """

    features: Ints
    n_before: Ints  # documents
    n_after: Ints
    ratio: Floats
    q: Floats
    change: Ints  # place in CHANGES

    def of(self, change: Change) -> Ints:
        """Features with this change, most surprising first, then the most documents."""
        places = np.flatnonzero(self.change == CHANGES.index(change))
        order = np.lexsort((-(self.n_before + self.n_after)[places], self.q[places]))
        return self.features[places[order]]

    def count(self, change: Change) -> int:
        """Number of features with this change."""
        return int((self.change == CHANGES.index(change)).sum())


def dataset_difference(
    before: ActivityIndex, after: ActivityIndex, features: Ints, act_threshold: Floats
) -> Difference:
    """Every feature as gained, lost, weakened, strengthened, kept or absent, `act_threshold` one for each of them.

    Gained and lost are a set difference, as in FAC. Weakened: in both, but per content token in at most half as many
    documents, beyond chance; strengthened: the reverse. Chance is the exact binomial test of how the documents split
    between the sets, given their content tokens, with q by Benjamini-Hochberg over all features in either set.
    """
    if before.d_sae != after.d_sae:
        raise InputError(f"One set has {before.d_sae} features, the other {after.d_sae}; encode both with one SAE.")
    n_before, n_after = (index.n_active(act_threshold, features) for index in (before, after))
    tokens = np.array([before.total_tokens, after.total_tokens], np.float64)
    if not tokens.all():
        raise InputError("A set without content tokens cannot be compared; choose another.")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (n_after / tokens[1]) / (n_before / tokens[0])
    q = _surprise(n_before, n_after, tokens[1] / tokens.sum())
    is_surprising = q <= MAX_Q
    change = np.select(
        [
            (n_before == 0) & (n_after > 0),
            (n_before > 0) & (n_after == 0),
            is_surprising & (n_before > 0) & (ratio <= HALF),
            is_surprising & (n_before > 0) & (ratio >= 1 / HALF),
            n_before > 0,
        ],
        range(5),
        default=5,
    )
    return Difference(features, n_before, n_after, ratio, q, change)


def _surprise(n_before: Ints, n_after: Ints, share_after: float) -> Floats:
    """Two-sided binomial p of each split, corrected by Benjamini-Hochberg over the features in either set; else 1."""
    from scipy.stats import binom, false_discovery_control  # slow to import; few pages need it

    total = n_before + n_after
    seen: Bools = total > 0
    low = binom.cdf(n_after[seen], total[seen], share_after)
    high = binom.sf(n_after[seen] - 1, total[seen], share_after)
    p = np.minimum(1.0, 2 * np.minimum(low, high))
    q = np.ones(len(total))
    q[seen] = false_discovery_control(p) if p.size else p
    return q
