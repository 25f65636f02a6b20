"""Filling one feature: what is asked, what is measured, what is accepted, and what a second attempt repeats."""

from __future__ import annotations

import dataclasses

import pytest

from facviz.config import SynthesisConfig
from facviz.prompts import render
from facviz.records import LLMReply, Outcome, PairState
from facviz.synthesis.asking import warmed
from facviz.synthesis.formats.texts import PlainText
from facviz.synthesis.guided import CONTRAST_TEMPLATE, GUIDED_TEMPLATE
from facviz.synthesis.pairs import request_text
from facviz.synthesis.plan import BatchPlace
from facviz.synthesis.results import FeatureState, restore_candidate
from facviz.testing.fakes import FakeLLM

FEATURE = 12


def step_of(result, step):
    return [c for c in result.candidates if c.step == step]


def contrast(step, slot):
    """Step 1 gives one that fires and one that does not; of step 2 the first fires."""
    return slot == 0


def reasons(candidates):
    return [c.reject_reason for c in candidates]


def test_both_steps_end_with_the_wanted_number_of_verified_samples(brief, synthesis, numbered):
    result = synthesis(numbered(contrast), per_feature=2).fill(brief)
    assert result.state is FeatureState.FILLED
    assert result.pair.state is PairState.PAIRED
    assert [(c.step, c.round, c.slot) for c in result.accepted] == [("guided", 0, 0), ("guided", 1, 0)]
    assert all("mirror" in c.text and c.act == 2.0 and c.reject_reason is None for c in result.accepted)


def test_synthesis_stops_early_and_the_surplus_is_kept_as_not_needed(brief, synthesis, numbered):
    engine = synthesis(numbered(lambda step, slot: step == "guided" or slot == 0), per_feature=2, max_candidates=96)
    result = engine.fill(brief)
    assert [len(engine.client.requests), len(result.candidates)] == [2, 2 + 4]
    assert sorted(map(str, reasons(step_of(result, "guided")))) == ["None", "None", "not needed", "not needed"]
    assert [c.gates.get("verified_act") for c in step_of(result, "guided")] == [2.0, 2.0, None, None]
    assert len(engine.encoder.alone) == 2


def test_a_feature_nothing_fires_is_exhausted_after_exactly_the_agreed_number(brief, synthesis, numbered):
    engine = synthesis(numbered(lambda step, slot: step == "pairs" and slot == 0), max_candidates=10)
    result = engine.fill(brief)
    assert result.state is FeatureState.EXHAUSTED
    assert result.accepted == []
    assert [r.n for r in engine.client.requests] == [2, 4, 4, 2]
    assert len(step_of(result, "guided")) == 10
    assert set(reasons(step_of(result, "guided"))) == {"target does not fire"}


def test_only_pairs_can_be_asked_for(brief, synthesis, numbered):
    engine = synthesis(numbered(contrast), step="pairs")
    result = engine.fill(brief)
    assert result.state is FeatureState.PAIRED_ONLY
    assert (result.pair.state, len(engine.client.requests), len(result.candidates)) == (PairState.PAIRED, 1, 2)


@pytest.mark.parametrize(("asked", "later"), [(0.0, 0.2), (0.8, 1.0), (0.9, 1.0), (1.0, 1.0), (1.5, 1.5)])
def test_what_the_first_batch_left_unfilled_is_asked_warmer_but_not_beyond_one(asked, later):
    assert warmed(asked) == later


def test_requests_carry_the_settings_and_the_seed_of_their_place(brief, synthesis, numbered):
    settings = {"temperature": 0.7, "top_p": 0.6, "max_tokens": 33, "rng_seed": 5, "pair_candidates": 6}
    engine = synthesis(numbered(lambda step, slot: step == "pairs" and slot == 0, pair_batches=2), **settings)
    engine.fill(brief)
    places = [("pairs", 0), ("pairs", 1), ("guided", 0), ("guided", 1), ("guided", 2)]
    expected = [BatchPlace("run", FEATURE, step, number).rng_seed(5) for step, number in places]
    assert [r.rng_seed for r in engine.client.requests] == expected
    assert len(set(expected)) == len(expected)
    assert {(r.top_p, r.max_tokens) for r in engine.client.requests} == {(0.6, 33)}
    assert [r.temperature for r in engine.client.requests] == pytest.approx([0.7, 0.7, 0.7, 0.9, 0.9])
    assert [r.n for r in engine.client.requests] == [4, 2, 4, 4, 4]


def test_step_one_shows_every_span_and_asks_for_the_words_and_the_explanation(brief, synthesis, numbered):
    engine = synthesis(numbered(contrast), step="pairs")
    engine.fill(brief)
    [request] = engine.client.requests
    assert [m.role for m in request.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [m.content for m in request.messages if m.role == "assistant"] == [s.text for s in brief.spans]
    assert brief.task.sample_request in request.messages[0].content
    assert {m.content for m in request.messages if m.role == "user"} == {request_text(brief)}
    assert "mirror" in request_text(brief)
    assert brief.explanation in "".join(m.content for m in request.messages)
    assert request.avoid == tuple(s.text for s in brief.spans)


def test_what_the_corpus_often_says_may_be_written_again(brief, synthesis, numbered):
    formula = brief.spans[0].text
    corpus = [f"{formula} {end}" for end in ("tea", "bread", "milk")]
    engine = synthesis(numbered(contrast), known=corpus, step="pairs")
    engine.fill(brief)
    assert next(m.content for m in engine.client.requests[0].messages if m.role == "assistant") == formula
    assert engine.client.requests[0].avoid == (brief.spans[1].text,)


def test_step_two_shows_the_strong_text_as_right_and_the_weak_one_as_wrong(brief, synthesis, numbered):
    engine = synthesis(numbered(contrast))
    result = engine.fill(brief)
    strong, weak = step_of(result, "pairs")
    assert (result.pair.strong_id, result.pair.weak_id) == (strong.candidate_id, weak.candidate_id)
    ascending = sorted([(strong.act, strong.text), *((span.act, span.text) for span in brief.spans)])
    shown = [weak.text, *(text for _, text in ascending)]
    assert engine.client.requests[1].avoid == tuple(shown)
    guided = engine.client.requests[1].messages
    assert [m.content for m in guided if m.role == "assistant"] == shown
    assert guided[3].content == render(CONTRAST_TEMPLATE, request=request_text(brief))  # said of the weak one
    assert guided[-1].content == render(GUIDED_TEMPLATE, request=request_text(brief))
    assert [m.role for m in guided] == ["system", *["user", "assistant"] * 4, "user"]


def test_a_copy_of_the_strong_text_is_no_new_sample(brief, synthesis):
    strong = "apple bread mirror cloud drum eagle"
    engine = synthesis([strong, "apple bread cloud drum eagle flame", strong], max_candidates=4)
    result = engine.fill(brief)
    assert result.pair.state is PairState.PAIRED
    assert set(reasons(step_of(result, "guided"))) == {"copied"}
    assert result.state is FeatureState.EXHAUSTED


def test_the_gates_leave_a_reason_and_a_measure_on_every_candidate(brief, synthesis):
    script = [
        "apple bread mirror cloud",  # step 1, fires
        "apple bread cloud",  # step 1, does not
        "mirror mirror",
        "corpus mirror text here",
        "drum eagle mirror flame",  # a span that was shown
        "grape house mirror island",
        "grape house mirror island",
        Outcome.REFUSED,
        Outcome.TRUNCATED,
        "grape house lemon island",
    ]
    engine = synthesis(
        script, known=["Corpus, mirror: text here!"], batch=8, max_candidates=8, pair_candidates=2, per_feature=2
    )
    result = engine.fill(brief)
    guided = step_of(result, "guided")
    expected = ["length", "duplicate", "copied", None, "duplicate", "refused", "empty", "target does not fire"]
    assert reasons(guided) == expected
    assert [c.slot for c in guided] == list(range(8))
    assert [c.text for c in guided] == ["" if isinstance(text, Outcome) else text for text in script[2:]]
    assert [c.gates["outcome"] for c in guided] == ["ok"] * 5 + ["refused", "truncated", "ok"]
    assert [c.gates.get("n_words") for c in guided] == [2, 4, 4, 4, 4, None, None, 4]
    assert [c.gates["ranked_act"] for c in guided] == [2, 2, 2, 2, 2, 0, 0, 0]
    assert result.state is FeatureState.EXHAUSTED
    assert len(result.accepted) == 1


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.INVALID])
def test_a_refusal_in_words_is_kept_but_never_paired_exported_or_measured_alone(brief, synthesis, outcome):
    class Reluctant(FakeLLM):
        def complete(self, requests):
            refusal = LLMReply("I cannot mirror that", outcome, 4)
            return [[group[0], *[refusal] * (len(group) - 1)] for group in super().complete(requests)]

    engine = synthesis(None, client=Reluctant(["apple bread mirror drum"]), pair_candidates=4)
    result = engine.fill(brief)
    pairs = step_of(result, "pairs")
    assert reasons(pairs) == ["step one", *[str(outcome)] * 3]
    assert [c.text for c in pairs[1:]] == ["I cannot mirror that"] * 3
    assert result.pair.state is PairState.NO_CONTRAST
    assert not any("I cannot" in m.content for r in engine.client.requests for m in r.messages)
    assert not any("I cannot" in d.text for d in engine.encoder.alone)


def test_a_text_that_must_not_be_kept_leaves_its_reason_and_no_words(brief, synthesis):
    engine = synthesis(["apple bread mirror drum", "an explicit mirror for a minor"], max_candidates=4)
    result = engine.fill(brief)
    withheld = [c for c in result.candidates if c.reject_reason == "withheld"]
    assert len(withheld) == 5
    assert {(c.text, c.act, c.accepted) for c in withheld} == {("", 0.0, False)}
    assert not any("explicit" in m.content for r in engine.client.requests for m in r.messages)


def test_a_sample_accepted_earlier_is_a_duplicate_for_the_next_feature_and_after_a_restart(brief, synthesis, ledger):
    script = ["apple bread mirror cloud", "apple bread cloud", "grape house mirror island"]
    engine = synthesis(script, max_candidates=4, pair_candidates=2)
    first = engine.fill(brief)
    assert [c.text for c in first.accepted] == ["grape house mirror island"]
    other = dataclasses.replace(brief, feature_id=6, spans=())  # "grape" fires feature 6
    same_text = synthesis(["grape house mirror island"], gates=engine.gates, max_candidates=4).fill(other)
    assert set(reasons(same_text.candidates)) == {"duplicate"}

    restarted = synthesis(["nothing is asked"], ledger=ledger, max_candidates=4, pair_candidates=2)
    assert restarted.fill(brief) == first
    assert restarted.client.requests == []
    assert restarted.gates.check("Grape house mirror island.", ())[1] == "duplicate"


def test_defect_3_no_sample_is_accepted_unless_its_target_fires_when_encoded_alone(
    brief, synthesis, scripted, numbered
):
    encoder = scripted(act=lambda text: 2.0 * ("mirror" in text), alone=lambda text: 0.5)
    result = synthesis(numbered(contrast), encoder=encoder).fill(brief)
    assert result.pair.state is PairState.PAIRED
    assert result.accepted == []
    assert result.state is FeatureState.EXHAUSTED
    alone = [c for c in result.candidates if "verified_act" in c.gates]
    assert len(alone) == len(encoder.alone) == 3
    for candidate in alone:
        assert candidate.reject_reason == "target does not fire alone"
        assert (candidate.act, candidate.gates["verified_act"], candidate.gates["ranked_act"]) == (0.5, 0.5, 2.0)


@pytest.mark.parametrize(
    ("ranked", "alone", "reason"),
    [
        (21.0, 21.5, None),
        (21.0, 21.0, "target does not fire alone"),
        (20.0, 21.5, None),
        (19.0, 21.5, "target does not fire"),
        (30.0, 20.5, "target does not fire alone"),
    ],
    ids=["above", "on the bar", "ranked a little low", "ranked too low", "above δ but not above 1.05 δ"],
)
def test_a_sample_counts_above_105_percent_of_its_threshold(
    brief, synthesis, scripted, numbered, ranked, alone, reason
):
    brief = dataclasses.replace(brief, act_threshold=20.0)
    encoder = scripted(act=lambda text: ranked, alone=lambda text: alone)
    result = synthesis(numbered(contrast), encoder=encoder, max_candidates=1).fill(brief)
    [candidate] = step_of(result, "guided")
    assert candidate.reject_reason == reason
    assert candidate.accepted == (reason is None)


def test_at_a_threshold_of_zero_a_sample_must_still_fire(brief, synthesis, scripted, numbered):
    brief = dataclasses.replace(brief, act_threshold=0.0)
    silent = synthesis(numbered(contrast), encoder=scripted(lambda text: 0.0), max_candidates=1).fill(brief)
    assert silent.accepted == []
    faint = synthesis(numbered(contrast), encoder=scripted(lambda text: 1e-3), max_candidates=1, synth_id="other")
    assert len(faint.fill(brief).accepted) == 1


def test_the_strongest_of_a_batch_is_verified_first(brief, synthesis, scripted, numbered, text):
    strength = {text(True, 2 + slot): act for slot, act in enumerate((0.6, 0.9, 3.0, 0.7))}
    encoder = scripted(lambda t: strength.get(t, 0.0), alone=lambda t: 0.0 if strength[t] == 3.0 else strength[t])
    result = synthesis(numbered(lambda *_: True), encoder=encoder, max_candidates=4).fill(brief)
    assert [strength[d.text] for d in encoder.alone] == [3.0, 0.9]
    assert reasons(step_of(result, "guided")) == ["not needed", None, "target does not fire alone", "not needed"]


def test_a_candidate_is_measured_as_the_document_it_is_exported_as(brief, synthesis, numbered):
    engine = synthesis(numbered(contrast))
    [accepted] = engine.fill(brief).accepted
    [document] = engine.encoder.alone
    assert document == brief.document(accepted.text)
    assert [(m.role, m.content) for m in document.messages] == [("user", accepted.text)]


def test_a_finished_batch_is_never_asked_for_again_and_the_result_is_the_same(brief, synthesis, text, new_ledger):
    class Killed(FakeLLM):
        left = 2

        def complete(self, requests):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            return super().complete(requests)

    def replies(request):  # as of a local model: fixed by the request's seed
        return [text(slot % 2 == 0, request.rng_seed % 10_000 + slot) for slot in range(request.n)]

    settings = {"pair_candidates": 6, "max_candidates": 12, "per_feature": 12}
    whole = synthesis(replies, ledger=new_ledger(), **settings)
    expected = whole.fill(brief)
    ledger = new_ledger()
    with pytest.raises(KeyboardInterrupt):
        synthesis(None, client=Killed(replies), ledger=ledger, **settings).fill(brief)
    assert [(p.step, p.round) for p in ledger.batches] == [("pairs", 0), ("pairs", 1)]
    again = synthesis(replies, ledger=ledger, **settings)
    assert again.fill(brief) == expected
    assert [r.rng_seed for r in again.client.requests] == [r.rng_seed for r in whole.client.requests[2:]]


def test_defect_4_every_candidate_carries_its_feature_and_seed_and_joins_by_key(brief, synthesis, numbered):
    one = synthesis(numbered(contrast), max_candidates=8, per_feature=8).fill(brief)
    for c in one.candidates:
        place = BatchPlace("run", FEATURE, c.step, c.round)
        assert (c.feature_id, c.candidate_id, c.rng_seed) == (FEATURE, place.candidate_id(c.slot), place.rng_seed(0))
    by_id = {c.candidate_id: c for c in one.candidates}
    assert len(by_id) == len(one.candidates) == 10
    assert by_id[one.pair.strong_id].text.endswith("mirror")
    assert by_id[one.pair.weak_id].text.endswith("island")


def test_ids_follow_from_the_place_in_the_plan_and_never_from_the_text(brief, synthesis, numbered, new_ledger):
    def ids(script, **settings):
        engine = synthesis(script, ledger=new_ledger(), max_candidates=4, **settings)
        return [c.candidate_id for c in engine.fill(brief).candidates]

    assert ids(numbered(contrast)) == ids(["drum eagle flame grape"])
    assert not set(ids(numbered(contrast))) & set(ids(numbered(contrast), synth_id="another run"))


@pytest.mark.parametrize(
    ("text", "outcome", "expected"),
    [
        ("  some text \n", Outcome.OK, "some text"),
        ('"quoted text"', Outcome.OK, "quoted text"),
        ("“quoted text”", Outcome.OK, "quoted text"),
        ("'quoted text'", Outcome.OK, "quoted text"),
        ('say "this" now', Outcome.OK, 'say "this" now'),
        ('"', Outcome.OK, '"'),
        ("One. Two! Three and", Outcome.TRUNCATED, "One. Two!"),
        ("One. Two! Three and", Outcome.OK, "One. Two! Three and"),
        ("line one\nline tw", Outcome.TRUNCATED, "line one"),
        ("no end in sight", Outcome.TRUNCATED, "no end in sight"),
        ("version 1.5 of it", Outcome.TRUNCATED, "version 1.5 of it"),
    ],
)
def test_the_sample_is_taken_out_of_its_reply(text, outcome, expected):
    assert PlainText().parse(text, is_cut=outcome is Outcome.TRUNCATED).text == expected


def test_a_candidate_survives_the_way_through_a_dictionary(brief, synthesis, numbered):
    for candidate in synthesis(numbered(contrast)).fill(brief).candidates:
        assert restore_candidate(dataclasses.asdict(candidate)) == candidate


def test_the_defaults_try_96_candidates_in_batches_of_16(brief, synthesis, numbered):
    config = SynthesisConfig()
    engine = synthesis(
        numbered(lambda step, slot: False), batch=config.batch, max_candidates=config.max_candidates, pair_candidates=16
    )
    engine.fill(brief)
    assert [r.n for r in engine.client.requests] == [16] * 7
