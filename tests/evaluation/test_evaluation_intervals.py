"""AUPRC by hand and against scikit-learn; intervals that cover, and differences that are paired."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from facviz.evaluation.correlation import correlate
from facviz.evaluation.intervals import average_precision, compare_arms


def test_average_precision_by_hand():
    scores, positive = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert average_precision(scores, positive)[0] == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_equal_scores_give_the_prevalence():
    assert average_precision(np.zeros(10), np.arange(10) < 3)[0] == pytest.approx(0.3)


def test_weights_agree_with_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(6, size=50).astype(float), rng.random(50) < 0.3
    weights = rng.integers(4, size=(20, 50))
    wanted = [average_precision_score(positive, scores, sample_weight=w) for w in weights]
    assert average_precision(scores, positive, weights) == pytest.approx(wanted)


def test_arms_with_equal_scores_do_not_differ_and_a_better_one_does():
    rng = np.random.default_rng(1)
    positive = np.arange(200) < 40
    base = rng.normal(size=(3, 200))
    intervals, gains = compare_arms(
        {"seed": base, "same": base.copy(), "better": base + 2 * positive},
        positive,
        against="seed",
        n_bootstrap=300,
        rng_seed=0,
    )
    assert (gains["same"].value, gains["same"].low, gains["same"].high) == (0, 0, 0)
    assert not gains["same"].is_clear
    assert gains["better"].is_clear
    assert gains["better"].share_above == 1.0
    for found in intervals.values():
        assert found.low <= found.value <= found.high
    mean = np.mean([average_precision_score(positive, row) for row in base])
    assert intervals["seed"].value == pytest.approx(mean)
    assert "seed" not in gains


def test_an_arm_without_anything_learned_stands_on_the_floor_in_every_draw():
    positive = np.arange(50) < 10
    intervals, _ = compare_arms({"seed": np.zeros((2, 50))}, positive, against="seed", n_bootstrap=50, rng_seed=0)
    assert intervals["seed"].low == pytest.approx(0.2)
    assert intervals["seed"].high == pytest.approx(0.2)


def test_the_interval_covers_the_long_run_value():
    """Of 60 test sets drawn from one population, at least 85 % of the intervals hold the AUPRC of a huge one."""
    rng = np.random.default_rng(2)

    def draw(n):
        positive = np.arange(n) < n // 4
        return rng.normal(size=n) + 1.0 * positive, positive

    truth = average_precision_score(*draw(200_000)[::-1])
    covered = 0
    for _ in range(60):
        scores, positive = draw(160)
        found, _ = compare_arms({"a": scores[None]}, positive, against="a", n_bootstrap=200, rng_seed=0)
        covered += found["a"].low <= truth <= found["a"].high
    assert covered >= 51


def test_no_draws_leave_the_interval_unknown():
    found, _ = compare_arms(
        {"a": np.zeros((1, 4))}, np.array([True, False, True, False]), against="a", n_bootstrap=0, rng_seed=0
    )
    assert found["a"].value == 0.5
    assert np.isnan(found["a"].low)


def test_correlation_is_undefined_where_nothing_varies_and_has_no_interval_for_three_points():
    assert correlate([1, 1, 1, 1], [1, 2, 3, 4]).r is None
    assert correlate([1, 2], [1, 2]).r is None
    three = correlate([1, 2, 3], [1, 2, 3])
    assert (three.r, three.low) == (1.0, None)
    many = correlate([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])
    assert many.r == pytest.approx(0.8)
    assert many.low < 0.8 < many.high
