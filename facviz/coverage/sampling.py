"""FAC under sampling of documents: expected growth with size, intervals, and sets compared at equal content tokens."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from facviz.coverage.activity import FeatureIds, Matrix, Threshold, active_part, anchor_target, doc_frequency
from facviz.coverage.resampling import AT_ONCE, resamples, weight_shown
from facviz.errors import InputError
from facviz.records import Bools, Floats, Ints

FEWEST_DRAWS = 20
INTERVAL = (2.5, 97.5)

# A resample of N documents misses a feature of more than 64 of them with probability (1 − 64/N)^N < 2e-28: never seen.
_NEVER_MISSED = 64


class EqualTokens(NamedTuple):
    """FAC of random documents within a token budget: mean and 95 % range over draws, and their mean size."""

    fac: float
    low: float
    high: float
    n_docs: float
    n_tokens: float


def rarefaction(
    anchor: Matrix,
    dataset: Matrix,
    *,
    features: FeatureIds | None = None,
    act_threshold: Threshold = 0.0,
    sizes: Sequence[int] | Ints,
) -> Floats:
    """Expected FAC of `sizes[j]` documents drawn from `dataset` without replacement, exact (hypergeometric).

    >>> anchor, seed = np.array([[1.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    >>> rarefaction(anchor, seed, sizes=[1, 4]).round(3).tolist()
    [0.375, 1.0]

    Raises:
        CoverageError: no selected feature is active on the anchor set.
        InputError: a size is negative or larger than the data set.
    """
    target = anchor_target(anchor, dataset, features, act_threshold)
    return expected_shares(doc_frequency(dataset, act_threshold)[target], dataset.shape[0], sizes)


def expected_shares(frequency: Ints, n_docs: int, sizes: Sequence[int] | Ints) -> Floats:
    """Expected share of features shown by `sizes[j]` of `n_docs` documents, feature i standing in `frequency[i]`."""
    n_drawn = np.atleast_1d(np.asarray(sizes))
    if n_drawn.size and (n_drawn.dtype.kind not in "iu" or n_drawn.min() < 0 or n_drawn.max() > n_docs):
        raise InputError(f"`sizes` must be whole numbers from 0 to the {n_docs} documents of the data set.")
    values, n_features = np.unique(frequency, return_counts=True)
    share_missed = _chance_missed(values, n_drawn.astype(np.int64)[:, None], n_docs)
    return np.asarray((1.0 - share_missed) @ n_features / n_features.sum())


def _chance_missed(frequency: Ints, n_drawn: Ints, n_docs: int) -> Floats:
    """C(N − f, n) / C(N, n), broadcast; log-gamma keeps it finite for large N."""
    from scipy.special import gammaln  # slow to import, and the dashboard's first page needs none of it

    n_without = n_docs - frequency
    reachable = n_without >= n_drawn
    left = np.where(reachable, n_without - n_drawn, 0)
    ways = gammaln(n_without + 1) - gammaln(left + 1)
    log_chance = ways - (gammaln(n_docs + 1) - gammaln(n_docs - n_drawn + 1))
    return np.where(reachable, np.exp(np.minimum(log_chance, 0.0)), 0.0)


def bootstrap_interval(
    anchor: Matrix,
    dataset: Matrix,
    *,
    features: FeatureIds | None = None,
    act_threshold: Threshold = 0.0,
    n_bootstrap: int = 1000,
    rng_seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of FAC, resampling the documents of `dataset` (never the anchor's, which define the question).

    Percentiles of the resamples, shifted so that their mean is the measured FAC: a resample repeats documents and
    holds only 63 % of the distinct ones, so unshifted percentiles can lie wholly below the value they are meant for.
    """
    target = anchor_target(anchor, dataset, features, act_threshold)
    docs, offsets = _docs_of(dataset, target, act_threshold)
    weights = np.ones((len(offsets) - 1, 1))
    [interval] = bootstrap_shares(docs, offsets, weights, dataset.shape[0], n_bootstrap=n_bootstrap, rng_seed=rng_seed)
    return interval


def bootstrap_shares(
    docs: Ints, offsets: Ints, weights: Floats, n_docs: int, *, n_bootstrap: int = 1000, rng_seed: int = 0
) -> list[tuple[float, float]]:
    """`bootstrap_interval` of the shown share of each column of `weights` [n_features, n_weights], all in one pass.

    Feature i fires in the documents `docs[offsets[i]:offsets[i + 1]]`; weights are the anchor set's and never drawn.
    """
    if n_bootstrap < 1:
        raise InputError("n_bootstrap must be at least 1.")
    total, frequency = weights.sum(axis=0), np.diff(offsets)
    if n_docs == 0:
        return [(0.0, 0.0)] * weights.shape[1]
    covered = weights[frequency > 0].sum(axis=0)
    unsure = (frequency > 0) & (frequency <= _NEVER_MISSED)
    rare_docs = docs[np.repeat(unsure, frequency)]
    rare_offsets = np.concatenate([[0], np.cumsum(frequency[unsure])])
    shown = weight_shown(rare_docs, rare_offsets, weights[unsure], resamples(n_docs, n_bootstrap, rng_seed))
    # Features too frequent to be missed add the same to every resample, which the shift takes out again.
    low, high = np.percentile(shown, INTERVAL, axis=0) + (covered - shown.mean(axis=0))
    ends = zip(np.clip(low, 0, covered) / total, np.clip(high, covered, total) / total)
    return [(float(first), float(last)) for first, last in ends]


def _docs_of(dataset: Matrix, target: Bools, act_threshold: Threshold) -> tuple[Ints, Ints]:
    """Documents that activate each target feature, one feature after another, and their offsets."""
    active = active_part(dataset, act_threshold)[:, np.flatnonzero(target)].tocsc()
    return active.indices, active.indptr


def equal_token_comparison(
    anchor: Matrix,
    datasets: Mapping[str, tuple[Matrix, Ints]],
    *,
    features: FeatureIds | None = None,
    act_threshold: Threshold = 0.0,
    budget: int | None = None,
    n_draws: int = FEWEST_DRAWS,
    rng_seed: int = 0,
) -> dict[str, EqualTokens]:
    """FAC of each set from random documents within the same content-token budget (None: the smallest set's tokens).

    Draws depend on the set's name, not on the order of the mapping.
    """
    if n_draws < FEWEST_DRAWS:
        raise InputError(f"n_draws is {n_draws}; comparing sets needs at least {FEWEST_DRAWS}.")
    limit = _common_budget(datasets, budget)
    compared = {}
    for name, (matrix, tokens) in datasets.items():
        target = anchor_target(anchor, matrix, features, act_threshold)
        docs, offsets = _docs_of(matrix, target, act_threshold)
        compared[name] = share_within(name, docs, offsets, tokens, limit, n_draws=n_draws, rng_seed=rng_seed)
    return compared


def share_within(
    name: str, docs: Ints, offsets: Ints, tokens: Ints, budget: int, *, n_draws: int = FEWEST_DRAWS, rng_seed: int = 0
) -> EqualTokens:
    """Share of features shown by random documents within the token budget; feature i as in `bootstrap_shares`."""
    rng = np.random.default_rng([rng_seed, zlib.crc32(name.encode())])
    drawn = draw_within(np.asarray(tokens), budget, n_draws, rng)
    ones = np.ones((len(offsets) - 1, 1))
    choices = (drawn[start : start + AT_ONCE] for start in range(0, n_draws, AT_ONCE))
    hits = weight_shown(docs, offsets, ones, choices)[:, 0]
    fac, low, high = np.array([hits.mean(), *np.percentile(hits, INTERVAL)]) / len(ones)
    n_docs, n_tokens = drawn.sum(axis=1).mean(), (drawn @ np.asarray(tokens)).mean()
    return EqualTokens(float(fac), float(low), float(high), float(n_docs), float(n_tokens))


def _common_budget(datasets: Mapping[str, tuple[Matrix, Ints]], budget: int | None) -> int:
    totals = {name: _total_tokens(name, matrix, tokens) for name, (matrix, tokens) in datasets.items()}
    if not totals:
        raise InputError("There are no data sets to compare; name at least one.")
    smallest = min(totals, key=lambda name: totals[name])
    limit = totals[smallest] if budget is None else budget
    if not 1 <= limit <= totals[smallest]:
        raise InputError(
            f"A budget of {limit} content tokens cannot be drawn from {smallest}, which has {totals[smallest]}; "
            "give a budget from 1 up to the smallest set's, or leave the set out."
        )
    return limit


def _total_tokens(name: str, matrix: Matrix, tokens: Ints) -> int:
    if len(tokens) != matrix.shape[0]:
        raise InputError(f"{name} has {matrix.shape[0]} documents and {len(tokens)} token counts; give one count each.")
    return int(np.sum(tokens))


def draw_within(tokens: Ints, budget: int, n_draws: int, rng: np.random.Generator) -> Bools:
    """Documents in random order up to the first that no longer fits, bool [n_draws, n_docs]."""
    drawn = np.zeros((n_draws, tokens.size), dtype=bool)
    for row in drawn:
        order = rng.permutation(tokens.size)
        row[order[np.cumsum(tokens[order]) <= budget]] = True
    return drawn
