"""What writing is asked to do: strategies in words, the command and its settings, what it takes, and paid writers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest

from facviz.cli.parser import build_parser
from facviz.config import SynthesisConfig, from_mapping
from facviz.errors import InputError
from facviz.synthesis.steered import PUSHED, steered
from facviz.synthesis.strategies import STRATEGIES as STEPS
from facviz.views.coverage import coverage_runs
from facviz.views.plan import (
    BASELINES,
    ORDERS,
    STRATEGIES,
    TARGETED,
    Plan,
    Writing,
    measure_of,
    pace_of,
    planned_arguments,
    projection,
)


@pytest.fixture
def run(database):
    [found] = coverage_runs(database, [])
    return found


def test_every_strategy_and_order_of_the_settings_is_offered_once_with_a_sentence():
    hints = get_type_hints(SynthesisConfig)
    assert set(STRATEGIES) == set(get_args(hints["strategy"]))
    assert set(ORDERS) == set(get_args(hints["order"]))
    assert set(TARGETED) | set(BASELINES) == set(STRATEGIES)
    assert not set(TARGETED) & set(BASELINES)
    assert TARGETED[0] == SynthesisConfig().strategy
    assert all(s.sentence.endswith(".") and s.sentence.count(".") == 1 for s in STRATEGIES.values())


def test_the_command_asks_for_the_same_measurement_and_the_chosen_features(run):
    plan = Plan(per_feature=2, max_candidates=40, temperature=0.7, top_p=0.95)
    parsed = build_parser().parse_args(planned_arguments(run, [14, 12], plan))
    assert (parsed.command, parsed.features, parsed.per_feature) == ("synthesize", [14, 12], 2)
    assert (parsed.max_candidates, parsed.temperature, parsed.top_p) == (40, 0.7, 0.95)
    assert (parsed.threshold, parsed.kind, parsed.anchor, parsed.seed) == (0.5, "absolute", "anchor", "seed")
    assert parsed.n_bootstrap == 200
    with pytest.raises(InputError, match="choose at least one"):
        planned_arguments(run, [], Plan())


def test_only_what_differs_from_the_usual_is_said(run):
    assert planned_arguments(run, [12], Plan())[-2:] == ["--features", "12"]
    assert Plan().settings == {}


def test_every_setting_reaches_the_command_line(run):
    plan = Plan(
        strategy="one-step", per_feature=3, max_candidates=8, passes=2, order="gain", temperature=1.0, top_p=0.8,
        axes=False, anti_copy=False, provider="anthropic", model="some-model", judge_provider="openai",
        judge_model="another", budget_usd=2.5, concurrency=8,
    )  # fmt: skip
    parsed = vars(build_parser().parse_args(planned_arguments(run, [12], plan)))
    told = {name: parsed[name] for name in plan.settings if name not in ("axes", "anti_copy")}
    assert told == {name: plan.settings[name] for name in told}
    assert len(told) == len(plan.settings) - 2
    assert parsed["no_axes"]
    assert parsed["no_anti_copy"]
    steered = Plan(strategy="steered", max_kl=1.5)
    parsed = vars(build_parser().parse_args(planned_arguments(run, [12], steered)))
    assert (parsed["strategy"], parsed["max_kl"]) == ("steered", 1.5)


def test_the_settings_of_a_job_are_those_of_its_command(run):
    wish = Writing(run["coverage_id"], run["seed"], (14, 12), Plan(strategy="one-step", passes=2), ())
    config = from_mapping(SynthesisConfig, wish.settings, where="a test")
    assert (config.strategy, config.passes, config.features) == ("one-step", 2, (14, 12))
    assert measure_of(run)["threshold"] == run["act_threshold"]
    assert wish.title == "Write texts for 2 missing features of seed, one step"


def test_a_push_needs_the_local_model(run):
    plan = Plan(strategy="paper+steered", provider="anthropic")
    with pytest.raises(InputError, match="Only the local model can write in this way"):
        planned_arguments(run, [12], plan)
    assert Plan(strategy="paper+steered").problem == ""


def test_a_paid_writer_or_judge_makes_it_paid():
    assert not Plan().is_paid
    assert not Plan(judge_provider="local").is_paid
    assert Plan(provider="openai").is_paid
    assert Plan(judge_provider="anthropic").is_paid


def test_the_projection_knows_time_only_from_a_run_on_this_machine():
    job = SimpleNamespace(arguments=("synthesize",), result={"n_candidates": 100}, started_at=1000.0, ended_at=1050.0)
    other = SimpleNamespace(arguments=("coverage",), result={"fac": 1}, started_at=0.0, ended_at=9.0)
    running = SimpleNamespace(arguments=("synthesize",), result=None, started_at=0.0, ended_at=None)
    assert pace_of([other, running]) is None
    assert pace_of([running, other, job]) == 0.5
    assert "time unknown" in projection(3, Plan(), None)
    assert projection(2, Plan(max_candidates=84), 0.6) == (
        "At most 200 candidates for 2 features · 2 min 00 s at most at the pace of the last run"
    )
    assert projection(1, Plan(max_candidates=84, passes=2), None).startswith("At most 184 candidates for 1 feature")
    assert Plan(strategy="plain", max_candidates=84, passes=2).most_candidates == 100  # a baseline knows no passes


@pytest.mark.parametrize("strategy", ["paper", "one-step", "steered", "paper+steered"])
def test_a_feature_takes_as_many_candidates_as_its_steps_plan(strategy):
    plan = Plan(strategy=strategy, max_candidates=40)
    config = SynthesisConfig(strategy=strategy, max_candidates=40)
    base = STEPS["paper" if strategy == "paper" else "one-step"](config)
    planned = steered(config) if strategy in PUSHED else base
    assert plan.most_candidates == sum(step.n_candidates for step in planned.steps(config))
