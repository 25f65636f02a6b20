"""Coverage against brute-force twins on sets and loops, dense and sparse."""

import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from facviz import coverage
from facviz.coverage import activity, index, measures, sampling, unseen
from facviz.errors import CoverageError, InputError

LEVELS = [0.0, 0.1, 0.5, 1.0, 2.0, -1.0]
FORMS = [np.asarray, sparse.csr_array, sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix]


@st.composite
def cases(draw, max_docs=6):
    """Anchor, data set, threshold and features of one small SAE; values collide with thresholds on purpose."""
    d_sae = draw(st.integers(1, 7))
    value = st.sampled_from(LEVELS)

    def matrix():
        return draw(hnp.arrays(np.float32, (draw(st.integers(0, max_docs)), d_sae), elements=value))

    one = st.sampled_from([0.0, 0.1, 0.5, 1.0])
    threshold = draw(st.one_of(one, hnp.arrays(np.float64, d_sae, elements=one)))
    features = draw(st.one_of(st.none(), st.lists(st.integers(0, d_sae - 1))))
    return matrix(), matrix(), threshold, features


def threshold_of(threshold, i):
    return float(np.broadcast_to(threshold, (i + 1,))[i]) if np.ndim(threshold) == 0 else float(threshold[i])


def active_set(matrix, threshold):
    return {i for row in matrix for i, v in enumerate(row) if float(v) > threshold_of(threshold, i)}


def target_set(anchor, threshold, features):
    wanted = set(range(anchor.shape[1])) if features is None else set(features)
    return wanted & active_set(anchor, threshold)


def needs_target(anchor, threshold, features):
    target = target_set(anchor, threshold, features)
    if not target:
        with pytest.raises(CoverageError):
            coverage.compute_fac(anchor, anchor, features=features, act_threshold=threshold)
    return target


@settings(deadline=None)
@given(cases(), st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_fac_and_missing_features_equal_set_arithmetic(case, form_a, form_s):
    anchor, seed, threshold, features = case
    given_ = {"features": features, "act_threshold": threshold}
    missing = coverage.missing_features(form_a(anchor), form_s(seed), **given_)
    target = needs_target(anchor, threshold, features)
    assert missing.tolist() == sorted(target - active_set(seed, threshold))
    if target:
        fac = coverage.compute_fac(form_a(anchor), form_s(seed), **given_)
        assert fac == pytest.approx(len(target & active_set(seed, threshold)) / len(target))


@settings(deadline=None)
@given(cases(), st.sampled_from(FORMS))
def test_missing_coverage_equals_set_arithmetic(case, form):
    _, generated, threshold, features = case
    missing = features or []
    if not missing:
        with pytest.raises(CoverageError, match="nothing to cover"):
            coverage.missing_coverage(missing, form(generated), act_threshold=threshold)
        return
    share = coverage.missing_coverage(missing, form(generated), act_threshold=threshold)
    assert share == pytest.approx(len(set(missing) & active_set(generated, threshold)) / len(set(missing)))


@settings(deadline=None)
@given(cases(), st.sampled_from(FORMS))
def test_document_frequency_counts_documents_strictly_above_the_threshold(case, form):
    matrix, _, threshold, _ = case
    counted = [sum(float(row[i]) > threshold_of(threshold, i) for row in matrix) for i in range(matrix.shape[1])]
    assert coverage.doc_frequency(form(matrix), threshold).tolist() == counted
    assert coverage.active_features(form(matrix), threshold).tolist() == [n > 0 for n in counted]


@settings(deadline=None)
@given(cases())
def test_rarefaction_is_the_mean_fac_over_all_subsets(case):
    anchor, seed, threshold, features = case
    if not needs_target(anchor, threshold, features):
        return
    given_ = {"features": features, "act_threshold": threshold}
    sizes = list(range(len(seed) + 1))
    expected = []
    for n in sizes:
        subsets = [seed[list(rows)] for rows in itertools.combinations(range(len(seed)), n)]
        expected.append(np.mean([coverage.compute_fac(anchor, s, **given_) for s in subsets]))
    found = coverage.rarefaction(anchor, sparse.csr_array(seed), sizes=sizes, **given_)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_rarefaction_stays_exact_for_a_million_documents():
    seed = sparse.csr_array((np.ones(3), ([0, 1, 2], [0, 0, 1])), shape=(10**6, 2))
    found = coverage.rarefaction(np.ones((1, 2)), seed, sizes=[0, 500_000, 10**6])
    half = (1 - 0.5 * 499_999 / 999_999 + 0.5) / 2
    np.testing.assert_allclose(found, [0.0, half, 1.0], rtol=1e-7)


@settings(deadline=None)
@given(cases())
def test_weighted_variants_weight_features_by_the_anchor(case):
    anchor, seed, threshold, features = case
    target = needs_target(anchor, threshold, features)
    if not target:
        return
    fired = {i: [float(r[i]) for r in anchor if float(r[i]) > threshold_of(threshold, i)] for i in target}
    covered = target & active_set(seed, threshold)
    given_ = {"features": features, "act_threshold": threshold}
    by_count = sum(len(fired[i]) for i in covered) / sum(len(fired[i]) for i in target)
    by_strength = sum(np.mean(fired[i]) for i in covered) / sum(np.mean(fired[i]) for i in target)
    assert coverage.fac_frequency(sparse.csr_array(anchor), seed, **given_) == pytest.approx(by_count)
    assert coverage.fac_magnitude(sparse.csr_array(anchor), seed, **given_) == pytest.approx(by_strength)


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 45), st.integers(1, 3)), elements=st.floats(0, 9, width=32)),
    st.sampled_from(FORMS),
)
def test_positive_p95_equals_numpys_percentile_to_the_last_bit(anchor, form):
    found = coverage.positive_p95(form(anchor))
    for i, column in enumerate(anchor.T):
        positive = column[column > 0].astype(np.float64)
        if positive.size:
            assert found[i] == np.percentile(positive, 95)
        else:
            assert math.isnan(found[i])


def test_relative_thresholds_scale_with_the_feature_and_never_fire_where_the_anchor_is_silent():
    rows = coverage.relative_thresholds(np.array([2.0, np.nan, 0.0, np.inf]), 0.5)
    assert rows.tolist() == [1.0, np.inf, np.inf, np.inf]
    assert coverage.relative_thresholds(np.array([np.nan]), 0.0).tolist() == [np.inf]
    assert coverage.thresholds("absolute", 1.5, np.array([2.0, np.nan])).tolist() == [1.5, 1.5]
    with pytest.raises(InputError, match="relative or absolute"):
        coverage.thresholds("quantile", 1.0, np.ones(2))


def test_a_value_equal_to_the_threshold_is_not_active_in_any_precision():
    matrix = np.array([[0.1]], dtype=np.float32)
    assert not coverage.active_features(matrix, float(matrix[0, 0]))[0]
    assert coverage.active_features(matrix, 0.1)[0]  # float32 0.1 lies just above the double 0.1


def test_duplicate_entries_of_a_sparse_matrix_are_summed_without_touching_it():
    raw = sparse.csr_array((np.array([0.6, 0.6]), np.array([0, 0]), np.array([0, 2])), shape=(1, 1))
    assert coverage.doc_frequency(raw, 1.0).tolist() == [1]
    assert raw.nnz == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: coverage.compute_fac(a, a, act_threshold=-0.1), "negative"),
        (lambda a: coverage.compute_fac(a, a, act_threshold=float("nan")), "NaN"),
        (lambda a: coverage.compute_fac(a, a, act_threshold=np.ones(5)), "one for each of 2 features"),
        (lambda a: coverage.compute_fac(a, a, features=[2]), "Feature id 2"),
        (lambda a: coverage.compute_fac(a, a, features=[-1]), "Feature id -1"),
        (lambda a: coverage.compute_fac(a, a, features=np.array([True, False])), "mask"),
        (lambda a: coverage.compute_fac(a, np.ones((1, 3))), "one SAE"),
        (lambda a: coverage.compute_fac(a, a * np.nan), "NaN"),
        (lambda a: coverage.compute_fac(a, sparse.csr_array(a * np.nan)), "NaN"),
        (lambda a: coverage.compute_fac(a[0], a), "one row"),
        (lambda a: coverage.rarefaction(a, a, sizes=[2]), "sizes"),
        (lambda a: coverage.bootstrap_interval(a, a, n_bootstrap=0), "n_bootstrap"),
        (lambda a: coverage.relative_thresholds(np.ones(2), -1.0), "δ"),
        (lambda a: coverage.equal_token_comparison(a, {"a": (a, [5, 5])}), "token counts"),
        (lambda a: coverage.equal_token_comparison(a, {"a": (a, [5])}, n_draws=3), "at least 20"),
        (lambda a: coverage.equal_token_comparison(a, {"a": (a, [5])}, budget=6), "budget of 6"),
        (lambda a: coverage.equal_token_comparison(a, {}), "no data sets"),
    ],
)
def test_unusable_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(np.ones((1, 2)))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_an_empty_denominator_says_which_set_is_empty():
    anchor = np.array([[1.0, 0.0]])
    with pytest.raises(CoverageError, match="No features are selected"):
        coverage.compute_fac(anchor, anchor, features=[])
    with pytest.raises(CoverageError, match="None of the 1 selected features is active"):
        coverage.compute_fac(anchor, anchor, features=[1])
    with pytest.raises(CoverageError):
        coverage.measure_coverage(anchor, anchor, features=[1], kind="absolute", threshold=0.0)


def random_sets(rng_seed, n_anchor=60, n_seed=25, d_sae=80, density=0.05):
    def one(n, k):
        return sparse.random(n, d_sae, density=density, format="csr", dtype=np.float32, random_state=rng_seed + k)

    return one(n_anchor, 0), one(n_seed, 1)


def looped_interval(anchor, seed, n_bootstrap, rng_seed):
    """Resample by resample, document by document."""
    n = seed.shape[0]
    rng = np.random.default_rng(rng_seed)
    facs = [coverage.compute_fac(anchor, seed[rng.integers(0, n, size=n)]) for _ in range(n_bootstrap)]
    fac = coverage.compute_fac(anchor, seed)
    low, high = np.percentile(facs, [2.5, 97.5]) + fac - np.mean(facs)
    return max(0.0, min(low, fac)), min(1.0, max(high, fac))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_bootstrap_equals_a_loop_over_resampled_documents(rng_seed):
    anchor, seed = random_sets(rng_seed)
    found = coverage.bootstrap_interval(anchor, seed, n_bootstrap=30, rng_seed=rng_seed)
    assert found == pytest.approx(looped_interval(anchor, seed.toarray(), 30, rng_seed))


def test_features_too_frequent_to_be_missed_need_not_be_drawn():
    seed = np.hstack([np.ones((200, 3)), np.eye(200, 12), np.zeros((200, 5))])
    anchor = np.ones((1, 20))
    low, high = coverage.bootstrap_interval(anchor, seed, n_bootstrap=90, rng_seed=1)
    assert (low, high) == pytest.approx(looped_interval(anchor, seed, 90, 1))
    assert 3 / 20 < low < coverage.compute_fac(anchor, seed) < high < 1


def test_the_bootstrap_interval_holds_the_measured_value_and_an_empty_set_has_no_width():
    anchor, seed = random_sets(3)
    low, high = coverage.bootstrap_interval(anchor, seed)
    assert low <= coverage.compute_fac(anchor, seed) <= high
    assert coverage.bootstrap_interval(anchor, seed[:0]) == (0.0, 0.0)


def test_sets_are_compared_at_equal_tokens_whatever_the_order_of_the_mapping():
    anchor, seed = random_sets(5)
    long_docs = sparse.vstack([seed] * 4).tocsr()
    sets = {"small": (seed, np.full(25, 10)), "large": (long_docs, np.full(100, 40))}
    found = coverage.equal_token_comparison(anchor, sets, rng_seed=2)
    assert found["small"].n_docs == 25
    assert found["small"].fac == found["small"].low == pytest.approx(coverage.compute_fac(anchor, seed))
    assert found["large"].n_docs == 6  # 250 tokens hold six documents of 40
    assert found["large"].n_tokens == 240
    assert found["large"].fac < found["small"].fac
    again = coverage.equal_token_comparison(anchor, dict(reversed(sets.items())), rng_seed=2)
    assert again == found


def test_the_mean_over_equal_token_draws_approaches_rarefaction():
    anchor, seed = random_sets(8)
    sets = {"a": (seed, np.ones(25, dtype=int))}
    found = coverage.equal_token_comparison(anchor, sets, budget=10, n_draws=600)["a"]
    assert found.fac == pytest.approx(coverage.rarefaction(anchor, seed, sizes=[10])[0], abs=0.01)
    assert found.low < found.fac < found.high


def test_the_curve_recomputes_the_denominator_and_says_unknown_where_there_is_none():
    anchor = np.array([[1.0, 3.0, 5.0]])
    seed = np.array([[0.0, 4.0, 2.0]])
    curve = coverage.coverage_curve(anchor, seed, kind="absolute", grid=[6.0, 0.0, 2.0])
    assert curve == [(0.0, 2 / 3, 3, 1), (2.0, 1 / 2, 2, 1), (6.0, None, 0, 0)]


@pytest.mark.parametrize(
    ("n_missing", "n_anchor", "saturated"),
    [(4, 10, True), (5, 10, False), (5, 500, False), (5, 501, True), (9, 1000, True), (10, 1000, False)],
)
def test_saturation_is_fewer_than_five_or_one_percent_missing(n_missing, n_anchor, saturated):
    assert coverage.is_saturated(n_missing, n_anchor) is saturated


def stepped_sets():
    """20 features; the anchor's p95 is 10; the seed set reaches 10.5 on all but 2 features and 13 on 8."""
    anchor = np.vstack([np.full((98, 20), 10.0), np.full((2, 20), 40.0)])
    seed = np.full((1, 20), 10.5)
    seed[0, :2] = 0.0
    seed[0, 12:] = 13.0
    return anchor, seed


def test_a_measurement_names_the_smallest_threshold_that_is_not_saturated():
    anchor, seed = stepped_sets()
    result = coverage.measure_coverage(anchor, seed, threshold=1.0, n_bootstrap=20)
    assert (result.n_relevant, result.n_anchor, result.n_covered, result.n_missing) == (20, 20, 18, 2)
    assert result.fac == 0.9
    assert result.missing.tolist() == [0, 1]
    assert result.saturated
    assert result.unsaturated_threshold == 1.25
    assert [point.n_missing for point in result.curve] == [2, 2, 2, 12, 20]
    assert result.fac_low == result.fac_high == 0.9  # one document: every resample is the set itself
    assert (result.n_anchor_docs, result.n_seed_docs) == (100, 1)


def test_no_threshold_is_named_when_every_one_is_saturated():
    anchor, _ = stepped_sets()
    result = coverage.measure_coverage(anchor, anchor, n_bootstrap=0)
    assert result.saturated
    assert result.unsaturated_threshold is None
    assert result.fac_low is result.fac_high is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([("relative", 0.5), ("relative", 1.0), ("absolute", 0.5)]))
def test_a_measurement_agrees_with_its_parts(rng_seed, setting):
    kind, threshold = setting
    anchor, seed = random_sets(rng_seed)
    features = list(range(0, 80, 2))
    result = coverage.measure_coverage(
        anchor, seed, kind=kind, threshold=threshold, features=features, n_bootstrap=10, rng_seed=rng_seed
    )
    row = coverage.thresholds(kind, threshold, coverage.positive_p95(anchor))
    given_ = {"features": features, "act_threshold": row}
    assert result.fac == pytest.approx(coverage.compute_fac(anchor, seed, **given_))
    assert result.missing.tolist() == coverage.missing_features(anchor, seed, **given_).tolist()
    interval = coverage.bootstrap_interval(anchor, seed, n_bootstrap=10, rng_seed=rng_seed, **given_)
    assert (result.fac_low, result.fac_high) == interval
    at_threshold = [point for point in result.curve if point.threshold == threshold]
    assert at_threshold == [(threshold, pytest.approx(result.fac), result.n_anchor, result.n_missing)]


def test_defect_1_missing_is_a_set_difference_on_activations_not_a_second_verdict():
    anchor = sparse.csr_array(np.array([[3.0, 3.0, 3.0, 0.0]]))
    seed = sparse.csr_array(np.array([[2.0, 0.0, 0.0, 9.0]]))
    # Feature 1 is absent from the seed side altogether, where an inner join would lose it; 3 is no anchor feature.
    assert coverage.missing_features(anchor, seed, features=[0, 1, 3]).tolist() == [1]
    assert coverage.compute_fac(anchor, seed, features=[0, 1, 3]) == 0.5


def test_defect_2_saturation_at_absolute_zero_is_detected_and_relative_thresholds_open_a_gap():
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 50.0, size=60)  # every feature has its own unit
    anchor = rng.exponential(size=(300, 60)) * scale
    seed = rng.exponential(size=(10, 60)) * scale
    at_zero = coverage.measure_coverage(anchor, seed, kind="absolute", threshold=0.0, n_bootstrap=0)
    assert at_zero.fac == 1.0
    assert at_zero.saturated
    relative = coverage.measure_coverage(anchor, seed, kind="relative", threshold=1.0, n_bootstrap=0)
    assert not relative.saturated
    rescaled = coverage.measure_coverage(anchor / scale, seed / scale, n_bootstrap=0)
    assert rescaled.missing.tolist() == relative.missing.tolist()


def test_defect_35_always_on_features_are_left_out_of_fac_unless_asked_for():
    anchor, seed = np.array([[9.0, 1.0, 1.0]]), np.array([[9.0, 1.0, 0.0]])
    is_always_on = np.array([True, False, False])
    kept = coverage.without_always_on(None, is_always_on)
    assert kept.tolist() == [1, 2]
    assert coverage.without_always_on([2, 0], is_always_on).tolist() == [2]
    assert coverage.compute_fac(anchor, seed, features=kept) == 0.5
    assert coverage.compute_fac(anchor, seed) == pytest.approx(2 / 3)


@pytest.mark.parametrize("module", [activity, index, measures, sampling, unseen])
def test_the_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


def test_every_public_function_of_the_front_door_carries_an_example():
    finder = doctest.DocTestFinder()
    for name in ("compute_fac", "missing_features", "missing_coverage", "rarefaction"):
        assert finder.find(getattr(coverage, name))[0].examples, name
