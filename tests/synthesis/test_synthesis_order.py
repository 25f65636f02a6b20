"""Which missing feature comes next."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.config import SynthesisConfig
from facviz.synthesis.order import Acceptance, batch_sizes, expected_gain, next_feature

CONFIG = SynthesisConfig()


@pytest.fixture
def waiting(brief):
    """Three features in order of relevance, in 2, 80 and 80 anchor documents."""
    return [dataclasses.replace(brief, feature_id=f, n_anchor_docs=n) for f, n in ((1, 2), (2, 80), (3, 80))]


def test_by_relevance_the_first_waiting_one_is_next(waiting):
    assert next_feature(waiting, "relevance", Acceptance(), CONFIG) == 0


def test_by_gain_the_one_met_in_more_anchor_documents_is_next_and_relevance_decides_ties(waiting):
    assert next_feature(waiting, "gain", Acceptance(), CONFIG) == 1


def test_what_the_run_accepted_overrules_what_was_expected(waiting):
    seen = Acceptance()
    seen.add(waiting[1], 0, 5000)
    seen.add(waiting[0], 100, 200)
    assert next_feature(waiting, "gain", seen, CONFIG) == 0


def test_a_feature_beyond_the_anchor_set_comes_last_by_gain_and_counts_apart(waiting):
    weak = dataclasses.replace(waiting[1], anchor_max=waiting[1].bar)
    assert weak.is_beyond_anchor
    assert not dataclasses.replace(weak, anchor_max=1.01 * weak.bar).is_beyond_anchor
    assert not waiting[1].is_beyond_anchor  # where nobody looked
    seen = Acceptance()
    seen.add(waiting[2], 90, 100)
    assert next_feature([weak, waiting[0]], "gain", seen, CONFIG) == 1
    seen.add(waiting[0], 0, 5000)  # the other kind has brought nothing at all
    assert next_feature([weak, waiting[0]], "gain", seen, CONFIG) == 1
    seen.add(weak, 0, 5000)
    assert seen.rate(waiting[1]) > 0.5 > seen.rate(weak)
    assert next_feature([weak, waiting[0]], "relevance", seen, CONFIG) == 0


@given(st.floats(0.001, 0.99), st.floats(0.001, 0.99), st.integers(2, 32), st.integers(1, 96))
def test_a_likelier_feature_never_promises_less(one, other, n_first, n_most):
    low, high = sorted((one, other))
    assert expected_gain(low, n_first, n_most, 1) <= expected_gain(high, n_first, n_most, 1) + 1e-12


def test_the_gain_of_a_sure_feature_is_one_over_its_candidates():
    assert expected_gain(1.0, 16, 96, 1) == pytest.approx(1 / 17)


def test_batches_hold_all_candidates():
    assert list(batch_sizes(10, 4)) == [4, 4, 2]
    assert list(batch_sizes(0, 4)) == []


def test_the_engine_starts_features_by_gain(brief, synthesis):
    far = [dataclasses.replace(brief, feature_id=f, n_anchor_docs=n, spans=()) for f, n in ((12, 1), (13, 9), (14, 50))]
    ended = []
    engine = synthesis(["apple bread cloud drum"], order="gain", features_at_once=1, max_candidates=4)
    results = engine.fill_all(far, lambda result: ended.append(result.brief.feature_id))
    assert ended == [14, 13, 12]
    assert [r.brief.feature_id for r in results] == [12, 13, 14]
