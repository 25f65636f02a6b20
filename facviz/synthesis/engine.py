"""The accepted-N loop: several features at a time, in numbered batches, ranked together, verified alone, until n or m.

A **wave** takes the next batch of every feature under way: all requests go out in one call, all replies are measured in
one pass, then each batch is verified and recorded in the order in which its feature started. Nothing is drawn that the
plan does not name: seeds follow from a batch's place, prompt axes from its place and the waves before, and what happens
does not depend on which reply came first. A recalled batch is not generated again. Every candidate is kept with what it
measured and why it was not used, and every feature ends in a state of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np

from facviz.config import SynthesisConfig
from facviz.errors import BudgetError, SpendLimitError
from facviz.protocols import Encoder, LLMClient
from facviz.records import Candidate, Encoded, Ints, LLMReply, Outcome
from facviz.synthesis.asking import Ask, Asker, PlannedBatch, planned_batches
from facviz.synthesis.axes import NOT_COUNTED, AxisCounts
from facviz.synthesis.copying import own_parts
from facviz.synthesis.gates import TextGates
from facviz.synthesis.measuring import act_of, measure_batches
from facviz.synthesis.order import Acceptance, next_feature
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.results import BatchLedger, FeatureResult, FeatureState, OnResult
from facviz.synthesis.strategies import Strategy

RANKING_SLACK = 0.95
"""Reduced precision moves a few activations across the bar; what ranks this close below it is verified too."""
_REFUSED_ROUNDS = 2
"""So many batches in a row of refusals alone end a feature: more would be refused, and paid for."""


class SampleGate(Protocol):
    """What a candidate must pass after its target was seen to fire, where that needs more than its text."""

    def check(
        self, brief: FeatureBrief, candidate: Candidate, shown: Sequence[str], alone: Encoded
    ) -> tuple[dict[str, Any], str | None]:
        """Measures for the candidate's gates, and the reason for rejection or None.

        `candidate.act` and its `verified_act` are from `alone`, one row in float32; `shown` are the texts the generator
        saw. Called strongest first, and no more once enough are accepted.
        """

    def accept(self, text: str) -> None:
        """Remember an accepted sample, also one that a run before this process accepted."""


@dataclass(slots=True)
class Synthesizer:
    """Model, measurement, gates and memory of one synthesis run."""

    synth_id: str
    client: LLMClient
    encoder: Encoder
    gates: TextGates
    ledger: BatchLedger
    config: SynthesisConfig
    strategy: Strategy
    after: SampleGate | None = None
    is_sampling: bool = True
    """Whether equal requests get different replies; where not, every reply is asked for in words of its own."""
    is_small: bool = True
    """Whether the model follows only a short request, so that few axes are said at once."""
    stopped: str = ""

    def fill(self, brief: FeatureBrief) -> FeatureResult:
        """One feature alone."""
        return self.fill_all([brief])[0]

    def fill_all(self, briefs: Sequence[FeatureBrief], on_result: OnResult | None = None) -> list[FeatureResult]:
        """Run the asked-for steps; the same call after a kill, or with more money, continues where it stopped.

        The passes after the first attempt the features that no accepted sample of the run activates, whichever feature
        it was written for.

        Raises:
            LLMError: the provider cannot be reached or refuses the key; finished batches are kept.
        """
        run = _Run(self, briefs, on_result or (lambda _: None))
        courses = [_Course(brief, self._plan(0)) for brief in briefs]
        run.through(courses)
        for number in range(1, self.config.passes if self.config.step != "pairs" else 1):
            again = [c for c in courses if run.is_uncovered(c)] if not self.stopped else []
            for course in again:
                course.begin(self._plan(number))
            run.through(again)
        return [run.result(course) for course in courses]

    def _plan(self, pass_number: int) -> Iterator[PlannedBatch]:
        return planned_batches(self.strategy, self.config, pass_number)


class _Course:
    """Where one feature stands."""

    def __init__(self, brief: FeatureBrief, batches: Iterator[PlannedBatch]) -> None:
        self.brief, self.tried, self.axes = brief, list[Candidate](), AxisCounts()
        self.state: FeatureState | None = None
        self.batch: PlannedBatch | None = None
        self.begin(batches)

    def begin(self, batches: Iterator[PlannedBatch]) -> None:
        """Set out on a pass."""
        self.state, self._batches, self._n_refused = None, batches, 0

    @property
    def n_accepted(self) -> int:
        """Samples so far."""
        return sum(c.accepted for c in self.tried)

    def take(self, candidates: Sequence[Candidate]) -> None:
        """A finished batch."""
        self.tried.extend(candidates)
        self.axes.add(candidates)
        is_refused = all(c.gates.get("outcome") == Outcome.REFUSED for c in candidates)
        self._n_refused = self._n_refused + 1 if is_refused else 0

    def advance(self, config: SynthesisConfig) -> None:
        """Choose the next batch, or the state in which the feature ends."""
        is_filled = self.n_accepted >= config.per_feature
        is_given_up = self._n_refused >= _REFUSED_ROUNDS
        self.batch = None if is_filled or is_given_up else next(self._batches, None)
        if self.batch is not None:
            return
        if is_filled:
            self.state = FeatureState.FILLED
        elif self._n_refused:
            self.state = FeatureState.REFUSED
        else:
            self.state = FeatureState.PAIRED_ONLY if config.step == "pairs" else FeatureState.EXHAUSTED


class _Run:
    """All waves of one call: what is shared by the features under way."""

    def __init__(self, engine: Synthesizer, briefs: Sequence[FeatureBrief], on_result: OnResult) -> None:
        self._engine, self._on_result = engine, on_result
        self._ids: Ints = np.array([brief.feature_id for brief in briefs], dtype=np.int64)
        self._bars = np.array([brief.bar for brief in briefs], dtype=np.float64)
        self._axes, self._seen, self._covered = AxisCounts(), Acceptance(), set[int]()
        self._asker = Asker(
            engine.synth_id,
            engine.strategy,
            engine.config,
            is_sampling=engine.is_sampling,
            is_small=engine.is_small,
            own_parts=partial(own_parts, is_formula=engine.gates.is_formula),
        )

    def is_uncovered(self, course: _Course) -> bool:
        """Whether a later pass attempts it: it is not filled, and no sample written for another activates it."""
        is_open = course.state in (FeatureState.EXHAUSTED, FeatureState.REFUSED)
        return is_open and course.brief.feature_id not in self._covered

    def result(self, course: _Course) -> FeatureResult:
        """What became of a feature."""
        is_untried = course.state is FeatureState.BUDGET and not course.tried
        pair = None if is_untried else self._engine.strategy.pair(course.brief, course.tried)
        return FeatureResult(course.brief, pair, course.state or FeatureState.BUDGET, course.tried)

    def through(self, courses: Sequence[_Course]) -> None:
        """Waves until every feature ended; when the money is spent, all that did not end as `budget`."""
        waiting, under_way, config = list(courses), list[_Course](), self._engine.config
        while (waiting or under_way) and not self._engine.stopped:
            while waiting and len(under_way) < config.features_at_once:
                place = next_feature([c.brief for c in waiting], config.order, self._seen, config)
                under_way.append(waiting.pop(place))
                under_way[-1].advance(config)
            self._wave([course for course in under_way if course.state is None])
            if not self._engine.stopped:
                under_way = [course for course in under_way if not self._is_over(course)]
        for course in [*under_way, *waiting]:
            course.state = course.state or FeatureState.BUDGET
            self._on_result(self.result(course))

    def _is_over(self, course: _Course) -> bool:
        if course.state is None:
            return False
        self._on_result(self.result(course))
        return True

    def _wave(self, courses: Sequence[_Course]) -> None:
        """The next batch of every feature under way, each recorded in the order in which the features started.

        What the money did not reach ends the wave there, so that what is recorded never has a gap before it.
        """
        engine = self._engine
        asks = [self._asker.ask(c.brief, batch, c.tried, c.axes, self._axes) for c, batch in _due(courses)]
        recalled = [engine.ledger.recall(ask.place) for ask in asks]
        fresh = self._replies([ask for ask, found in zip(asks, recalled) if found is None])
        finished = list[Candidate]()
        for course, ask, found in zip(courses, asks, recalled):
            if found is None:
                measured = next(fresh, None)
                if measured is None:
                    break
                try:
                    found = self._verify(course.brief, ask, measured, engine.config.per_feature - course.n_accepted)
                except (BudgetError, SpendLimitError) as error:  # a judge among the gates costs money, too
                    engine.stopped = engine.stopped or str(error)
                    break
                engine.ledger.record(ask.place, found)
            else:
                self._remember(found)
            course.take(found)
            if ask.step.is_accepting:
                self._seen.add(course.brief, sum(c.accepted for c in found), len(found))
            finished += found
            course.advance(engine.config)
        self._axes.add(finished)

    def _replies(self, asks: Sequence[Ask]) -> Iterator[list[Candidate]]:
        """Candidates of every batch, measured in one pass; fewer batches than asked for where the money ran out."""
        if not asks:
            return iter(())
        engine = self._engine
        requests = [request for ask in asks for request in ask.requests]
        try:
            replies = iter(engine.client.complete(requests))
            answered = [list(islice(replies, len(ask.requests))) for ask in asks]
        except (BudgetError, SpendLimitError) as error:
            engine.stopped = str(error)
            answered = list(self._recorded(asks))
        return iter(measure_batches(engine.encoder, asks[: len(answered)], answered))

    def _recorded(self, asks: Sequence[Ask]) -> Iterator[list[list[LLMReply]]]:
        """Batches whose replies had all arrived when the money ran out, up to the first that had not."""
        for ask in asks:
            try:
                yield self._engine.client.complete(list(ask.requests))
            except (BudgetError, SpendLimitError):
                return

    def _verify(self, brief: FeatureBrief, ask: Ask, batch: list[Candidate], n_wanted: int) -> list[Candidate]:
        """Text gates for all; then strongest first, alone and in float32, until `n_wanted` are accepted."""
        checked = {c.candidate_id: self._text_gates(c, ask) for c in batch}
        for candidate in sorted(checked.values(), key=lambda c: (-c.act, c.slot)):
            if candidate.reject_reason is not None:
                continue
            if ask.step.not_a_sample is not None:
                outcome = dataclasses.replace(candidate, reject_reason=ask.step.not_a_sample)
            elif candidate.act <= RANKING_SLACK * brief.bar:
                outcome = dataclasses.replace(candidate, reject_reason="target does not fire")
            elif n_wanted <= 0:
                outcome = dataclasses.replace(candidate, reject_reason=NOT_COUNTED)
            elif again := self._engine.gates.check(candidate.text, ())[1]:  # like one accepted a moment ago
                outcome = dataclasses.replace(candidate, reject_reason=again)
            else:
                outcome = self._verify_one(brief, candidate, ask)
            n_wanted -= outcome.accepted
            checked[candidate.candidate_id] = outcome
        return list(checked.values())

    def _text_gates(self, candidate: Candidate, ask: Ask) -> Candidate:
        if candidate.reject_reason is not None:
            return candidate
        measures, reason = self._engine.gates.check(candidate.text, ask.parts[candidate.gates["part"]].shown)
        return dataclasses.replace(candidate, gates={**candidate.gates, **measures}, reject_reason=reason)

    def _verify_one(self, brief: FeatureBrief, candidate: Candidate, ask: Ask) -> Candidate:
        alone = self._engine.encoder.encode_alone(brief.document_of(candidate))
        act, peak = act_of(alone, 0, brief.feature_id)
        reason = None if act > brief.bar and act > 0 else "target does not fire alone"
        gates = {**candidate.gates, "verified_act": act}
        verified = dataclasses.replace(candidate, act=act, peak_token=peak, gates=gates, reject_reason=reason)
        if reason is None and self._engine.after is not None:
            shown = ask.parts[candidate.gates["part"]].shown
            measures, reason = self._engine.after.check(brief, verified, shown, alone)
            verified = dataclasses.replace(verified, gates={**gates, **measures}, reject_reason=reason)
        if reason is not None:
            return verified
        gates = {**verified.gates, "covers": self._fired(alone)}
        accepted = dataclasses.replace(verified, gates=gates, accepted=True)
        self._remember([accepted])
        return accepted

    def _fired(self, alone: Encoded) -> list[int]:
        """Features of this run that a text fires above their bars, its own among them."""
        acts = np.asarray(alone.max_acts[0, self._ids].todense()).ravel()
        return [int(f) for f in self._ids[(acts > self._bars) & (acts > 0)]]

    def _remember(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            if candidate.accepted:
                self._engine.gates.accept(candidate.text)
                self._covered.update(candidate.gates.get("covers", ()))
                if self._engine.after is not None:
                    self._engine.after.accept(candidate.text)


def _due(courses: Sequence[_Course]) -> Iterator[tuple[_Course, PlannedBatch]]:
    for course in courses:
        assert course.batch is not None
        yield course, course.batch
