"""The Chao2 estimate by hand and against populations whose unseen features are known."""

from __future__ import annotations

import numpy as np
import pytest

from facviz.coverage import rarefaction, unseen_features


def draw(rng, chances, n_docs):
    """How many of `n_docs` documents show each feature, feature i in a document with probability `chances[i]`."""
    return rng.binomial(n_docs, chances)


def test_the_estimate_by_hand():
    # Four features once, one twice, ten documents: 9/10 × 4·3 / (2·(1 + 1)) = 2.7 of the four that are left.
    found = unseen_features(np.array([1, 1, 1, 1, 2, 9, 0, 0, 0, 0]), 10)
    assert (found.n_shown, found.n_once, found.n_twice) == (6, 4, 1)
    assert found.estimate == pytest.approx(2.7)
    # Variance: .9·3 + .81·4·49/16 + .81·16·1·9/64 = 2.7 + 9.9225 + 1.8225 = 14.445; log-normal about 2.7.
    spread = np.exp(1.96 * np.sqrt(np.log1p(14.445 / 2.7**2)))
    assert found.low == pytest.approx(2.7 / spread)
    assert found.high == 4  # 2.7 × spread is more than are left
    # One more document: 4 / (10·2.7 + 4) of the 2.7.
    assert found.shown_by([0, 1]) == pytest.approx([6.0, 6 + 2.7 * 4 / 31])


@pytest.mark.parametrize(
    ("frequency", "n_docs"),
    [([], 5), ([0, 0], 5), ([3, 3, 0], 5), ([1, 0], 5), ([1, 1, 1], 5), ([0, 0], 0), ([1, 1, 0], 1)],
)
def test_without_rare_features_or_anything_left_nothing_more_is_expected(frequency, n_docs):
    found = unseen_features(np.array(frequency, np.int64), n_docs)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)
    assert found.shown_by([0, 100]).tolist() == [found.n_shown] * 2


def test_more_is_never_expected_than_is_left_and_growth_is_monotone():
    found = unseen_features(np.array([*[1] * 30, 0, 0]), 40)
    assert found.estimate == found.high == 2
    grown = found.shown_by(np.arange(0, 2000, 50))
    assert (np.diff(grown) >= 0).all()
    assert grown[0] == 30
    assert 31.9 < grown[-1] <= 32


def test_the_estimate_hits_the_truth_where_all_features_are_equally_rare():
    """300 reachable features and 100 that never fire; those not seen by 60 documents are known in every draw."""
    rng = np.random.default_rng(0)
    chances = np.r_[np.full(300, 0.02), np.zeros(100)]
    errors, inside = [], 0
    for _ in range(300):
        frequency = draw(rng, chances, 60)
        found = unseen_features(frequency, 60)
        truth = int((frequency[:300] == 0).sum())
        errors.append(found.estimate - truth)
        inside += found.low <= truth <= found.high
    assert abs(np.mean(errors)) < 4  # of about 89
    assert inside / 300 > 0.88


def test_the_estimate_is_a_lower_bound_where_features_differ():
    rng = np.random.default_rng(1)
    chances = rng.beta(0.4, 12, size=400)
    errors = []
    for _ in range(200):
        frequency = draw(rng, chances, 80)
        truth = int((frequency == 0).sum())
        errors.append(unseen_features(frequency, 80).estimate - truth)
    assert np.mean(errors) < 0
    assert np.mean(errors) > -300


def test_growth_beyond_the_set_matches_drawing_more_documents():
    rng = np.random.default_rng(2)
    chances = np.full(200, 0.015)
    predicted, drawn = [], []
    for _ in range(200):
        shows = rng.random((120, 200)) < chances
        found = unseen_features(shows[:60].sum(axis=0), 60)
        predicted.append(found.shown_by([60])[0])
        drawn.append(int(shows.any(axis=0).sum()))
    assert np.mean(predicted) == pytest.approx(np.mean(drawn), rel=0.02)


def test_growth_begins_where_rarefaction_ends():
    rng = np.random.default_rng(4)
    seed = (rng.random((30, 50)) < 0.03).astype(float)
    anchor = np.ones((1, 50))
    found = unseen_features((seed > 0).sum(axis=0), 30)
    assert found.shown_by([0])[0] / 50 == pytest.approx(rarefaction(anchor, seed, sizes=[30])[0])
    # The last document of the set and the first beyond it add about as much.
    before = 50 * np.diff(rarefaction(anchor, seed, sizes=[29, 30]))[0]
    after = np.diff(found.shown_by([0, 1]))[0]
    assert after == pytest.approx(before, rel=0.25)
