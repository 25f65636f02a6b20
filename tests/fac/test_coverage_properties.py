"""What holds of every coverage number: bounds, monotony in data and δ, partition, sampling, and honest intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from facviz import coverage

ACTS = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, 4.0])
D_SAE = 6


def sets(n_docs=5):
    return hnp.arrays(np.float64, st.tuples(st.integers(1, n_docs), st.just(D_SAE)), elements=ACTS)


def has_target(anchor, threshold):
    assume((anchor > threshold).any())


@settings(deadline=None)
@given(sets(), sets(), sets(), st.sampled_from([0.0, 0.5, 1.0]))
def test_fac_in_every_form_is_a_share_and_more_documents_never_lower_it(anchor, seed, more, threshold):
    has_target(anchor, threshold)
    larger = np.vstack([seed, more])
    for measure in (coverage.compute_fac, coverage.fac_frequency, coverage.fac_magnitude):
        before, after = (measure(anchor, s, act_threshold=threshold) for s in (seed, larger))
        assert 0 <= before <= after + 1e-12 <= 1 + 2e-12
        assert measure(anchor, np.vstack([anchor, seed]), act_threshold=threshold) == pytest.approx(1)


@settings(deadline=None)
@given(sets(), sets(), sets(), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_larger_anchor_asks_for_more_and_a_larger_seed_leaves_less(anchor, seed, more, threshold):
    missing = set(coverage.missing_features(anchor, seed, act_threshold=threshold).tolist())
    of_larger_anchor = coverage.missing_features(np.vstack([anchor, more]), seed, act_threshold=threshold)
    of_larger_seed = coverage.missing_features(anchor, np.vstack([seed, more]), act_threshold=threshold)
    assert missing <= set(of_larger_anchor.tolist())
    assert set(of_larger_seed.tolist()) <= missing


@settings(deadline=None)
@given(sets(), sets(), st.sampled_from(["relative", "absolute"]))
def test_a_stricter_threshold_never_counts_or_covers_more_features(anchor, seed, kind):
    curve = coverage.coverage_curve(anchor, seed, kind=kind, grid=[0.0, 0.4, 0.5, 0.99, 1.0, 1.5, 3.0])
    counted = [point.n_anchor for point in curve]
    covered = [point.n_anchor - point.n_missing for point in curve]
    assert counted == sorted(counted, reverse=True)
    assert covered == sorted(covered, reverse=True)


@settings(deadline=None)
@given(sets(), sets(), st.lists(st.integers(0, D_SAE - 1), min_size=1), st.sampled_from([0.0, 0.5, 1.0]))
def test_covered_and_missing_features_partition_those_of_the_anchor(anchor, seed, features, threshold):
    asked = {"features": features, "act_threshold": threshold}
    target = set(np.flatnonzero(coverage.active_features(anchor, threshold)).tolist()) & set(features)
    assume(target)
    missing = set(coverage.missing_features(anchor, seed, **asked).tolist())
    assert missing <= target
    assert coverage.compute_fac(anchor, seed, **asked) == pytest.approx(1 - len(missing) / len(target))
    if missing:
        # What fills the gap is what the anchor itself would: every missing feature is reachable.
        assert coverage.missing_coverage(missing, anchor, act_threshold=threshold) == 1
        assert coverage.missing_coverage(missing, seed, act_threshold=threshold) == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_rarefaction_equals_simulated_draws_and_grows_with_falling_gains(rng_seed):
    rng = np.random.default_rng(rng_seed)
    seed = (rng.random((40, 60)) < rng.uniform(0.01, 0.2, 60)).astype(float)
    anchor = np.ones((1, 60))
    expected = coverage.rarefaction(anchor, seed, sizes=np.arange(41))
    gains = np.diff(expected)
    assert (gains >= -1e-12).all()
    assert (np.diff(gains) <= 1e-9).all()
    drawn = [coverage.compute_fac(anchor, seed[rng.permutation(40)[:12]]) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(expected[12], abs=4 * np.std(drawn) / 20 + 1e-9)


@pytest.mark.parametrize("n_docs", [40, 150])
def test_the_bootstrap_interval_covers_the_fac_to_be_expected_of_such_a_set(n_docs):
    """Of 150 seeds drawn from one population, about 95 % of the intervals hold the FAC expected of such a seed."""
    rng = np.random.default_rng(n_docs)
    chances = rng.beta(0.5, 20, size=300)
    anchor = np.ones((1, 300))
    expected = float((1 - (1 - chances) ** n_docs).mean())
    inside = 0
    for k in range(150):
        seed = sparse.csr_array((rng.random((n_docs, 300)) < chances).astype(float))
        low, high = coverage.bootstrap_interval(anchor, seed, n_bootstrap=200, rng_seed=k)
        inside += low <= expected <= high
    assert 0.85 <= inside / 150 <= 1


def test_intervals_of_weighted_shares_hold_their_values_and_equal_the_plain_one_at_equal_weights():
    rng = np.random.default_rng(1)
    seed = coverage.index_activity((rng.random((60, 90)) < 0.03).astype(float))
    features = np.arange(90)
    n_active = seed.n_active(0.0, features)
    docs, offsets = seed.docs_of(n_active, features)
    weights = np.stack([np.ones(90), np.full(90, 3.0), rng.random(90)], axis=1)
    plain, scaled, weighed = coverage.bootstrap_shares(docs, offsets, weights, 60, n_bootstrap=200)
    assert plain == pytest.approx(scaled)
    share = weights[n_active > 0].sum(axis=0) / weights.sum(axis=0)
    assert plain[0] < share[0] < plain[1]
    assert weighed[0] < share[2] < weighed[1]
    assert coverage.bootstrap_interval(np.ones((1, 90)), _dense(seed), n_bootstrap=200) == pytest.approx(plain)


def test_defect_20_one_seed_decides_every_draw_and_stands_in_the_result():
    rng = np.random.default_rng(2)
    anchor, seed = ((rng.random((n, 60)) < 0.05).astype(float) for n in (80, 30))
    first, again, other = (coverage.measure_coverage(anchor, seed, threshold=0.5, rng_seed=k) for k in (1, 1, 2))
    assert (first.fac_low, first.fac_high) == (again.fac_low, again.fac_high) != (other.fac_low, other.fac_high)
    assert (first.rng_seed, first.n_bootstrap) == (1, 1000)
    sets = {"a": (seed, np.full(30, 5)), "b": (anchor, np.full(80, 5))}
    drawn = [coverage.equal_token_comparison(anchor, sets, rng_seed=k)["b"] for k in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def _dense(index):
    matrix = np.zeros((index.n_docs, index.d_sae))
    matrix[index.docs, np.repeat(np.arange(index.d_sae), np.diff(index.offsets))] = index.values
    return matrix
