"""Targeted strategies: which steps a feature goes through, and what is asked in each batch of a step.

A strategy is one small object without state: what it asks follows from the brief and from what was tried before, so
a killed run asks the same again. The engine numbers the batches, turns `Prompted` into requests with seeds (and prompt
axes), measures the replies without any steering, verifies, and keeps the books.

How to add one that pushes the model: give it a first step such as

    Step("tune", n_candidates, not_a_sample=TUNED)

whose candidates are measured and kept but never accepted; in `prompts` of that step return one `Prompted` a strength,
each with its `steering` and whatever else should stand in the candidates' gates under `notes`. In the later steps
choose the strength from `turn.tried` (those with `c.step == "tune"`, their `act`, `reject_reason` and `gates`) and put
it on every `Prompted`. `Paired` does the rest: wrap its prompts with `dataclasses.replace(prompted, steering=…)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from facviz.config import SynthesisConfig
from facviz.records import Candidate, ContrastivePair, Message, PairState, SteeringVector
from facviz.synthesis.axes import AXES, AXES_OF_FORMS
from facviz.synthesis.framing import Framed, framed
from facviz.synthesis.guided import CONTRAST_TEMPLATE, EVIDENCE_TEMPLATE, GUIDED_TEMPLATE, evidence_of, guided_messages
from facviz.synthesis.pairs import REQUEST_TEMPLATE, STEP_ONE, SYSTEM_TEMPLATE, make_pair, pair_messages
from facviz.synthesis.plan import FeatureBrief

PAIRS, GUIDED, ONE_STEP, TUNE = "pairs", "guided", "one-step", "tune"
TUNED = "tuning"
"""Why a candidate that passed the text gates is no sample: it only served the choice of a strength."""


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of numbered batches of one feature."""

    name: str
    n_candidates: int
    not_a_sample: str | None = None
    """Reason given to every candidate of the step that passes the text gates; None: they may be accepted."""

    @property
    def is_accepting(self) -> bool:
        """Whether its candidates are verified and may become samples."""
        return self.not_a_sample is None


@dataclass(frozen=True, slots=True)
class Prompted:
    """One conversation and how many replies to it are wanted."""

    messages: tuple[Message, ...]
    n: int
    prompt: str
    """Template and version of its last turn, for the record."""
    shown: tuple[str, ...] = ()
    """Texts that stand in it, which a reply must not copy."""
    steering: SteeringVector | None = None
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 0
    """Fewest tokens that leave room for a whole sample; a larger setting holds."""
    axes: tuple[str, ...] = tuple(AXES)
    """Prompt axes that may vary it."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Kept in the gates of every candidate that comes of it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The batch that is due: where it stands in its step, and what was tried for the feature before it."""

    step: str
    number: int
    size: int
    tried: Sequence[Candidate] = ()


class Strategy(Protocol):
    """What one targeted strategy does with a feature; holds no state of a run."""

    @property
    def name(self) -> str:
        """As in the config and in every candidate."""

    @property
    def templates(self) -> tuple[str, ...]:
        """Every prompt it uses: a changed text is another synthesis run."""

    def steps(self, config: SynthesisConfig) -> tuple[Step, ...]:
        """In order; the last is the accepting one, which later passes repeat."""

    def prompts(self, brief: FeatureBrief, turn: Turn) -> Sequence[Prompted]:
        """What a batch asks, `turn.size` replies in all."""

    def pair(self, brief: FeatureBrief, tried: Sequence[Candidate]) -> ContrastivePair | None:
        """The contrastive pair that came of the step that makes it; None for a strategy without one."""


@dataclass(frozen=True, slots=True)
class Paired:
    """`paper`: a contrastive pair among step-1 candidates, then candidates guided by it (Algorithm 2)."""

    min_margin: float
    has_schema: bool = False
    """Whether the writer can be held to a JSON schema."""
    name: str = "paper"

    @property
    def templates(self) -> tuple[str, ...]:
        """Both steps and the evidence that stands in for a pair."""
        return SYSTEM_TEMPLATE, REQUEST_TEMPLATE, CONTRAST_TEMPLATE, GUIDED_TEMPLATE, EVIDENCE_TEMPLATE

    def steps(self, config: SynthesisConfig) -> tuple[Step, ...]:
        """Pairs, then guided."""
        return Step(PAIRS, config.pair_candidates, STEP_ONE), Step(GUIDED, config.max_candidates)

    def prompts(self, brief: FeatureBrief, turn: Turn) -> Sequence[Prompted]:
        """One conversation a batch."""
        if turn.step == PAIRS:
            return [step_one(brief, turn.size, has_schema=self.has_schema)]
        pair = self.pair(brief, turn.tried)
        by_id = {c.candidate_id: c for c in turn.tried}
        strong, weak = by_id.get(pair.strong_id or ""), by_id.get(pair.weak_id or "")
        is_paired = pair.state is PairState.PAIRED
        notes = {} if is_paired else {"evidence": {"pair": str(pair.state), **evidence_of(brief)}}
        sides = (strong, weak) if strong and weak else None
        frame = framed(brief, sides, has_schema=self.has_schema, is_guided=True)
        if frame is not None:
            return [_in_frame(brief, frame, turn.size, notes)]
        guided = guided_messages(brief, strong, weak)
        return [Prompted(guided.messages, turn.size, guided.prompt, guided.shown, notes=notes)]

    def pair(self, brief: FeatureBrief, tried: Sequence[Candidate]) -> ContrastivePair:
        """Highest and lowest of step 1."""
        return make_pair(brief, [c for c in tried if c.step == PAIRS], self.min_margin)


@dataclass(frozen=True, slots=True)
class OneStep:
    """`one-step`: the step-1 prompt alone, its candidates accepted straight from it, as many as `paper` draws."""

    has_schema: bool = False
    """Whether the writer can be held to a JSON schema."""
    name: str = "one-step"

    @property
    def templates(self) -> tuple[str, ...]:
        """Those of step 1."""
        return SYSTEM_TEMPLATE, REQUEST_TEMPLATE

    def steps(self, config: SynthesisConfig) -> tuple[Step, ...]:
        """One, with the candidates of both steps."""
        return (Step(ONE_STEP, config.pair_candidates + config.max_candidates),)

    def prompts(self, brief: FeatureBrief, turn: Turn) -> Sequence[Prompted]:
        """The same conversation in every batch."""
        return [step_one(brief, turn.size, has_schema=self.has_schema)]

    def pair(self, brief: FeatureBrief, tried: Sequence[Candidate]) -> None:
        """None is made."""


def takes_schema(config: SynthesisConfig) -> bool:
    """Whether the writer of this run is held to a JSON schema; the local model follows none."""
    return config.provider != "local"


def step_one(brief: FeatureBrief, n: int, *, has_schema: bool) -> Prompted:
    """The first request for samples of a feature, in the format of its task."""
    frame = framed(brief, has_schema=has_schema)
    if frame is not None:
        return _in_frame(brief, frame, n, {})
    messages, shown = pair_messages(brief)
    return Prompted(messages, n, REQUEST_TEMPLATE, tuple(shown))


def _in_frame(brief: FeatureBrief, frame: Framed, n: int, notes: Mapping[str, Any]) -> Prompted:
    """A conversation that says the form of the task's samples."""
    return Prompted(
        frame.messages,
        n,
        frame.prompt,
        frame.shown,
        schema=frame.schema,
        max_tokens=frame.max_tokens,
        axes=AXES_OF_FORMS if brief.format.labels else tuple(AXES),
        notes=notes,
    )


STRATEGIES: Mapping[str, Callable[[SynthesisConfig], Strategy]] = {
    "paper": lambda config: Paired(config.min_margin, has_schema=takes_schema(config)),
    "one-step": lambda config: OneStep(has_schema=takes_schema(config)),
}
"""Strategies that need nothing but the settings; those that push the model are made where the model is."""
