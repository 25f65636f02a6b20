"""Several features at a time: what goes out together, in which order it counts, and how a wave is taken up again."""

from __future__ import annotations

import dataclasses
import re

import pytest

from facviz.errors import BudgetError, LLMError, SpendLimitError
from facviz.records import LLMReply, Outcome, PairState
from facviz.synthesis.gates import TextGates
from facviz.synthesis.plan import BatchPlace
from facviz.synthesis.results import FeatureState
from facviz.testing.fakes import FakeLLM
from facviz.testing.planted import WORDS

FEATURES = tuple(range(12, 18))


@pytest.fixture
def briefs(brief):
    """Six features, each asked for by its own word and without spans."""
    return [
        dataclasses.replace(brief, feature_id=f, words=(WORDS[f],), spans=(), explanation=f'fires on "{WORDS[f]}"')
        for f in FEATURES
    ]


def asked_for(request) -> int:
    return next(f for f in range(24) if re.search(rf"\b{WORDS[f]}\b", request.messages[-1].content))


def by_request(fires):
    """Replies that follow from the request's seed alone; `fires(feature, slot)` says which hold the word."""

    def script(request):
        feature, texts = asked_for(request), []
        for slot in range(request.n):
            number = (request.rng_seed + 7919 * slot) % 12**5
            words = [WORDS[(number // 12**i + i) % 12] for i in range(5)]
            texts.append(" ".join([*words, WORDS[feature] if fires(feature, slot) else "yellow"]))
        return texts

    return script


def first_fires(feature, slot):
    return slot == 0


class CountingLLM(FakeLLM):
    """Remembers what was asked together."""

    def __init__(self, script):
        super().__init__(script)
        self.calls = []

    def complete(self, requests):
        self.calls.append([(asked_for(r), r.n) for r in requests])
        return super().complete(requests)


def test_the_next_batch_of_every_feature_under_way_goes_out_in_one_call(briefs, synthesis):
    client = CountingLLM(by_request(lambda feature, slot: slot == 0 and feature != 13))
    engine = synthesis(None, client=client, features_at_once=3, max_candidates=8)
    results = engine.fill_all(briefs)
    assert [r.brief.feature_id for r in results] == list(FEATURES)
    assert [r.state for r in results] == [FeatureState.FILLED, FeatureState.EXHAUSTED, *[FeatureState.FILLED] * 4]
    assert client.calls == [
        [(12, 2), (13, 2), (14, 2)],
        [(12, 4), (13, 4), (14, 4)],
        [(13, 4), (15, 2), (16, 2)],  # 12 and 14 are filled, and two others begin
        [(15, 4), (16, 4), (17, 2)],
        [(17, 4)],
    ]


def test_all_replies_of_a_wave_are_measured_in_one_pass_and_verified_alone(briefs, synthesis, planted_encoder):
    class Counting:
        d_sae = planted_encoder.d_sae

        def __init__(self):
            self.batches, self.n_alone = [], 0

        def encode(self, documents):
            self.batches.append(len(documents))
            return planted_encoder.encode(documents)

        def encode_alone(self, document):
            self.n_alone += 1
            return planted_encoder.encode_alone(document)

    encoder = Counting()
    results = synthesis(by_request(first_fires), encoder=encoder, features_at_once=6).fill_all(briefs)
    assert (encoder.batches, encoder.n_alone) == ([6 * 2, 6 * 4], 6)
    for result in results:
        assert [c.act for c in result.accepted] == [float(2 + result.brief.feature_id % 4)]


def test_one_at_a_time_or_together_the_same_is_asked_and_the_same_comes_out(briefs, synthesis, new_ledger):
    alone = synthesis(by_request(first_fires), ledger=new_ledger(), features_at_once=1)
    together = synthesis(by_request(first_fires), ledger=new_ledger(), features_at_once=6)
    assert alone.fill_all(briefs) == together.fill_all(briefs)
    asked = [{(r.messages, r.n, r.rng_seed) for r in engine.client.requests} for engine in (alone, together)]
    assert asked[0] == asked[1]


def test_results_are_told_as_soon_as_a_feature_ends(briefs, synthesis):
    told = []
    engine = synthesis(by_request(lambda f, slot: slot == 0 and f != 12), features_at_once=2, max_candidates=8)
    results = engine.fill_all(briefs[:3], lambda result: told.append(result.brief.feature_id))
    assert told == [13, 12, 14]
    assert [r.brief.feature_id for r in results] == [12, 13, 14]


def test_a_sample_accepted_in_a_wave_is_a_duplicate_for_the_features_after_it(briefs, synthesis):
    both = f"apple bread {WORDS[12]} {WORDS[13]} drum"

    def script(request):
        return [both if request.n == 4 else f"apple bread cloud {WORDS[asked_for(request)]}"] * request.n

    first, second = synthesis(script, features_at_once=2, max_candidates=4).fill_all(briefs[:2])
    assert [c.text for c in first.accepted] == [both]
    assert {c.reject_reason for c in second.candidates if c.step == "guided"} == {"duplicate"}


class Stopping(FakeLLM):
    """Takes so many calls, then raises."""

    def __init__(self, script, n_calls, error):
        super().__init__(script)
        self._left, self._error = n_calls, error

    def complete(self, requests):
        if self._left == 0:
            raise self._error
        self._left -= 1
        return super().complete(requests)


class TornLedger:
    """A ledger of which only some batches reached the disk, in whatever order."""

    def __init__(self, batches):
        self.batches, self.recorded = dict(batches), []

    def recall(self, place):
        return self.batches.get(place)

    def record(self, place, candidates):
        assert place not in self.batches
        self.recorded.append(place)
        self.batches[place] = list(candidates)


@pytest.mark.parametrize("kept", [[1], [0, 3], [2, 1], [5, 4, 0], [0, 1, 2, 3, 4, 5]], ids=str)
def test_whichever_batches_of_a_wave_were_recorded_before_a_kill_they_are_not_asked_for_again(
    briefs, synthesis, new_ledger, kept
):
    whole = synthesis(by_request(first_fires), ledger=new_ledger(), features_at_once=6)
    expected = whole.fill_all(briefs)
    places = [BatchPlace("run", FEATURES[i], "pairs", 0) for i in kept]
    torn = TornLedger({place: whole.ledger.batches[place] for place in places})
    again = synthesis(by_request(first_fires), ledger=torn, features_at_once=6)
    assert again.fill_all(briefs) == expected
    asked_again = {asked_for(r) for r in again.client.requests if r.n == 2}
    assert asked_again == set(FEATURES) - {FEATURES[i] for i in kept}
    assert not set(torn.recorded) & set(places)


@pytest.mark.parametrize("error", [BudgetError("The budget of $1 is reached."), SpendLimitError("The spend limit.")])
def test_when_the_money_is_spent_what_is_under_way_and_what_waits_ends_as_budget(briefs, synthesis, ledger, error):
    told = []
    client = Stopping(by_request(first_fires), 2, error)  # both waves of the first two features
    engine = synthesis(None, client=client, features_at_once=2)
    results = engine.fill_all(briefs, lambda result: told.append(result.brief.feature_id))
    assert [str(r.state) for r in results] == ["filled", "filled", *["budget"] * 4]
    assert [len(r.candidates) for r in results] == [6, 6, 0, 0, 0, 0]
    assert [r.pair.state if r.pair else None for r in results] == [PairState.PAIRED] * 2 + [None] * 4
    assert engine.stopped == str(error)
    assert sorted(told) == list(FEATURES)

    more = synthesis(by_request(first_fires), ledger=ledger, features_at_once=2)
    assert [str(r.state) for r in more.fill_all(briefs)] == ["filled"] * 6
    assert {asked_for(r) for r in more.client.requests} == set(FEATURES[2:])
    assert more.stopped == ""


def test_replies_that_arrived_before_the_money_was_spent_are_used_up_to_the_first_gap(briefs, synthesis, ledger):
    class Purse(FakeLLM):
        """The replies to one feature can no longer be paid for, those of others were recorded."""

        def complete(self, requests):
            if any(asked_for(r) == 14 for r in requests):
                raise BudgetError("The budget is reached.")
            return super().complete(requests)

    engine = synthesis(None, client=Purse(by_request(first_fires)), features_at_once=6)
    results = engine.fill_all(briefs)
    assert [len(r.candidates) for r in results] == [2, 2, 0, 0, 0, 0]
    assert {str(r.state) for r in results} == {"budget"}
    assert [place.feature_id for place in ledger.batches] == [12, 13]


def test_a_dead_key_stops_the_job_and_keeps_the_finished_batches(briefs, synthesis, ledger):
    client = Stopping(by_request(first_fires), 1, LLMError("The server does not accept the key."))
    with pytest.raises(LLMError, match="key"):
        synthesis(None, client=client, features_at_once=2).fill_all(briefs)
    assert [(place.feature_id, place.step) for place in ledger.batches] == [(12, "pairs"), (13, "pairs")]


def test_two_rounds_of_refusals_end_a_feature_and_no_more_is_asked_for_it(briefs, synthesis):
    def script(request):
        return [Outcome.REFUSED] * request.n

    engine = synthesis(script, max_candidates=96)
    result = engine.fill(briefs[0])
    assert result.state is FeatureState.REFUSED
    assert [r.n for r in engine.client.requests] == [2, 4]


def test_a_feature_whose_last_round_was_refused_is_refused_and_one_good_reply_makes_it_exhausted(briefs, synthesis):
    class Late(FakeLLM):
        def complete(self, requests):
            [group] = super().complete(requests)
            refused = [LLMReply("no", Outcome.REFUSED, 1)] * len(group)
            n_asked = len(self.requests)
            return [refused if n_asked == 3 else group if n_asked < 3 else [*refused[1:], group[0]]]

    never = by_request(lambda feature, slot: False)
    assert synthesis(None, client=Late(never), max_candidates=8).fill(briefs[0]).state is FeatureState.REFUSED
    one_good = synthesis(None, client=Late(never), max_candidates=12, synth_id="other").fill(briefs[0])
    assert one_good.state is FeatureState.EXHAUSTED


def test_defect_34_a_failure_is_recorded_where_it_happened_and_shifts_no_other_feature(briefs, synthesis):
    def script(request):
        if asked_for(request) == 13:
            return [Outcome.REFUSED, Outcome.INVALID, Outcome.TRUNCATED, Outcome.REFUSED][: request.n]
        return by_request(first_fires)(request)

    results = synthesis(script, max_candidates=4, features_at_once=3).fill_all(briefs)
    failed = results[1]
    assert [c.reject_reason for c in failed.candidates] == [
        "refused",
        "invalid",
        "refused",
        "invalid",
        "empty",
        "refused",
    ]
    assert {c.feature_id for c in failed.candidates} == {13}
    assert isinstance(failed.candidates[0].feature_id, int)
    for result in (results[0], *results[2:]):
        assert result.state is FeatureState.FILLED
        assert WORDS[result.brief.feature_id] in result.accepted[0].text


def test_a_later_pass_attempts_only_what_no_accepted_sample_activates(briefs, synthesis):
    """12 is never met; 13 is met by the sample of 14; 15 is met in the second pass."""
    both = f"apple bread {WORDS[14]} {WORDS[13]} drum"
    n_asked = {}

    def script(request):
        feature = asked_for(request)
        n_asked[feature] = n_asked.get(feature, 0) + 1
        if feature == 14:
            return [both if request.n == 4 else "apple bread cloud drum"] * request.n
        met = feature == 15 and n_asked[feature] > 3
        return by_request(lambda feature, slot: met)(request)

    engine = synthesis(script, max_candidates=8, passes=3)
    results = {r.brief.feature_id: r for r in engine.fill_all(briefs[:4])}
    rounds = {f: [c.round for c in r.candidates if c.step == "guided"][::4] for f, r in results.items()}
    assert rounds == {12: [0, 1, 2, 3, 4, 5], 13: [0, 1], 14: [0], 15: [0, 1, 2]}
    assert {f: str(r.state) for f, r in results.items()} == {
        12: "exhausted", 13: "exhausted", 14: "filled", 15: "filled",
    }  # fmt: skip
    assert results[14].accepted[0].gates["covers"] == [13, 14]
    ids = [c.candidate_id for r in results.values() for c in r.candidates]
    assert len(set(ids)) == len(ids)


def test_a_second_call_tells_the_same_of_every_pass_without_asking(briefs, synthesis, ledger):
    script = by_request(lambda feature, slot: feature == 14 and slot == 0)
    first = synthesis(script, max_candidates=8, passes=2).fill_all(briefs[:4])
    again = synthesis(["nothing"], max_candidates=8, passes=2)
    assert again.fill_all(briefs[:4]) == first
    assert again.client.requests == []


def test_a_pairs_run_that_was_refused_has_no_second_pass(briefs, synthesis):
    engine = synthesis(lambda request: [Outcome.REFUSED] * request.n, step="pairs", passes=2)
    assert engine.fill(briefs[0]).state is FeatureState.REFUSED
    assert len(engine.client.requests) == 1


def test_one_step_accepts_straight_from_the_first_prompt_and_draws_as_many(brief, synthesis):
    n_served = 0

    def script(request):
        nonlocal n_served
        n_served += request.n
        return [f"{WORDS[n_served % 12]} bread cloud {WORDS[slot]} drum" for slot in range(request.n)]

    engine = synthesis(script, strategy="one-step", pair_candidates=6, max_candidates=10)
    result = engine.fill(brief)
    assert (result.state, result.pair) == (FeatureState.EXHAUSTED, None)
    assert [r.n for r in engine.client.requests] == [4, 4, 4, 4]
    assert len({r.messages for r in engine.client.requests}) == 1
    assert {(c.step, c.strategy) for c in result.candidates} == {("one-step", "one-step")}
    met = synthesis(["apple bread cloud mirror drum"], strategy="one-step", synth_id="other").fill(brief)
    assert [(c.step, c.round, c.slot) for c in met.accepted] == [("one-step", 0, 0)]


def test_a_gate_after_verification_may_turn_a_sample_down_and_leaves_its_measures(briefs, synthesis):
    class Judge:
        def __init__(self):
            self.seen, self.accepted = [], []

        def check(self, brief, candidate, shown, alone):
            self.seen.append((brief.feature_id, candidate.gates["verified_act"], float(alone.max_acts[0, 12])))
            return {"judged": len(self.seen)}, "off task" if len(self.seen) == 1 else None

        def accept(self, text):
            self.accepted.append(text)

    judge = Judge()
    engine = synthesis(by_request(lambda *_: True), parts={"after": judge}, max_candidates=4)
    result = engine.fill(briefs[0])
    assert judge.seen == [(12, 2.0, 2.0)] * 2
    assert [c.reject_reason for c in result.candidates if "judged" in c.gates] == ["off task", None]
    assert judge.accepted == [c.text for c in result.accepted]
    assert [c.gates["judged"] for c in result.accepted] == [2]

    again = Judge()
    gates = TextGates(())
    synthesis(["nothing"], ledger=engine.ledger, parts={"after": again}, gates=gates, max_candidates=4).fill(briefs[0])
    assert (again.seen, again.accepted) == ([], judge.accepted)


def test_a_judge_without_money_ends_the_run_and_keeps_its_batch_for_later(briefs, synthesis, ledger):
    class Poor:
        def check(self, brief, candidate, shown, alone):
            raise BudgetError("The budget is reached.")

        def accept(self, text):
            raise AssertionError

    engine = synthesis(by_request(first_fires), parts={"after": Poor()}, features_at_once=2)
    assert [str(r.state) for r in engine.fill_all(briefs[:2])] == ["budget"] * 2
    assert [place.step for place in ledger.batches] == ["pairs"] * 2


def test_a_candidate_names_its_prompt_and_the_call_that_brought_it(briefs, synthesis):
    class Paid(FakeLLM):
        def complete(self, requests):
            groups = super().complete(requests)
            return [[dataclasses.replace(r, call_id=f"call-{i}") for i, r in enumerate(g)] for g in groups]

    result = synthesis(None, client=Paid(by_request(first_fires))).fill(briefs[0])
    assert [c.gates["call_id"] for c in result.candidates] == [f"call-{c.slot}" for c in result.candidates]
    assert {(c.step, c.gates["prompt"]) for c in result.candidates} == {
        ("pairs", "synthesize_request.v1"), ("guided", "synthesize_guided.v1"),
    }  # fmt: skip


def test_defect_20_one_seed_decides_every_draw_and_another_seed_draws_anew(briefs, synthesis, new_ledger):
    def run(rng_seed):
        script = by_request(lambda feature, slot: slot == 0 and feature % 2 == 0)
        engine = synthesis(script, ledger=new_ledger(), axes=True, rng_seed=rng_seed, max_candidates=16)
        results = engine.fill_all(briefs)
        drawn = [c.gates["axes"] for r in results for c in r.candidates if "axes" in c.gates]
        return [(r.messages, r.rng_seed) for r in engine.client.requests], drawn, results

    first, again, other = run(0), run(0), run(1)
    assert first == again
    assert first[1]
    assert first[1] != other[1]
    assert not {seed for _, seed in first[0]} & {seed for _, seed in other[0]}


def test_defect_31_the_system_prompt_has_its_own_role_and_the_model_is_asked_to_answer(brief, synthesis, numbered):
    engine = synthesis(numbered(lambda step, slot: slot == 0), max_candidates=4)
    engine.fill(brief)
    for request in engine.client.requests:
        roles = [m.role for m in request.messages]
        assert roles[0] == "system"
        assert roles[1:] == ["user", "assistant"] * ((len(roles) - 2) // 2) + ["user"]
        assert not any(brief.task.sample_request in m.content for m in request.messages[1:])
        assert request.rng_seed > 0
