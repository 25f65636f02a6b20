"""Pushed strategies: a strength tuned on candidates of their own, and samples that stand without it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from facviz.config import SynthesisConfig
from facviz.records import SteeringVector
from facviz.synthesis.asking import planned_batches
from facviz.synthesis.results import FeatureState
from facviz.synthesis.steered import PER_STRENGTH, STRENGTHS, Trial, choose, steered
from facviz.synthesis.strategies import TUNE, TUNED, Turn

N_TUNING = len(STRENGTHS) * PER_STRENGTH


class Steerer:
    """Pushes along axis 0; moves predictions by a nat for each unit of strength."""

    def __init__(self):
        self.measured = []

    def push(self, feature_id, strength, bar):
        return SteeringVector(1, np.array([strength, 0.0], np.float32), strength)

    def divergence(self, messages, steering, texts):
        self.measured.append((steering.strength, tuple(texts), tuple(messages)))
        return steering.strength


@pytest.fixture
def steerer():
    return Steerer()


def pushed_by(steerer, engine, strategy="steered"):
    engine.config = dataclasses.replace(engine.config, strategy=strategy)
    engine.strategy = steered(engine.config, steerer)
    return engine


@pytest.fixture
def push(synthesis, text, steerer):
    """A synthesis whose model fires the target from a strength on; without a push in one pair candidate alone."""

    def build(strategy="steered", fires_from=STRENGTHS[1], **settings):
        written = iter(range(100_000))

        def script(request):
            pushed = request.steering is not None and request.steering.strength >= fires_from
            first = request.steering is None
            return [text(pushed or (first and slot == 0), next(written)) for slot in range(request.n)]

        return pushed_by(steerer, synthesis(script, **settings), strategy)

    return build


def strengths_of(requests):
    return [request.steering and request.steering.strength for request in requests]


def trial(strength, share=0.0, nearness=0.0, kl=None):
    return Trial(strength, share, nearness, strength if kl is None else kl)


@pytest.mark.parametrize(
    ("trials", "max_kl", "strength"),
    [
        ([trial(1, 0.5), trial(2, 0.75), trial(4, 1.0)], 3.0, 2),  # the best lies beyond the limit
        ([trial(1, 0.5), trial(2, 0.5), trial(4, 0.25)], 9.0, 1),  # of equals the gentler
        ([trial(1, 0.0, 0.2), trial(2, 0.0, 0.6), trial(4, 0.0, 0.5)], 9.0, 2),  # none passes: what comes nearest
        ([trial(1, 1.0, kl=8.0), trial(2, 1.0, kl=7.0), trial(4, 1.0, kl=9.0)], 3.0, 2),  # all beyond: the gentlest
        ([trial(1, 0.5), trial(2, 1.0, kl=3.0)], 3.0, 2),  # the limit itself is allowed
    ],
)
def test_the_strength_is_the_best_within_the_limit(trials, max_kl, strength):
    assert choose(trials, max_kl).strength == strength
    assert choose(trials[::-1], max_kl).strength == strength


def test_tuning_draws_a_few_candidates_with_each_strength_and_accepts_none(push, brief):
    engine = push(batch=N_TUNING, max_candidates=N_TUNING)
    result = engine.fill(brief)
    tuning = [c for c in result.candidates if c.step == TUNE]
    assert [c.gates["strength"] for c in tuning] == [s for s in STRENGTHS for _ in range(PER_STRENGTH)]
    assert {c.reject_reason for c in tuning} == {TUNED}
    assert any(c.act > brief.bar for c in tuning)
    assert len({c.rng_seed for c in tuning}) == len(STRENGTHS)
    assert not any(c.accepted for c in tuning)
    assert result.state is FeatureState.FILLED


def test_samples_are_written_under_the_gentlest_strength_that_works_and_say_so(push, brief):
    engine = push(fires_from=STRENGTHS[1], max_kl=STRENGTHS[-1])
    result = engine.fill(brief)
    [sample] = result.accepted
    assert sample.gates["strength"] == sample.gates["kl"] == STRENGTHS[1]
    assert sample.gates["layer"] == 1
    assert [(t["strength"], t["share"]) for t in sample.gates["tuning"]] == [
        (s, float(s >= STRENGTHS[1])) for s in STRENGTHS
    ]
    assert strengths_of(engine.client.requests)[-1] == STRENGTHS[1]


def test_where_every_push_does_harm_samples_are_written_without_one(brief, text, synthesis, steerer):
    written = iter(range(1000))

    def script(request):
        return [text(not request.steering.strength, next(written)) for _ in range(request.n)]

    [sample] = pushed_by(steerer, synthesis(script)).fill(brief).accepted
    assert sample.gates["strength"] == sample.gates["kl"] == 0.0


def test_no_strength_beyond_the_limit_writes_samples(push, brief):
    engine = push(fires_from=STRENGTHS[-1], max_kl=STRENGTHS[-2])
    result = engine.fill(brief)
    assert result.state is FeatureState.EXHAUSTED
    accepting = [c for c in result.candidates if c.step != TUNE]
    assert len(accepting) == engine.config.max_candidates
    assert {c.gates["kl"] for c in accepting} <= set(STRENGTHS[:-1])
    wider = push(fires_from=STRENGTHS[-1], max_kl=STRENGTHS[-1], synth_id="wider")
    assert wider.fill(brief).state is FeatureState.FILLED


def test_verification_knows_nothing_of_the_push(push, brief):
    engine = push()
    [sample] = engine.fill(brief).accepted
    assert engine.encoder.alone == [brief.document(sample.text)]
    assert sample.act == sample.gates["verified_act"] == 2.0


def test_a_text_that_fails_a_text_gate_does_not_speak_for_its_strength(push, brief, text, synthesis, steerer):
    strong = STRENGTHS[-1]
    written = iter(range(1000))

    def script(request):
        if request.steering.strength == strong:
            return ["mirror mirror mirror mirror mirror mirror mirror"] * request.n
        return [text(request.steering.strength == STRENGTHS[1], next(written)) for _ in range(request.n)]

    engine = pushed_by(steerer, synthesis(script, max_kl=100.0))
    [sample] = engine.fill(brief).accepted
    assert sample.gates["strength"] == STRENGTHS[1]
    assert [t["share"] for t in sample.gates["tuning"]][-1] == 0.0


def test_paper_steered_makes_its_pair_unpushed_and_pushes_what_the_pair_guides(push, brief, steerer):
    engine = push("paper+steered", batch=4, pair_candidates=4)
    result = engine.fill(brief)
    steps = list(dict.fromkeys(c.step for c in result.candidates))
    assert steps == ["pairs", TUNE, "guided"]
    assert result.pair.strong_id is not None
    assert {"strength" in c.gates for c in result.candidates if c.step == "pairs"} == {False}
    strong = next(c.text for c in result.candidates if c.candidate_id == result.pair.strong_id)
    pushed = [r for r in engine.client.requests if r.steering is not None]
    assert len(pushed) == len(engine.client.requests) - 1
    assert all(strong in [m.content for m in r.messages] for r in pushed)
    assert all(messages == pushed[0].messages for _, _, messages in steerer.measured)


@pytest.mark.parametrize("batch", [1, 3, PER_STRENGTH, N_TUNING, 100])
def test_every_strength_gets_its_candidates_whatever_the_batch(brief, steerer, batch):
    config = SynthesisConfig(strategy="steered", batch=batch, max_candidates=2)
    strategy = steered(config, steerer)
    drawn = []
    for planned in planned_batches(strategy, config, 0):
        if planned.step.name == TUNE:
            prompts = strategy.prompts(brief, Turn(TUNE, planned.number, planned.size))
            assert sum(p.n for p in prompts) == planned.size
            drawn += [p.steering.strength for p in prompts for _ in range(p.n)]
    assert drawn == [s for s in STRENGTHS for _ in range(PER_STRENGTH)]


def test_a_second_attempt_recalls_the_tuning_and_chooses_the_same(push, brief, ledger):
    first = push(fires_from=STRENGTHS[2], max_kl=9.0).fill(brief)
    again = push(fires_from=0.0, max_kl=9.0)
    assert again.fill(brief).candidates == first.candidates
    assert again.client.requests == []
    place = next(p for p in ledger.batches if p.step != TUNE)
    del ledger.batches[place]
    [sample] = again.fill(brief).accepted
    assert sample.gates["strength"] == STRENGTHS[2]


def test_the_strength_is_measured_once_a_feature(push, brief, steerer):
    engine = push(fires_from=100.0, max_candidates=12, batch=4)
    engine.fill(brief)
    assert [strength for strength, _, _ in steerer.measured] == list(STRENGTHS)
    assert all(len(texts) == PER_STRENGTH for _, texts, _ in steerer.measured)


def test_a_plan_without_a_model_asks_as_much_and_pushes_nothing(brief, steerer):
    config = SynthesisConfig(strategy="paper+steered", pair_candidates=4, max_candidates=8, batch=4)
    plan, real = steered(config), steered(config, steerer)
    assert plan.steps(config) == real.steps(config)
    assert plan.templates == real.templates
    for planned in planned_batches(plan, config, 0):
        prompts = plan.prompts(brief, Turn(planned.step.name, planned.number, planned.size))
        assert sum(p.n for p in prompts) == planned.size
        assert all(p.steering is None for p in prompts)


def test_both_strategies_draw_as_many_that_count_as_the_settings_say(brief):
    for name in ("steered", "paper+steered"):
        config = SynthesisConfig(strategy=name, max_candidates=8)
        assert steered(config).steps(config)[-1].n_candidates == 8
    assert dataclasses.asdict(trial(1.0, 0.5, 0.75, 0.2)) == {
        "strength": 1.0, "share": 0.5, "nearness": 0.75, "kl": 0.2
    }  # fmt: skip
