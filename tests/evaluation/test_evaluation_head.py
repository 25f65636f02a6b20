"""The head learns what is there, chooses its regularisation inside the training set, and the probe tells apart."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from facviz.evaluation.head import FOLDS, STRENGTHS, tell_apart, train_head


def planted(n, rng, shift=2.0, d=12):
    positive = np.arange(n) % 3 == 0
    states = rng.normal(size=(n, d))
    states[:, 0] += shift * positive
    return states, positive


def test_a_planted_direction_is_found_and_its_absence_is_chance():
    rng = np.random.default_rng(0)
    (train, positive), (test, truth) = planted(150, rng), planted(300, rng)
    found = train_head(train, positive, np.ones(150, int), test, rng_seed=0)
    assert roc_auc_score(truth, found.scores) > 0.85
    assert found.strength in STRENGTHS
    assert found.n_folds == FOLDS
    blind = train_head(rng.permutation(train), positive, np.ones(150, int), test, rng_seed=0)
    assert abs(roc_auc_score(truth, blind.scores) - 0.5) < 0.2


def test_one_class_alone_scores_everything_the_same():
    rng = np.random.default_rng(0)
    states, _ = planted(20, rng)
    found = train_head(states, np.zeros(20, bool), np.ones(20, int), states, rng_seed=0)
    assert found.strength is None
    assert set(found.scores) == {0.0}


def test_the_test_documents_decide_nothing():
    rng = np.random.default_rng(1)
    (train, positive), (test, _) = planted(60, rng), planted(40, rng)
    both = train_head(train, positive, np.ones(60, int), test, rng_seed=0)
    alone = train_head(train, positive, np.ones(60, int), test[:1], rng_seed=0)
    assert alone.scores[0] == pytest.approx(both.scores[0], abs=1e-9)
    assert alone.strength == both.strength


def test_a_weight_of_two_is_the_document_twice():
    rng = np.random.default_rng(2)
    (states, positive), (test, _) = planted(40, rng), planted(30, rng)
    weight = np.where(positive, 2, 1)
    weighted = train_head(states, positive, weight, test, rng_seed=0)
    twice = np.repeat(np.arange(40), weight)
    mean, std = states[twice].mean(0), states[twice].std(0)
    model = LogisticRegression(C=weighted.strength, class_weight="balanced", max_iter=3000, tol=1e-8)
    model.fit((states[twice] - mean) / std, positive[twice])
    assert weighted.scores == pytest.approx(model.decision_function((test - mean) / std), abs=0.1)


def test_the_probe_tells_shifted_texts_apart_and_equal_ones_not():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(60, 8)), rng.normal(size=(80, 8))
    assert tell_apart(first + 3, second, rng_seed=0) > 0.95
    assert abs(tell_apart(first, second, rng_seed=0) - 0.5) < 0.2
    assert tell_apart(first[:3], second, rng_seed=0) is None
