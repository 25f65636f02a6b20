"""The wall between explaining and scoring, and how spans are drawn on each side of it."""

import numpy as np
import pytest
from planted_spans import make_span, make_world

from facviz.errors import InputError
from facviz.explain.sampling import (
    N_INTERVALS,
    ExplainSpans,
    HeldOutSpans,
    interval_of,
    nearest_negatives,
    random_negatives,
    sample_intervals,
    split_spans,
)
from facviz.records import Split


@pytest.mark.parametrize(("kind", "wrong"), [(ExplainSpans, Split.SCORE), (HeldOutSpans, Split.EXPLAIN)])
def test_neither_half_can_hold_a_span_of_the_other(kind, wrong):
    with pytest.raises(InputError, match="pass only spans of the"):
        kind((make_span(3, 1, split=wrong),))


def test_a_document_on_both_sides_is_refused():
    spans = [make_span(3, 7, split=Split.EXPLAIN), make_span(3, 7, split=Split.SCORE)]
    with pytest.raises(InputError, match="Document 7 serves both"):
        split_spans(spans)


def test_both_halves_keep_every_span():
    spans = [make_span(3, n, split=Split.EXPLAIN if n % 2 else Split.SCORE) for n in range(9)]
    explain, held_out = split_spans(spans)
    assert [s.doc_no for s in explain.spans] == [1, 3, 5, 7]
    assert [s.doc_no for s in held_out.spans] == [0, 2, 4, 6, 8]


def test_intervals_have_equal_width_and_the_maximum_belongs_to_the_last():
    assert [interval_of(act, 8.0) for act in (0.1, 1.99, 2.0, 5.9, 6.0, 8.0)] == [0, 0, 1, 2, 3, 3]
    assert interval_of(0.0, 0.0) == 0


def test_a_sample_covers_every_interval_and_keeps_the_strongest():
    # Twenty spans near the top and one in each weaker interval: taking the top alone would never show those.
    acts = [*np.linspace(9, 10, 20), 6.0, 3.5, 1.0]
    half = HeldOutSpans(tuple(make_span(0, n, act=float(act)) for n, act in enumerate(acts)))
    for rng_seed in range(10):
        sample = sample_intervals(half, 6, rng_seed=rng_seed)
        assert [s.act for s in sample] == sorted((s.act for s in sample), reverse=True)
        assert len(sample) == 6
        assert sample[0].act == 10.0
        assert {interval_of(s.act, 10.0) for s in sample} == set(range(N_INTERVALS))


def test_a_sample_never_shows_a_text_twice_and_follows_its_seed():
    same = tuple(" same" if i != 4 else " theme0" for i in range(7))
    half = HeldOutSpans(
        (*(make_span(0, n, tokens=same) for n in range(5)), *(make_span(0, n, act=0.9) for n in range(10, 30)))
    )
    texts = [s.text for s in sample_intervals(half, 10, rng_seed=0)]
    assert len(set(texts)) == len(texts) == 10
    assert texts == [s.text for s in sample_intervals(half, 10, rng_seed=0)]
    assert texts != [s.text for s in sample_intervals(half, 10, rng_seed=1)]
    assert sample_intervals(HeldOutSpans(), 10, rng_seed=0) == []


def test_hard_negatives_take_turns_between_the_nearest_features_and_avoid_where_the_feature_fires():
    _, held_out, fires_in = make_world(4)
    blocked = held_out[1].spans[0].doc_no
    fires = fires_in | {0: fires_in[0] | {blocked}}
    found = nearest_negatives(held_out, {0: [2, 1, 0, 99]}, fires, n=6)
    assert isinstance(found[0], HeldOutSpans)
    assert [s.feature_id for s in found[0].spans] == [2, 2, 1, 2, 1, 2]
    assert blocked not in {s.doc_no for s in found[0].spans}


def test_a_text_the_feature_fires_on_is_no_negative_wherever_else_it_stands():
    tokens = (" kill", " the", " theme0", " theme1")
    half = {
        0: HeldOutSpans((make_span(0, 1, tokens=tokens),)),
        1: HeldOutSpans((make_span(1, 2, tokens=tokens), make_span(1, 3))),
    }
    found = nearest_negatives(half, {0: [1]}, {0: set()}, n=5)
    assert [s.doc_no for s in found[0].spans] == [3]


def test_random_negatives_are_other_features_spans_of_distinct_documents():
    explain, _, fires_in = make_world(20)
    found = random_negatives(explain, range(20), fires_in, n=15, rng_seed=3)
    for feature_id, half in found.items():
        assert isinstance(half, ExplainSpans)
        assert len({s.doc_no for s in half.spans}) == len(half.spans) == 15
        assert feature_id not in {s.feature_id for s in half.spans}
        assert not {s.doc_no for s in half.spans} & fires_in[feature_id]
    alone = random_negatives(explain, [7], fires_in, n=15, rng_seed=3)
    assert alone[7] == found[7]
    assert random_negatives(explain, [7], fires_in, n=15, rng_seed=4) != alone
    assert len({s.feature_id for s in found[7].spans}) > 5


def test_negatives_need_to_know_where_a_feature_fires():
    _, held_out, _ = make_world(2)
    with pytest.raises(InputError, match="not known where feature 1 fires"):
        random_negatives(held_out, [1], {0: set()}, n=3, rng_seed=0)
    with pytest.raises(InputError, match="not known where feature 0 fires"):
        nearest_negatives(held_out, {0: [1]}, {}, n=3)
    assert random_negatives({}, [1], {1: set()}, n=3, rng_seed=0) == {}


def test_the_strongest_span_stays_when_its_text_recurs():
    same = (" same", " theme0")
    half = HeldOutSpans(
        (make_span(0, 1, act=9.0, tokens=same), make_span(0, 2, act=5.0), make_span(0, 3, act=1.0, tokens=same))
    )
    assert [s.doc_no for s in sample_intervals(half, 5, rng_seed=0)] == [1, 2]
