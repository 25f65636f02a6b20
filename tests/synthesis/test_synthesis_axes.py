"""Prompt axes: what is drawn, what it learns from, and what a request and a candidate say of it."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from facviz.prompts import render
from facviz.records import Message
from facviz.synthesis.axes import AXES, AXES_TEMPLATE, UNSAID, AxisCounts, draw_axes, with_axes
from facviz.synthesis.pairs import request_text
from facviz.synthesis.plan import BatchPlace

QUESTION = {"format": "as a question"}


@pytest.fixture
def tried(brief, synthesis):
    """A candidate that drew these axes, accepted or not."""
    [candidate] = [c for c in synthesis(["apple bread mirror drum"]).fill(brief).candidates if c.slot == 0][:1]

    def make(axes, accepted, reason="target does not fire"):
        return dataclasses.replace(
            candidate, gates={"axes": axes}, accepted=accepted, reject_reason=None if accepted else reason
        )

    return make


def drawn_values(axis, feature, run, n=300):
    draws = [draw_axes(feature, run, n_axes=len(AXES), rng_seed=seed) for seed in range(n)]
    return Counter(drawn[axis] for drawn in draws)


def test_every_axis_may_stay_unsaid_and_every_value_is_a_short_phrase():
    assert list(AXES) == ["persona", "register", "length", "format", "topic"]
    for values in AXES.values():
        assert values[0] == UNSAID
        assert 4 <= len(set(values)) == len(values) <= 8
        assert all(len(value.split()) <= 4 for value in values)


def test_without_any_experience_every_value_is_drawn_about_as_often():
    for axis, values in AXES.items():
        drawn = drawn_values(axis, AxisCounts(), AxisCounts())
        assert set(drawn) == set(values)
        assert max(drawn.values()) < 3 * min(drawn.values())


def test_so_many_axes_are_drawn_as_asked_for_and_all_of_them_in_turn():
    seen = Counter()
    for seed in range(200):
        drawn = draw_axes(AxisCounts(), AxisCounts(), n_axes=2, rng_seed=seed)
        assert len(drawn) == 2
        assert [axis for axis in AXES if axis in drawn] == list(drawn)
        seen.update(drawn.keys())
    assert set(seen) == set(AXES)


def test_what_was_accepted_is_drawn_more_often(tried):
    counts = AxisCounts()
    counts.add([tried(QUESTION, True)] * 12 + [tried({"format": v}, False) for v in AXES["format"][2:]] * 12)
    drawn = drawn_values("format", counts, AxisCounts())
    assert drawn["as a question"] > 0.8 * sum(drawn.values())


def test_the_run_so_far_counts_for_a_few_candidates_however_long_it_is(tried):
    short, long = AxisCounts(), AxisCounts()
    short.add([tried(QUESTION, True)] * 8)
    long.add([tried(QUESTION, True)] * 8000)
    assert drawn_values("format", AxisCounts(), short) == drawn_values("format", AxisCounts(), long)
    own = AxisCounts()
    own.add([tried(QUESTION, False)] * 40)
    assert drawn_values("format", own, long)["as a question"] < 30


def test_a_candidate_nobody_verified_says_nothing_about_its_axes(tried):
    counts = AxisCounts()
    counts.add([tried(QUESTION, False, "not needed"), dataclasses.replace(tried(QUESTION, False), gates={})])
    assert counts.of("format", "as a question") == (0, 0)
    counts.add([tried(QUESTION, True), tried(QUESTION, False)])
    assert counts.of("format", "as a question") == (1, 1)


def test_axes_are_a_short_clause_at_the_end_of_the_last_turn():
    messages = (Message("system", "s"), Message("user", "Write one."))
    drawn = {"persona": UNSAID, "length": "in a few words", "format": "as a question"}
    told = with_axes(messages, drawn)
    clause = "in a few words, as a question"
    assert told == (messages[0], Message("user", render(AXES_TEMPLATE, request="Write one.", clause=clause)))
    assert told[-1].content.startswith("Write one. ")
    assert with_axes(messages, {"persona": UNSAID}) == messages


def test_from_the_second_accepting_batch_on_each_part_draws_its_own_axes(brief, synthesis, numbered):
    engine = synthesis(
        numbered(lambda step, slot: step == "pairs" and slot == 0), axes=True, batch=8, max_candidates=24
    )
    result = engine.fill(brief)
    assert [r.n for r in engine.client.requests] == [2, 8, 4, 4, 4, 4]
    guided = [c for c in result.candidates if c.step == "guided"]
    assert not any("axes" in c.gates for c in result.candidates if c.step == "pairs" or c.round == 0)
    for request, group in zip(engine.client.requests[2:], (guided[i : i + 4] for i in range(8, 24, 4)), strict=True):
        axes = {tuple(c.gates["axes"].items()) for c in group}
        assert len(axes) == 1
        assert len(dict(*axes)) == 2
        said = [value for _, value in next(iter(axes)) if value]
        assert all(value in request.messages[-1].content for value in said)
        assert request_text(brief) in request.messages[-1].content
        assert {c.gates["axes_prompt"] for c in group} == {AXES_TEMPLATE}
        assert {c.rng_seed for c in group} == {request.rng_seed}
    plain = engine.client.requests[1].messages
    # Two requests a batch: of every second one all axes are left unsaid, by turns the former and the latter.
    assert [r.messages == plain for r in engine.client.requests[2:]] == [True, False, False, True]
    place = BatchPlace("run", brief.feature_id, "guided", 1)
    assert [r.rng_seed for r in engine.client.requests[2:4]] == [place.rng_seed(0), place.rng_seed(0, 1)]
    assert [c.candidate_id for c in guided[8:16]] == [place.candidate_id(slot) for slot in range(8)]


def test_a_model_that_does_not_sample_is_asked_for_every_reply_in_words_of_its_own(brief, synthesis, numbered):
    engine = synthesis(
        numbered(lambda step, slot: False), axes=True, parts={"is_sampling": False, "is_small": False}, batch=8,
        pair_candidates=8, max_candidates=8,
    )  # fmt: skip
    result = engine.fill(brief)
    assert [r.n for r in engine.client.requests] == [1] * 16
    assert len({r.messages for r in engine.client.requests}) > 12
    assert {len(c.gates["axes"]) for c in result.candidates} == {4}


def test_axes_learn_between_waves_and_from_recorded_batches_alike(brief, synthesis, numbered, ledger):
    settings = {"axes": True, "max_candidates": 24, "per_feature": 9}
    script = numbered(lambda step, slot: slot == 0)
    whole = synthesis(script, **settings)
    expected = whole.fill(brief)
    kept = dict(list(ledger.batches.items())[:3])
    ledger.batches.clear()
    ledger.batches.update(kept)
    asked = [(r.messages, r.rng_seed) for r in whole.client.requests]
    again = synthesis(["apple bread cloud drum"], ledger=ledger, **settings)
    again.fill(brief)
    resumed = [(r.messages, r.rng_seed) for r in again.client.requests]
    assert resumed[0] == asked[-len(resumed)]
    assert len(expected.candidates) == 2 + 24
