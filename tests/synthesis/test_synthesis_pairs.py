"""The contrastive pair: highest and lowest with a margin, or a state that says why there is none."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.records import Candidate, PairState
from facviz.synthesis.guided import evidence_of, guided_messages
from facviz.synthesis.pairs import STEP_ONE, make_pair, pair_messages, request_text
from facviz.synthesis.plan import FeatureBrief

FEATURE = 12


def candidate(act: float, number: int, text: str = "some words here", reason: str = STEP_ONE) -> Candidate:
    name = f"{number:04d}"
    return Candidate(name, FEATURE, "paper", "pairs", 0, number, text, act, 3, {}, False, reason, 7)


def bare_brief(act_threshold: float) -> FeatureBrief:
    return FeatureBrief(FEATURE, act_threshold, "", (), (), None)


@given(
    st.lists(st.floats(0, 100, width=32), min_size=1, max_size=12),
    st.floats(0, 10, width=32),
    st.floats(0, 2, width=32),
)
def test_a_pair_is_the_highest_and_the_lowest_or_a_state(acts, act_threshold, min_margin):
    tried = [candidate(act, i) for i, act in enumerate(acts)]
    pair = make_pair(bare_brief(act_threshold), tried, min_margin)
    gap = max(acts) - min(acts)
    if max(acts) == 0:
        assert pair.state is PairState.NONE_ACTIVE
    elif gap == 0 or gap < min_margin * act_threshold:
        assert (pair.state, pair.margin) == (PairState.NO_CONTRAST, gap)
    else:
        assert (pair.state, pair.margin) == (PairState.PAIRED, gap)
        assert acts[int(pair.strong_id)] == max(acts)
        assert acts[int(pair.weak_id)] == min(acts)
    if pair.state is not PairState.PAIRED:
        assert (pair.strong_id, pair.weak_id) == (None, None)
    assert pair.feature_id == FEATURE


def test_a_pair_does_not_depend_on_the_order_of_its_candidates():
    tried = [candidate(act, i) for i, act in enumerate([1.0, 3.0, 0.0, 3.0, 0.0])]
    pairs = {make_pair(bare_brief(1.0), order, 0.1) for order in (tried, tried[::-1], tried[2:] + tried[:2])}
    assert len(pairs) == 1


def test_defect_29_a_gap_below_the_margin_is_recorded_as_no_contrast():
    tried = [candidate(0.75, 0), candidate(0.5, 1)]
    assert make_pair(bare_brief(2.0), tried, 0.125).state is PairState.PAIRED
    pair = make_pair(bare_brief(2.0), tried, 0.25)
    assert (pair.state, pair.margin, pair.strong_id) == (PairState.NO_CONTRAST, 0.25, None)


def test_the_weak_text_may_fire_too():
    pair = make_pair(bare_brief(1.0), [candidate(5.0, 0), candidate(3.0, 1)], 0.1)
    assert (pair.state, pair.strong_id, pair.weak_id, pair.margin) == (PairState.PAIRED, "0000", "0001", 2.0)


@pytest.mark.parametrize(
    "reason", ["empty", "refused", "invalid", "length", "duplicate", "copied", "repetitive", "withheld"]
)
def test_what_failed_a_gate_is_no_half_of_a_pair(reason):
    tried = [candidate(4.0, 0), candidate(1.0, 1), *(candidate(act, 2, reason=reason) for act in (0.0, 9.0))]
    pair = make_pair(bare_brief(1.0), tried, 0.1)
    assert (pair.strong_id, pair.weak_id) == ("0000", "0001")


def test_no_candidates_at_all_is_none_active():
    assert make_pair(bare_brief(1.0), [], 0.1).state is PairState.NONE_ACTIVE


def test_defect_29_step_two_without_a_pair_ends_on_the_strongest_span_with_what_was_measured_of_it(brief):
    strong, weak = brief.spans[0], dataclasses.replace(brief.spans[1], act=0.7)
    shown = dataclasses.replace(brief, spans=(strong, weak))
    told = guided_messages(shown, None, candidate(1.0, 0))
    assert [m.content for m in told.messages if m.role == "assistant"] == [weak.text, strong.text]
    assert told.messages[-1].content.startswith("Yes, that fits best: measured at 3.8 times the bar.")  # 2 / 0.525
    assert told.messages[-1].content.endswith(request_text(brief))
    assert evidence_of(shown) == {
        "spans": 2,
        "strongest": {"anchor_doc": strong.doc_no, "peak_token": strong.peak_token, "act": 2.0},
    }
    assert set(told.shown) == {strong.text, weak.text}


def test_step_two_without_a_pair_or_a_span_asks_as_step_one_does(brief):
    hidden = dataclasses.replace(brief.spans[0], tokens=("an explicit", " mirror", " for a minor"))
    for spans in ((), (hidden,)):
        bare = dataclasses.replace(brief, spans=spans)
        told = guided_messages(bare, None, None)
        assert [m.role for m in told.messages] == ["system", "user"]
        assert (told.shown, evidence_of(bare)) == ((), {"spans": 0})


def test_what_was_shown_is_known_to_the_copy_gate(brief):
    _, shown = pair_messages(brief)
    assert shown == ["apple mirror bread cloud", "drum eagle mirror flame"]
    strong, weak = candidate(2.0, 0, "strong one"), candidate(0.0, 1, "weak one")
    assert set(guided_messages(brief, strong, weak).shown) == {*shown, "strong one", "weak one"}


def test_the_lines_of_a_span_stay_and_what_no_sample_may_have_goes(brief):
    span = dataclasses.replace(brief.spans[0], tokens=("apple {\n", "\tmirror;  \n", "\n\n\n}", "\n\n bread "))
    messages, shown = pair_messages(dataclasses.replace(brief, spans=(span,)))
    assert shown == ["apple {\n    mirror;\n\n}\n\n bread"]
    assert messages[2].content == shown[0]
    assert guided_messages(dataclasses.replace(brief, spans=(span,)), None, None).shown == tuple(shown)


def test_a_span_that_must_not_be_shown_is_not(brief):
    span = dataclasses.replace(brief.spans[0], tokens=("an explicit", " mirror", " for a minor"))
    messages, shown = pair_messages(dataclasses.replace(brief, spans=(span, brief.spans[1])))
    assert shown == ["drum eagle mirror flame"]
    assert not any("explicit" in message.content for message in messages)


def test_a_brief_without_spans_still_asks(brief):
    messages, shown = pair_messages(dataclasses.replace(brief, spans=()))
    assert [m.role for m in messages] == ["system", "user"]
    assert shown == []


@pytest.mark.parametrize(
    ("replies", "state", "margin"),
    [
        (["apple bread cloud drum", "eagle flame grape house"], PairState.NONE_ACTIVE, 0.0),
        (["apple bread cloud mirror", "mirror flame grape house"], PairState.NO_CONTRAST, 0.0),
    ],
    ids=["none fires", "all fire alike"],
)
def test_defect_5_a_failed_pair_is_a_state_and_no_corpus_text_or_invented_score_takes_its_place(
    brief, synthesis, replies, state, margin
):
    engine = synthesis([*replies, "lemon house mirror grape"], max_candidates=4)
    result = engine.fill(brief)
    assert (result.pair.state, result.pair.margin) == (state, margin)
    assert (result.pair.strong_id, result.pair.weak_id) == (None, None)
    pairs = [c for c in result.candidates if c.step == "pairs"]
    guided = [c for c in result.candidates if c.step == "guided"]
    assert not any("evidence" in c.gates for c in pairs)
    assert {(c.gates["evidence"]["pair"], c.gates["evidence"]["strongest"]["act"]) for c in guided} == {(state, 2.0)}
    assert len(engine.client.requests) == 2
    corpus_texts = {span.text for span in brief.spans}
    assert not corpus_texts & {c.text for c in result.candidates}
    assert {c.act for c in result.candidates} <= {0.0, 2.0}  # what the planted model measures, nothing else
    assert [c.text for c in result.accepted] == ["lemon house mirror grape"]


def test_fewer_than_two_step_one_candidates_are_refused():
    from facviz.config import SynthesisConfig, check_ranges
    from facviz.errors import InputError

    with pytest.raises(InputError, match="at least 2"):
        check_ranges(SynthesisConfig(pair_candidates=1), "the test")


@pytest.mark.parametrize(("act", "place"), [(0.1, 1), (99.0, 3)])
def test_the_strongest_of_the_strong_text_and_the_spans_stands_last_and_is_praised(brief, act, place):
    strong, weak = candidate(act, 0, "strong one"), candidate(0.0, 1, "weak one")
    guided = guided_messages(brief, strong, weak)
    answers = [m.content for m in guided.messages if m.role == "assistant"]
    assert answers[0] == "weak one"
    assert answers.index("strong one") == place
    assert list(guided.shown) == answers
