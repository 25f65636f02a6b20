"""What a data set gains and loses: by hand, and against what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from facviz.coverage import CHANGES, dataset_difference, index_activity, missing_features
from facviz.errors import InputError


def difference(before, after, tokens=(None, None), threshold=0.0):
    features = np.arange(before.shape[1])
    indices = [index_activity(matrix, count) for matrix, count in zip((before, after), tokens)]
    return dataset_difference(*indices, features, np.full(len(features), threshold))


def columns(*counts, n=40):
    """A matrix with feature i firing in the first `counts[i]` of n documents."""
    return (np.arange(n)[:, None] < np.array(counts)).astype(float)


def test_each_change_by_hand():
    found = difference(columns(0, 12, 30, 5, 20, 0), columns(9, 0, 5, 30, 18, 0))
    assert [CHANGES[i] for i in found.change] == ["gained", "lost", "weakened", "strengthened", "kept", "absent"]
    assert found.ratio[2] == pytest.approx(5 / 30)
    assert found.ratio[0] == np.inf
    assert np.isnan(found.ratio[5])
    # 5 of 35 documents in a set of equal size: 2 × P(X ≤ 5), X ~ B(35, ½), over five tested features.
    assert found.q[2] < 0.001
    assert found.count("gained") == 1


def test_a_fall_that_chance_explains_is_no_weakening():
    found = difference(columns(3), columns(1))
    assert CHANGES[found.change[0]] == "kept"
    assert found.q[0] > 0.5


def test_sets_of_unequal_length_are_compared_per_token():
    before, after = columns(20, 20), columns(20, 20)
    same = difference(before, after, (np.full(40, 10), np.full(40, 10)))
    assert [CHANGES[i] for i in same.change] == ["kept", "kept"]
    longer = difference(before, after, (np.full(40, 10), np.full(40, 100)))
    assert [CHANGES[i] for i in longer.change] == ["weakened", "weakened"]
    assert longer.ratio.tolist() == pytest.approx([0.1, 0.1])


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, (7, 5), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])),
    hnp.arrays(np.float32, (4, 5), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_changes_partition_the_features_and_lost_ones_are_the_missing_ones(before, after, threshold):
    found = difference(before, after, threshold=threshold)
    assert sum(found.count(change) for change in CHANGES) == 5
    assert sorted(f for change in CHANGES for f in found.of(change).tolist()) == list(range(5))
    assert sorted(found.of("lost").tolist()) == missing_features(before, after, act_threshold=threshold).tolist()
    assert sorted(found.of("gained").tolist()) == missing_features(after, before, act_threshold=threshold).tolist()
    mirrored = difference(after, before, threshold=threshold)
    assert mirrored.count("weakened") == found.count("strengthened")
    np.testing.assert_allclose(mirrored.q, found.q)


def test_of_two_samples_of_one_population_few_features_seem_changed_and_planted_changes_are_found():
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.05, 0.4, 500)
    before, after = (rng.random((300, 500)) < chances for _ in range(2))
    still = difference(before.astype(float), after.astype(float))
    assert still.count("weakened") + still.count("strengthened") <= 2
    after[:, :50] &= rng.random((300, 50)) < 0.2
    found = difference(before.astype(float), after.astype(float))
    assert len(set(found.of("weakened").tolist()) & set(range(50))) + found.count("lost") >= 40
    assert set(found.of("weakened").tolist()) <= set(range(50))


def test_sets_of_two_saes_or_without_tokens_are_refused():
    with pytest.raises(InputError, match="one SAE"):
        dataset_difference(index_activity(np.ones((1, 2))), index_activity(np.ones((1, 3))), np.arange(2), np.ones(2))
    with pytest.raises(InputError, match="without content tokens"):
        difference(np.ones((1, 2)), np.ones((0, 2)))
