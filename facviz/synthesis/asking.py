"""From a batch's place in the plan to the requests that are sent for it: prompts, prompt axes and seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from facviz.config import SynthesisConfig
from facviz.records import Candidate, LLMRequest
from facviz.synthesis.axes import AXES_TEMPLATE, UNSAID, AxisCounts, Drawn, draw_axes, with_axes
from facviz.synthesis.order import batch_sizes
from facviz.synthesis.plan import BatchPlace, FeatureBrief
from facviz.synthesis.strategies import PAIRS, TUNE, Prompted, Step, Strategy, Turn

ASKING_VERSION = 7
"""Raised when the same plan may bring other texts, so that synthesis is not taken for done."""
REPLIES_A_DRAW = 4
"""Replies to one request with drawn axes, of a model that samples; of another it is one."""
AXES_SAID_SMALL, AXES_SAID = 2, 4
"""Axes drawn for one request: a small model loses a long clause.

Of every second request to one, all are left unsaid: on known gaps, texts for features that were never filled came a
fifth to a third less near to the bar with axes than without."""

WARMER, WARM = 0.2, 1.0
"""A feature that its first batch left unfilled is asked so much warmer, up to 1.

Of few texts more fire at .8; given many, more features are filled at 1, where texts differ more."""


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """One batch of a feature's plan, before anything is known of what it asks."""

    step: Step
    number: int
    size: int


def planned_batches(strategy: Strategy, config: SynthesisConfig, pass_number: int) -> Iterator[PlannedBatch]:
    """Batches of one pass over a feature; later passes repeat the accepting step, and its round numbers go on."""
    steps = strategy.steps(config)
    if config.step == "pairs":
        steps = tuple(step for step in steps if step.name == PAIRS)
    if not pass_number:
        for step in steps:
            for number, size in enumerate(batch_sizes(step.n_candidates, config.batch)):
                yield PlannedBatch(step, number, size)
    elif steps and steps[-1].is_accepting:
        sizes = list(batch_sizes(config.max_candidates, config.batch))
        first = len(list(batch_sizes(steps[-1].n_candidates, config.batch))) + (pass_number - 1) * len(sizes)
        for number, size in enumerate(sizes, first):
            yield PlannedBatch(steps[-1], number, size)


@dataclass(frozen=True, slots=True)
class Part:
    """One request of a batch as it was meant."""

    prompted: Prompted
    axes: Drawn | None

    @property
    def shown(self) -> tuple[str, ...]:
        """Texts a reply must not copy."""
        return self.prompted.shown

    @property
    def told(self) -> dict[str, Any]:
        """What the gates of its candidates record: prompt, axes, push, and the strategy's own notes."""
        told: dict[str, Any] = {"prompt": self.prompted.prompt, **self.prompted.notes}
        if self.axes is not None:
            told |= {"axes": dict(self.axes), "axes_prompt": AXES_TEMPLATE}
        if self.prompted.steering is not None:
            told |= {"strength": self.prompted.steering.strength, "layer": self.prompted.steering.layer}
        return told


@dataclass(frozen=True, slots=True)
class Ask:
    """A batch about to be asked for; `requests[i]` is `parts[i]`."""

    brief: FeatureBrief
    step: Step
    place: BatchPlace
    parts: tuple[Part, ...]
    requests: tuple[LLMRequest, ...]


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks by one strategy in one run."""

    synth_id: str
    strategy: Strategy
    config: SynthesisConfig
    is_sampling: bool = True
    is_small: bool = True
    own_parts: Callable[[Sequence[str]], tuple[str, ...]] = tuple
    """What of the shown texts a local model may not repeat."""

    def place(self, brief: FeatureBrief, batch: PlannedBatch) -> BatchPlace:
        """Where a batch of this run stands."""
        return BatchPlace(self.synth_id, brief.feature_id, batch.step.name, batch.number, self.strategy.name)

    def ask(
        self,
        brief: FeatureBrief,
        batch: PlannedBatch,
        tried: Sequence[Candidate],
        of_feature: AxisCounts,
        of_run: AxisCounts,
    ) -> Ask:
        """What a batch sends, given everything tried for its feature before."""
        place = self.place(brief, batch)
        prompts = self.strategy.prompts(brief, Turn(batch.step.name, batch.number, batch.size, tried))
        if self._has_axes(batch.step, batch.number):
            parts = self._draw(place, prompts, of_feature, of_run)
        else:
            parts = tuple(Part(prompted, None) for prompted in prompts)
        requests = tuple(
            request_for(
                self._settings(batch), place, number, part.prompted, self.own_parts(part.shown) if self.is_small else ()
            )
            for number, part in enumerate(parts)
        )
        return Ask(brief, batch.step, place, parts, requests)

    def _settings(self, batch: PlannedBatch) -> SynthesisConfig:
        is_later = batch.step.is_accepting and batch.number > 0
        return (
            dataclasses.replace(self.config, temperature=warmed(self.config.temperature)) if is_later else self.config
        )

    def _has_axes(self, step: Step, number: int) -> bool:
        """From the second accepting batch on; a model that does not sample needs them from the start."""
        if not self.config.axes or step.name == TUNE:
            return False
        return not self.is_sampling or (step.is_accepting and number > 0)

    def _draw(
        self, place: BatchPlace, prompts: Sequence[Prompted], of_feature: AxisCounts, of_run: AxisCounts
    ) -> tuple[Part, ...]:
        parts = list[Part]()
        for prompted in prompts:
            for n in batch_sizes(prompted.n, REPLIES_A_DRAW if self.is_sampling else 1):
                seed = place.rng_seed(self.config.rng_seed, len(parts))
                n_axes = min(AXES_SAID_SMALL if self.is_small else AXES_SAID, len(prompted.axes))
                drawn = draw_axes(of_feature, of_run, n_axes=n_axes, rng_seed=seed, among=prompted.axes)
                if self.is_small and (place.round + len(parts)) % 2:
                    drawn = dict.fromkeys(drawn, UNSAID)
                messages = with_axes(prompted.messages, drawn)
                parts.append(Part(dataclasses.replace(prompted, messages=messages, n=n), drawn))
        return tuple(parts)


def warmed(temperature: float) -> float:
    """Sampling temperature after a feature's first batch; one above 1 that was asked for stays."""
    return max(temperature, min(temperature + WARMER, WARM))


def request_for(
    config: SynthesisConfig, place: BatchPlace, number: int, prompted: Prompted, avoid: Sequence[str]
) -> LLMRequest:
    """Request `number` of a batch, with the seed of its place; no reply repeats `avoid` at length."""
    return LLMRequest(
        prompted.messages,
        n=prompted.n,
        max_tokens=max(config.max_tokens, prompted.max_tokens),
        temperature=config.temperature,
        top_p=config.top_p,
        rng_seed=place.rng_seed(config.rng_seed, number),
        schema=prompted.schema,
        prompt=prompted.prompt,
        steering=prompted.steering,
        avoid=tuple(avoid),
    )
