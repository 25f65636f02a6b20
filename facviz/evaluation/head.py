"""The trained part: a logistic head on frozen states, and the probe that tells what was generated from what is real."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from facviz.records import Bools, Floats, Ints

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisation that cross-validation chooses from, on standardised features."""
FOLDS = 4
PROBE_STRENGTH = 1e-2
MIN_PROBE = 4
"""Texts of each kind below which nothing is probed."""
_MAX_ITERATIONS = 300


@dataclass(frozen=True, slots=True, eq=False)
class HeadResult:
    """Scores of test documents, the regularisation chosen (None when there was nothing to learn), and who chose it."""

    scores: Floats
    strength: float | None
    n_folds: int


def train_head(states: Floats, is_positive: Bools, weight: Ints, test_states: Floats, *, rng_seed: int) -> HeadResult:
    """Fit on one training set and score the test documents; the test documents decide nothing.

    Classes weigh the same whatever their sizes. The regularisation is chosen by cross-validation inside the training
    set, whose rows are distinct documents: a repeated one has weight, so it never stands on both sides of a fold. With
    one class only there is nothing to learn and all scores are equal.
    """
    n_each = [int(is_positive.sum()), int((~is_positive).sum())]
    if min(n_each) == 0:
        return HeadResult(np.zeros(len(test_states)), None, 0)
    n_folds = min(FOLDS, *n_each)
    strength = STRENGTHS[len(STRENGTHS) // 2]
    if n_folds > 1:
        splitter = StratifiedKFold(n_folds, shuffle=True, random_state=rng_seed)
        folds = list(splitter.split(states, is_positive))
        strength = _choose(states, is_positive, weight, folds)
    else:
        n_folds = 0
    [scores] = _fit(states, is_positive, weight, test_states, [strength])
    return HeadResult(scores, strength, n_folds)


def _choose(states: Floats, is_positive: Bools, weight: Ints, folds: Sequence[Any]) -> float:
    """The strength with the best mean average precision over the folds; of equal ones the most regularised."""
    found = np.zeros(len(STRENGTHS))
    for train, held in folds:
        scored = _fit(states[train], is_positive[train], weight[train], states[held], STRENGTHS)
        found += [average_precision_score(is_positive[held], s, sample_weight=weight[held]) for s in scored]
    return STRENGTHS[int(np.argmax(found.round(9)))]


def _fit(states: Floats, is_positive: Bools, weight: Ints, others: Floats, strengths: Sequence[float]) -> list[Floats]:
    """Scores of the others by a head of each strength; standardised by the training rows alone."""
    mean = np.average(states, axis=0, weights=weight)
    spread = np.sqrt(np.average((states - mean) ** 2, axis=0, weights=weight))
    scale = np.where(spread > 1e-6, spread, 1.0)
    inputs, outputs = (states - mean) / scale, (others - mean) / scale
    model = LogisticRegression(max_iter=_MAX_ITERATIONS, tol=1e-3, warm_start=True)
    balanced = _balanced(is_positive, weight)
    scores: list[Floats] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a head stopped early is a regularised head
        for strength in strengths:
            model.set_params(C=strength).fit(inputs, is_positive, sample_weight=balanced)
            scores.append(np.asarray(model.decision_function(outputs), np.float64))
    return scores


def _balanced(is_positive: Bools, weight: Ints) -> Floats:
    """Weights under which both classes weigh half of all."""
    totals = np.bincount(is_positive.astype(int), weights=weight, minlength=2)
    shares: Floats = weight * totals.sum() / (2 * totals[is_positive.astype(int)])
    return shares


def tell_apart(first: Floats, second: Floats, *, rng_seed: int) -> float | None:
    """AUROC with which a head tells two sets of states apart, each document scored by a head that never saw it.

    0.5 is "cannot tell". None when a set is too small to be split.
    """
    n = min(len(first), len(second))
    if n < MIN_PROBE:
        return None
    rng = np.random.default_rng(rng_seed)
    states = np.concatenate([part[rng.permutation(len(part))[:n]] for part in (first, second)])
    is_first = np.arange(2 * n) < n
    scores, ones = np.zeros(2 * n), np.ones(2 * n, np.int64)
    for train, held in StratifiedKFold(min(5, n), shuffle=True, random_state=rng_seed).split(states, is_first):
        [scores[held]] = _fit(states[train], is_first[train], ones[train], states[held], [PROBE_STRENGTH])
    return float(roc_auc_score(is_first, scores))
