"""Baselines: what each is told, that all draw the same, what they are credited with, and what a kill leaves."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from facviz.config import SynthesisConfig
from facviz.errors import BudgetError, InputError
from facviz.prompts import load_task, template_text
from facviz.records import Document, LLMReply, Message, Outcome
from facviz.synthesis.baselines import (
    BASELINES,
    MAX_SHOWN_WORDS,
    RandomFeature,
    Untargeted,
    baseline_templates,
    check_baseline,
    pool_size,
    prompts_of,
    random_feature_settings,
    random_features,
    shown_texts,
)
from facviz.synthesis.engine import Synthesizer
from facviz.synthesis.gates import TextGates
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.pool import NO_FEATURE, NOTHING_FIRES, NOTHING_FIRES_ALONE
from facviz.synthesis.results import FeatureState
from facviz.synthesis.strategies import Paired
from facviz.testing.fakes import FakeLLM
from facviz.testing.planted import WORDS

SEEDS = tuple(f"apple bread {word} cloud" for word in WORDS[4:12])
MISSING = (12, 13, 14)
"""Fire on mirror at 2, needle at 3, ocean at 4."""
UNTARGETED = ("plain", "self-instruct", "magpie", "evol")
PLAN = {"pair_candidates": 2, "max_candidates": 4, "batch": 4}


def briefs(features=MISSING, act_threshold=0.5):
    return [FeatureBrief(f, act_threshold, "", (WORDS[f],), (), load_task("toxicity")) for f in features]


def varied(request):
    """Four different words a reply, of a list that holds every missing one; the request's seed decides."""
    rng = random.Random(request.rng_seed)
    return [" ".join(rng.sample(WORDS[4:15], 4)) for _ in range(request.n)]


@pytest.fixture
def baseline(planted_encoder, ledger):
    """Build a baseline by its strategy; small plan unless told otherwise."""

    def build(script=varied, *, strategy="plain", client=None, ledger=ledger, encoder=None, after=None, **settings):
        config = SynthesisConfig(strategy=strategy, **(PLAN | settings))
        gates, client = TextGates(()), client or FakeLLM(script)
        encoder = encoder or planted_encoder
        if strategy != "random-feature":
            return Untargeted("run", client, encoder, gates, ledger, config, SEEDS, after)
        inner = Synthesizer(
            synth_id="run",
            client=client,
            encoder=encoder,
            gates=TextGates(()),
            ledger=ledger,
            config=random_feature_settings(config),
            strategy=Paired(config.min_margin, name=strategy),
        )
        return RandomFeature(inner, briefs((4, 5, 6)), encoder, gates, config.per_feature, after)

    return build


def candidates_of(results):
    return [c for result in results for c in result.candidates]


def client_of(made):
    return made.engine.client if isinstance(made, RandomFeature) else made.client


@pytest.mark.parametrize("strategy", BASELINES)
def test_every_baseline_draws_what_a_targeted_strategy_may_draw(baseline, strategy):
    made = baseline(strategy=strategy)
    found = candidates_of(made.fill_all(briefs()))
    assert (
        len(found) == sum(r.n for r in client_of(made).requests) == 3 * (2 + 4) == pool_size(SynthesisConfig(**PLAN), 3)
    )
    assert len({c.candidate_id for c in found}) == len(found)
    assert {c.strategy for c in found} == {strategy}


def test_the_targeted_strategies_draw_as_many(baseline, synthesis):
    silent = ["apple bread cloud drum"]
    for strategy in ("paper", "one-step"):
        engine = synthesis(silent, strategy=strategy, **PLAN)
        engine.fill_all(briefs())
        assert sum(r.n for r in engine.client.requests) == pool_size(SynthesisConfig(**PLAN), 3)


@pytest.mark.parametrize("strategy", UNTARGETED)
def test_no_untargeted_baseline_is_told_of_a_feature(baseline, strategy):
    made = baseline(strategy=strategy)
    made.fill_all([dataclasses.replace(b, explanation='fires on "mirror"') for b in briefs()])
    said = " ".join(m.content for r in made.client.requests for m in r.messages)
    assert not any(WORDS[f] in said for f in MISSING)
    assert "fires on" not in said


def test_plain_is_told_the_tasks_request_alone(baseline):
    made = baseline(strategy="plain")
    made.fill_all(briefs())
    for request in made.client.requests:
        assert [m.role for m in request.messages] == ["system", "user"]
        assert load_task("toxicity").sample_request in request.messages[0].content
        assert request.messages[1].content == template_text("baseline_request.v1")


def test_self_instruct_shows_other_seed_texts_in_every_request_and_asks_for_another(baseline):
    made = baseline(strategy="self-instruct")
    made.fill_all(briefs())
    shown = [[m.content for m in r.messages if m.role == "assistant"] for r in made.client.requests]
    assert all(len(set(texts)) == 4 and set(texts) <= set(SEEDS) for texts in shown)
    assert len({tuple(texts) for texts in shown}) == len(shown) > 1
    assert {r.messages[-1].content for r in made.client.requests} == {template_text("baseline_another.v1")}


def test_magpie_is_given_the_bare_user_turn(baseline, planted_backbone):
    from facviz.llm.local import LocalChat

    made = baseline(strategy="magpie")
    made.fill_all(briefs())
    assert {r.messages for r in made.client.requests} == {(Message("system", "You are a helpful assistant."),)}
    prompt = planted_backbone.tokenizer.decode(LocalChat(planted_backbone)._prompt(made.client.requests[0]))
    assert prompt.split()[-2:] == ["<|im_start|>", "user"]


def test_magpie_of_a_paid_provider_is_refused():
    task = load_task("toxicity")
    with pytest.raises(InputError, match="--provider local"):
        check_baseline(SynthesisConfig(strategy="magpie", provider="anthropic"), task)
    check_baseline(SynthesisConfig(strategy="magpie"), task)
    check_baseline(SynthesisConfig(strategy="plain", provider="anthropic"), task)


@pytest.mark.parametrize("strategy", BASELINES)
def test_samples_of_several_parts_are_written_by_plain_and_random_feature_alone(strategy):
    config, task = SynthesisConfig(strategy=strategy), load_task("helpfulness")
    if strategy in ("plain", "random-feature"):
        check_baseline(config, task)
    else:
        with pytest.raises(InputError, match="have several parts"):
            check_baseline(config, task)


def test_plain_asks_for_a_sample_of_several_parts_in_its_form_and_tells_no_feature():
    brief = dataclasses.replace(briefs()[0], task=load_task("helpfulness"), explanation='fires on "mirror"')
    [prompted] = prompts_of(SynthesisConfig(strategy="plain"), brief, (), 4, random.Random(0))
    said = " ".join(m.content for m in prompted.messages)
    assert brief.task.sample_request in said
    assert all(f"{label}:" in said for label in brief.format.labels)
    assert "mirror" not in said
    assert (prompted.n, prompted.max_tokens) == (4, brief.format.max_tokens)


def test_evol_rewrites_one_seed_text_a_request_in_two_ways(baseline):
    made = baseline(strategy="evol", batch=16, max_candidates=14)
    made.fill_all(briefs())
    asked = [r.messages[-1].content for r in made.client.requests]
    assert all(sum(text in question for text in SEEDS) == 1 for question in asked)
    ways = [question.splitlines()[0] for question in asked]
    assert set(ways) == {template_text(f"baseline_{way}.v1").splitlines()[0] for way in ("deeper", "wider")}


@pytest.mark.parametrize("strategy", ["self-instruct", "evol"])
def test_without_a_seed_text_nothing_can_be_shown(strategy):
    with pytest.raises(InputError, match="none is by the task's role"):
        prompts_of(SynthesisConfig(strategy=strategy), briefs()[0], [], 4, random.Random(0))


def test_a_reply_that_repeats_a_shown_seed_text_is_turned_down(baseline):
    made = baseline(lambda request: [request.messages[2].content] * request.n, strategy="self-instruct")
    assert {c.reject_reason for c in candidates_of(made.fill_all(briefs()))} == {"copied"}


def test_seed_texts_are_one_line_of_the_tasks_role_bounded_and_each_once():
    long = " ".join(["word"] * 100)
    documents = [
        Document((Message("user", "a  b\nc"), Message("assistant", "no"))),
        Document((Message("assistant", "no"),)),
        Document.from_text("a b c"),
        Document.from_text(long),
        Document.from_text("an explicit text about a minor"),
    ]
    assert shown_texts(documents, "user") == ["a b c", " ".join(["word"] * MAX_SHOWN_WORDS)]


def test_a_text_is_credited_with_every_missing_feature_it_activates_the_strongest_first(baseline):
    made = baseline(["apple ocean bread needle", *["apple bread cloud drum"] * 30])
    results = made.fill_all(briefs())
    [accepted] = [c for c in candidates_of(results) if c.accepted]
    assert accepted.gates["credited"] == [14, 13]
    assert (accepted.feature_id, accepted.act, accepted.gates["verified_act"]) == (14, 4.0, 4.0)
    assert [r.state for r in results] == [FeatureState.EXHAUSTED, FeatureState.FILLED, FeatureState.FILLED]
    assert [len(r.accepted) for r in results] == [0, 0, 1]


def test_strongest_means_relative_to_the_features_own_bar(baseline):
    wanted = [dataclasses.replace(b, act_threshold=t) for b, t in zip(briefs(), (0.5, 2.5, 3.9))]
    made = baseline(["apple ocean bread needle mirror"])
    accepted = next(c for c in candidates_of(made.fill_all(wanted)) if c.accepted)
    assert accepted.gates["credited"] == [12, 13]  # 2 / .525, then 3 / 2.625; ocean's 4 is not above 4.095
    assert accepted.feature_id == 12


def test_what_fires_nothing_missing_belongs_to_no_feature_and_is_kept(baseline):
    found = candidates_of(baseline(["apple bread cloud drum"]).fill_all(briefs()))
    assert {(c.feature_id, c.act, c.peak_token, c.accepted) for c in found} == {(NO_FEATURE, 0.0, -1, False)}
    assert {c.reject_reason for c in found} == {NOTHING_FIRES}
    assert {tuple(c.gates["credited"]) for c in found} == {()}


def test_the_order_of_the_briefs_is_the_order_of_the_results_and_of_what_is_heard(baseline):
    heard = []
    results = baseline().fill_all(briefs((14, 12, 13)), heard.append)
    assert [r.brief.feature_id for r in results] == [14, 12, 13]
    assert heard == results


def test_a_text_is_accepted_only_when_it_fires_alone(baseline, scripted):
    encoder = scripted(act=lambda text: 2.0, alone=lambda text: 0.52)
    found = candidates_of(baseline(encoder=encoder, max_candidates=2).fill_all(briefs((12,))))
    assert [c.reject_reason for c in found] == [NOTHING_FIRES_ALONE] * 4
    assert len(encoder.alone) == 4


def test_the_same_text_is_no_second_sample(baseline):
    found = candidates_of(baseline(["apple bread mirror drum"]).fill_all(briefs()))
    assert [c.reject_reason for c in found].count(None) == 1
    assert {c.reject_reason for c in found} == {None, "duplicate"}


def test_what_a_gate_behind_verification_turns_down_is_not_credited(baseline):
    class NoOcean:
        def __init__(self):
            self.accepted = []

        def check(self, brief, candidate, shown, alone):
            assert candidate.gates["verified_act"] == alone.max_acts[0, brief.feature_id]
            return {"asked": brief.feature_id}, "copied words" if brief.feature_id == 14 else None

        def accept(self, text):
            self.accepted.append(text)

    gate = NoOcean()
    script = ["apple ocean bread needle", "drum ocean eagle flame", *["apple bread cloud drum"] * 30]
    found = candidates_of(baseline(script, after=gate).fill_all(briefs()))
    needle = next(c for c in found if c.text == script[0])
    assert (needle.accepted, needle.feature_id, needle.gates["credited"]) == (True, 13, [13])
    ocean = next(c for c in found if c.text == script[1])
    assert (ocean.accepted, ocean.feature_id, ocean.reject_reason) == (False, NO_FEATURE, "copied words")
    assert gate.accepted == [script[0]]


def test_a_feature_is_filled_by_as_many_samples_as_are_wanted_of_it(baseline):
    script = ["apple ocean bread needle", "drum eagle needle flame", *["apple bread cloud drum"] * 30]
    states = [r.state for r in baseline(script, per_feature=2).fill_all(briefs())]
    assert states == [FeatureState.EXHAUSTED, FeatureState.FILLED, FeatureState.EXHAUSTED]


@pytest.mark.parametrize("strategy", ["plain", "random-feature"])
def test_spent_money_ends_a_baseline_with_what_it_has(baseline, strategy):
    class Paid(FakeLLM):
        def complete(self, requests):
            if self.requests:
                raise BudgetError("The budget of $1 is spent.")
            return super().complete(requests)

    made = baseline(client=Paid(["apple ocean bread needle"]), strategy=strategy)
    results = made.fill_all(briefs())
    assert made.stopped == "The budget of $1 is spent."
    assert {r.state for r in results} <= {FeatureState.BUDGET, FeatureState.FILLED}
    assert FeatureState.BUDGET in {r.state for r in results}
    assert 0 < len(candidates_of(results)) < 18


def test_refusals_and_withheld_texts_are_kept_with_their_reason_and_no_words(baseline):
    class Reluctant(FakeLLM):
        def complete(self, requests):
            refusal = LLMReply("I cannot mirror that", Outcome.REFUSED, 4)
            return [[refusal, *group[1:]] for group in super().complete(requests)]

    made = baseline(client=Reluctant(["an explicit mirror for a minor"]))
    found = candidates_of(made.fill_all(briefs()))
    assert {(c.reject_reason, c.text) for c in found} == {("refused", "I cannot mirror that"), ("withheld", "")}


def test_random_feature_aims_at_its_own_features_and_is_credited_with_missing_ones(baseline):
    def script(request):  # asks for eagle, flame or grape; every second reply holds a missing word too
        word = next(w for w in ("eagle", "flame", "grape") if w in request.messages[-1].content)
        rng = random.Random(request.rng_seed)
        others = [rng.sample(WORDS[7:12], 3) for _ in range(request.n)]
        return [" ".join([*o, word, "needle" if slot % 2 else "island"]) for slot, o in enumerate(others)]

    made = baseline(script, strategy="random-feature")
    results = made.fill_all(briefs())
    asked = [r.messages[-1].content for r in made.engine.client.requests]
    assert {w for w in WORDS for question in asked if w in question} == {"eagle", "flame", "grape"}
    accepted = [c for c in candidates_of(results) if c.accepted]
    assert len(accepted) > 3
    assert {(c.feature_id, tuple(c.gates["credited"]), c.step) for c in accepted} == {(13, (13,), "guided")}
    assert {c.gates["aimed_at"] for c in candidates_of(results)} == {4, 5, 6}
    assert {c.feature_id for c in candidates_of(results) if not c.accepted} == {NO_FEATURE}
    pairs = [c for c in candidates_of(results) if c.step == "pairs"]
    assert len(pairs) == 6
    assert not any(c.accepted for c in pairs)
    assert [r.state for r in results] == [FeatureState.EXHAUSTED, FeatureState.FILLED, FeatureState.EXHAUSTED]


def test_random_features_are_live_not_missing_and_relevant_first():
    live = np.ones(20, bool)
    live[19] = False
    relevant = np.array([0, 1, 2, 3, 12, 13])
    drawn = random_features(relevant, live, [12, 13], 4, 0)
    assert sorted(drawn) == [0, 1, 2, 3]
    more = random_features(relevant, live, [12, 13], 17, 1)
    assert sorted(more[:4]) == [0, 1, 2, 3]
    assert set(more) == set(range(19)) - {12, 13}
    assert random_features(relevant, live, [12, 13], 4, 1) != drawn
    with pytest.raises(InputError, match="Only 17 features are active"):
        random_features(relevant, live, [12, 13], 18, 0)


@pytest.mark.parametrize("strategy", BASELINES)
def test_a_killed_baseline_asks_only_for_what_is_left_and_ends_the_same(baseline, new_ledger, strategy):
    class Killed(FakeLLM):
        left = 1

        def complete(self, requests):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return super().complete(requests)

    whole = baseline(strategy=strategy, ledger=new_ledger())
    expected = whole.fill_all(briefs())
    ledger = new_ledger()
    with pytest.raises(KeyboardInterrupt):
        baseline(strategy=strategy, client=Killed(varied), ledger=ledger).fill_all(briefs())
    n_kept = sum(map(len, ledger.batches.values()))
    again = baseline(strategy=strategy, ledger=ledger)
    assert again.fill_all(briefs()) == expected
    assert n_kept > 0
    assert sum(r.n for r in client_of(again).requests) == 18 - n_kept
    nothing = baseline(strategy=strategy, ledger=ledger)
    assert nothing.fill_all(briefs()) == expected
    assert client_of(nothing).requests == []


@pytest.mark.parametrize("strategy", BASELINES)
def test_the_templates_of_a_baseline_name_the_run(strategy):
    assert all(template_text(name) for name in baseline_templates(strategy))
