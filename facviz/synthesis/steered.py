"""`steered` and `paper+steered`: the model writes under a push along the feature's direction, of a tuned strength.

The strength is chosen for each feature on candidates of their own, which are never accepted, and a text is pushed only
until the feature has fired in it: pushed to the end, the model repeats itself. Everything is measured and
verified without any push: a push helps to find a text, and is no part of what the text is worth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from facviz.config import SynthesisConfig
from facviz.records import Candidate, ContrastivePair, Message, SteeringVector
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.strategies import TUNE, TUNED, OneStep, Paired, Prompted, Step, Strategy, Turn

STRENGTHS = (0.0, 0.5, 1.0, 1.5)
"""Lengths of a push that are tried, in units of the feature's usual activation; in a small trial on the demo's SAE a
quarter did no more than nothing, and twice no more than 1.5. No push is one of them: on known
gaps of news and reviews, texts written without one came nearer to the bar on average than under any of the others."""
PER_STRENGTH = 4
"""Candidates that each strength is judged by."""
TUNING = (STRENGTHS, PER_STRENGTH, "until the feature fires")
"""Another way to tune is another synthesis run."""
PUSHED = ("steered", "paper+steered")
"""Strategies that need the model itself."""


class Steerer(Protocol):
    """Directions of features in the model that writes, and what pushing along them does to it."""

    def push(self, feature_id: int, strength: float, bar: float) -> SteeringVector:
        """`strength` times what the SAE writes for the feature's usual activation, until that exceeds the bar."""

    def divergence(self, messages: Sequence[Message], steering: SteeringVector, texts: Sequence[str]) -> float:
        """Nats a token by which the push moves the predictions that write `texts` after `messages`, on average."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What one strength did to its candidates, measured without the push."""

    strength: float
    share: float
    """Candidates that passed the text gates with the target above the bar."""
    nearness: float
    """Mean of their activation in units of the bar, 1 at most."""
    kl: float
    """Nats a token by which the push moved the predictions."""


def choose(trials: Sequence[Trial], max_kl: float) -> Trial:
    """The best share within the limit, then what comes nearest, then the gentlest; where none is within, the gentlest.

    Few candidates often tie, most of all at a share of zero, where the gentlest push would be the one that did least.
    """
    within = [trial for trial in trials if trial.kl <= max_kl]
    if not within:
        return min(trials, key=lambda t: t.kl)
    return max(within, key=lambda t: (t.share, t.nearness, -t.kl))


@dataclass(frozen=True, slots=True)
class Steered:
    """Another strategy whose samples are written under a push; its own earlier steps stay as they are."""

    name: str
    base: Strategy
    config: SynthesisConfig
    steerer: Steerer | None = None
    """None plans a run and asks nothing: then no prompt carries a push."""
    _chosen: dict[int, tuple[Trial, tuple[Trial, ...]]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def templates(self) -> tuple[str, ...]:
        """Those of the strategy it pushes."""
        return self.base.templates

    def steps(self, config: SynthesisConfig) -> tuple[Step, ...]:
        """The strength is tuned right before the candidates that count."""
        *before, last = self.base.steps(config)
        return *before, Step(TUNE, len(STRENGTHS) * PER_STRENGTH, TUNED), Step(last.name, config.max_candidates)

    def prompts(self, brief: FeatureBrief, turn: Turn) -> Sequence[Prompted]:
        """What the base asks, under every strength while tuning and under the chosen one after."""
        if turn.step == TUNE:
            return [
                self._pushed(prompted, brief, strength, {})
                for strength, n in _strengths(turn.number * self.config.batch, turn.size)
                for prompted in self._sample_prompts(brief, n, turn.tried)
            ]
        asked = self.base.prompts(brief, turn)
        if turn.step != self._last or self.steerer is None:
            return asked
        chosen, trials = self._choice(self.steerer, brief, turn.tried)
        notes = {"kl": chosen.kl, "tuning": [dataclasses.asdict(trial) for trial in trials]}
        return [self._pushed(prompted, brief, chosen.strength, notes) for prompted in asked]

    def pair(self, brief: FeatureBrief, tried: Sequence[Candidate]) -> ContrastivePair | None:
        """That of the base."""
        return self.base.pair(brief, tried)

    @property
    def _last(self) -> str:
        return self.base.steps(self.config)[-1].name

    def _sample_prompts(self, brief: FeatureBrief, n: int, tried: Sequence[Candidate]) -> Sequence[Prompted]:
        return self.base.prompts(brief, Turn(self._last, 0, n, tried))

    def _pushed(self, prompted: Prompted, brief: FeatureBrief, strength: float, notes: Mapping[str, Any]) -> Prompted:
        steering = self.steerer.push(brief.feature_id, strength, brief.bar) if self.steerer else None
        return dataclasses.replace(prompted, steering=steering, notes={**prompted.notes, **notes})

    def _choice(
        self, steerer: Steerer, brief: FeatureBrief, tried: Sequence[Candidate]
    ) -> tuple[Trial, tuple[Trial, ...]]:
        """Made once a feature: what it rests on does not change after the tuning step."""
        if brief.feature_id not in self._chosen:
            messages = self._sample_prompts(brief, 1, tried)[0].messages
            trials = tuple(_trial(steerer, brief, s, messages, of) for s, of in _by_strength(tried).items())
            self._chosen[brief.feature_id] = choose(trials, self.config.max_kl), trials
        return self._chosen[brief.feature_id]


def _trial(
    steerer: Steerer, brief: FeatureBrief, strength: float, messages: Sequence[Message], candidates: Sequence[Candidate]
) -> Trial:
    acts = [c.act if c.reject_reason == TUNED else 0.0 for c in candidates]
    nearness = [min(act / brief.bar, 1.0) if brief.bar > 0 else float(act > 0) for act in acts]
    kl = steerer.divergence(messages, steerer.push(brief.feature_id, strength, brief.bar), [c.text for c in candidates])
    share = sum(act > brief.bar for act in acts) / len(acts)
    return Trial(strength, share, sum(nearness) / len(acts), kl)


def _strengths(start: int, size: int) -> list[tuple[float, int]]:
    """Which strengths the tuning candidates `start` … `start + size` are drawn with, and how many of each."""
    strengths = [STRENGTHS[slot // PER_STRENGTH] for slot in range(start, start + size)]
    return [(strength, strengths.count(strength)) for strength in dict.fromkeys(strengths)]


def _by_strength(tried: Sequence[Candidate]) -> dict[float, list[Candidate]]:
    found: dict[float, list[Candidate]] = {}
    for candidate in tried:
        if candidate.step == TUNE:
            found.setdefault(candidate.gates["strength"], []).append(candidate)
    return found


def steered(config: SynthesisConfig, steerer: Steerer | None = None) -> Steered:
    """`steered` or `paper+steered`, as the config names it."""
    # A push needs the spans beside it: with the words alone 1 of 24 candidates passed, with neither none of 48.
    base: Strategy = Paired(config.min_margin) if config.strategy == "paper+steered" else OneStep()
    return Steered(config.strategy, base, config, steerer)
