"""Arms: training sets that differ in one thing only, which positives were added to the seed set's documents.

All arms of one seed share negatives and kept positives, and all have the same number of documents of each label. The
arm that adds nothing repeats the seed set's own positives instead, so that no arm is larger than another. As a control,
a part of the negatives can be generated texts as well: then a text's origin tells less of its class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from facviz.errors import InputError
from facviz.records import Bools, Ints

SEED_ARM = "seed"
GOLD_ARM = "gold"
UNVERIFIED_ARM = "unverified"


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """Row numbers of the documents that arms are made of; everything in `added` counts as positive."""

    seed_positive: Ints
    seed_negative: Ints
    added: Mapping[str, Ints]
    generated_negative: Ints = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """One training set: distinct rows, their label, how often each counts, and which of them were added."""

    rows: Ints
    is_positive: Bools
    weight: Ints
    added: Ints

    @property
    def n_positive(self) -> int:
        """Positives, repeated ones counted as often as they stand in it."""
        return int(self.weight[self.is_positive].sum())

    @property
    def n_negative(self) -> int:
        """Negatives."""
        return int(self.weight[~self.is_positive].sum())

    @property
    def n_distinct_positive(self) -> int:
        """Positives without repetitions."""
        return int(self.is_positive.sum())


def equal_n(sources: Sources, wanted: int | None, fewest: int) -> tuple[int, dict[str, int]]:
    """How many positives every arm adds, and the arms left out because they have fewer than `fewest`.

    Without a wish it is as many as the smallest arm that stays can give.

    Raises:
        InputError: no arm has enough, or an arm has fewer than wished.
    """
    sizes = {arm: len(rows) for arm, rows in sources.added.items()}
    left_out = {arm: n for arm, n in sizes.items() if n < fewest}
    kept = {arm: n for arm, n in sizes.items() if arm not in left_out}
    if not kept:
        most = max(sizes.values(), default=0)
        raise InputError(
            f"No arm has {fewest} texts to add (the largest has {most}); write more samples or lower --min-added."
        )
    smallest = min(kept, key=lambda arm: kept[arm])
    if wanted is not None and wanted > kept[smallest]:
        raise InputError(f"The arm {smallest} has {kept[smallest]} texts, fewer than --n-added {wanted}; lower it.")
    return wanted or kept[smallest], left_out


def draw_mix(
    sources: Sources, arm: str, n_added: int, n_negative: int, rng_seed: int, *, n_generated_negative: int = 0
) -> Mix:
    """The training set of an arm for one seed; smaller `n_added` of the same arm and seed are subsets of larger ones.

    Negatives and kept positives follow from the seed alone, so that arms of one seed differ only in what was added. Of
    the negatives `n_generated_negative` are generated texts in place of as many real ones.
    """
    negatives = _draw(sources.seed_negative, n_negative - n_generated_negative, rng_seed, "negatives")
    generated = _draw(sources.generated_negative, n_generated_negative, rng_seed, "generated negatives")
    negatives = np.concatenate([negatives, generated])
    kept = np.asarray(sources.seed_positive, np.int64)
    weight = np.ones(len(kept), np.int64)
    added: Ints = np.empty(0, np.int64)
    if arm != SEED_ARM:
        added = _draw(sources.added[arm], n_added, rng_seed, arm)
    elif len(kept):
        repeated = np.resize(_draw(np.arange(len(kept)), len(kept), rng_seed, "repeats"), n_added)
        weight += np.bincount(repeated, minlength=len(kept))
    rows = np.concatenate([negatives, kept, added])
    is_positive = np.arange(len(rows)) >= len(negatives)
    weights = np.concatenate([np.ones(len(negatives), np.int64), weight, np.ones(len(added), np.int64)])
    return Mix(rows, is_positive, weights, added)


def _draw(rows: Ints, n: int, rng_seed: int, what: str) -> Ints:
    """The first n of a permutation that follows from the seed and a name."""
    salt = int(hashlib.sha256(what.encode()).hexdigest()[:8], 16)
    order = np.random.default_rng([rng_seed, salt]).permutation(len(rows))
    return np.asarray(rows, np.int64)[order[:n]]
