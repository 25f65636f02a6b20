"""What writing may be asked to do from the page: strategies in plain words, the settings, the command, and its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from facviz.config import SynthesisConfig
from facviz.errors import InputError
from facviz.llm.providers import PAID_PROVIDERS
from facviz.synthesis.steered import PER_STRENGTH, PUSHED, STRENGTHS
from facviz.views.coverage import flags_of_run
from facviz.views.format import count, count_of, duration

Run = Mapping[str, Any]

USUAL = SynthesisConfig()


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way of writing, in one plain sentence; a baseline does not know which feature is missing."""

    label: str
    sentence: str
    is_baseline: bool = False
    is_local: bool = False  # pushes the model, or gives it half a turn, which only a local one allows


STRATEGIES: Mapping[str, Strategy] = {
    "paper": Strategy(
        "Contrast, then guide",
        "Finds a text on which the feature fires strongly and one on which it hardly does, then asks for more like the "
        "first and unlike the second.",
    ),
    "one-step": Strategy(
        "One step", "Asks for texts straight from the explanation and its evidence, without a contrast."
    ),
    "steered": Strategy(
        "Steered",
        "Pushes the local model along the feature’s own direction while it writes; each text is verified without "
        "the push.",
        is_local=True,
    ),
    "paper+steered": Strategy(
        "Contrast and steering",
        "Guides by contrast and pushes the local model as well; each text is verified without the push.",
        is_local=True,
    ),
    "plain": Strategy("Plain", "Asks for texts of the task and nothing else.", is_baseline=True),
    "self-instruct": Strategy(
        "Self-Instruct", "Shows a few texts of the seed set and asks for different ones.", is_baseline=True
    ),
    "magpie": Strategy(
        "Magpie", "Gives the model only the start of a user’s turn and lets it go on.", is_baseline=True
    ),
    "evol": Strategy("Evol", "Rewrites texts of the seed set, deeper or wider each time.", is_baseline=True),
    "random-feature": Strategy(
        "Random feature", "Writes as the first strategy does, for features that nothing misses.", is_baseline=True
    ),
}
TARGETED = tuple(name for name, s in STRATEGIES.items() if not s.is_baseline)
BASELINES = tuple(name for name, s in STRATEGIES.items() if s.is_baseline)
ORDERS = {"relevance": "Most relevant first", "gain": "Most gain per candidate first"}
WRITERS = {
    "local": "the local model",
    "anthropic": "Claude",
    "openai": "an OpenAI-compatible server",
}
"""Provider → who that is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a person may turn before starting; every field is one of `SynthesisConfig`, the rest keeps its default."""

    strategy: str = USUAL.strategy
    per_feature: int = USUAL.per_feature
    max_candidates: int = USUAL.max_candidates
    passes: int = USUAL.passes
    order: str = USUAL.order
    temperature: float = USUAL.temperature
    top_p: float = USUAL.top_p
    axes: bool = USUAL.axes
    anti_copy: bool = USUAL.anti_copy
    max_kl: float = USUAL.max_kl
    provider: str = USUAL.provider
    model: str = ""
    judge_provider: str = USUAL.judge_provider
    judge_model: str = ""
    budget_usd: float | None = None
    concurrency: int = USUAL.concurrency

    @property
    def is_paid(self) -> bool:
        """Whether it costs money: then a dry run comes first."""
        return bool({self.provider, self.judge_provider} & set(PAID_PROVIDERS))

    @property
    def problem(self) -> str:
        """Why it cannot be started as it is; "" when it can."""
        if STRATEGIES[self.strategy].is_local and self.provider != "local":
            return "Only the local model can write in this way; choose it, or another strategy."
        return ""

    @property
    def most_candidates(self) -> int:
        """Candidates of one feature at most: step 1 and what tunes a push, and step 2 once a pass."""
        n_tuning = len(STRENGTHS) * PER_STRENGTH if self.strategy in PUSHED else 0
        n_first = 0 if self.strategy == "steered" else USUAL.pair_candidates
        return n_first + n_tuning + self.max_candidates * (1 if STRATEGIES[self.strategy].is_baseline else self.passes)

    @property
    def settings(self) -> dict[str, Any]:
        """Fields that differ from what synthesis does by itself."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in own.items() if value not in ("", getattr(USUAL, name))}


def planned_arguments(run: Run, features: Sequence[int], plan: Plan) -> list[str]:
    """The command that writes texts for these features of a stored run; only what differs from the usual is said.

    Raises:
        InputError: no feature is chosen, or the settings do not go together.
    """
    if not features:
        raise InputError("No feature is chosen; choose at least one missing feature.")
    if plan.problem:
        raise InputError(plan.problem)
    flags = [part for name, value in plan.settings.items() for part in _flag(name, value)]
    return ["synthesize", *flags_of_run(run), "--features", ",".join(map(str, features)), *flags]


def _flag(name: str, value: Any) -> tuple[str, ...]:
    flag = name.replace("_", "-")
    if value is False:
        return (f"--no-{flag}",)
    return f"--{flag}", repr(value) if isinstance(value, float) else str(value)


def measure_of(run: Run) -> dict[str, Any]:
    """Fields of `CoverageConfig` by which a stored run was measured."""
    named = {name: run[name] for name in ("anchor", "seed", "level")}
    how = {"kind": run["threshold_kind"], "threshold": run["act_threshold"]}
    return {**named, **how, **run["details"].get("config", {})}


def projection(n_features: int, plan: Plan, seconds_per_candidate: float | None) -> str:
    """What starting takes at most, in one line."""
    most = n_features * plan.most_candidates
    if plan.provider != "local":
        time = "time depends on the provider"
    elif seconds_per_candidate is None:
        time = "time unknown until one run has finished here"
    else:
        time = f"{duration(most * seconds_per_candidate)} at most at the pace of the last run"
    return f"At most {count(most)} candidates for {count_of(n_features, 'feature')} · {time}"


def pace_of(jobs: Sequence[Any]) -> float | None:
    """Seconds a candidate took in the newest finished synthesis that was started here; None when there is none."""
    for job in jobs:
        done = job.arguments[:1] == ("synthesize",) and job.result and job.started_at and job.ended_at
        if done and job.result.get("n_candidates"):
            return float((job.ended_at - job.started_at) / job.result["n_candidates"])
    return None


@dataclass(frozen=True, slots=True)
class Writing:
    """A synthesis as asked for on the page: what the form that shows costs and starts jobs needs to know."""

    run_id: str
    seed: str
    features: tuple[int, ...]
    plan: Plan
    arguments: tuple[str, ...]

    @property
    def asks_model(self) -> bool:
        """Whether a dry run has anything to say that the projection does not."""
        return self.plan.is_paid

    @property
    def is_paid(self) -> bool:
        """Whether it costs money: then a dry run comes first."""
        return self.plan.is_paid

    @property
    def budget_usd(self) -> float | None:
        """The most it may cost."""
        return self.plan.budget_usd

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of `SynthesisConfig` that differ from its defaults."""
        return {**self.plan.settings, "features": self.features}

    @property
    def title(self) -> str:
        """What the job is called."""
        strategy = "" if self.plan.strategy == USUAL.strategy else f", {STRATEGIES[self.plan.strategy].label.lower()}"
        return f"Write texts for {count_of(len(self.features), 'missing feature')} of {self.seed}{strategy}"
