"""The loop that fills one feature: two steps in numbered batches, ranked together, verified alone, until n or m.

Nothing is drawn that the plan does not name: a batch's seed follows from its place, a recalled batch is not generated
again, and every candidate is kept with what it measured and why it was not used.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from facviz.config import SynthesisConfig
from facviz.protocols import Encoder, LLMClient
from facviz.records import (
    Candidate,
    ContrastivePair,
    Encoded,
    LLMReply,
    LLMRequest,
    Message,
    Outcome,
)
from facviz.synthesis.gates import TextGates
from facviz.synthesis.guided import CONTRAST_TEMPLATE, GUIDED_TEMPLATE, guided_messages
from facviz.synthesis.pairs import REQUEST_TEMPLATE, STEP_ONE, SYSTEM_TEMPLATE, make_pair, pair_messages
from facviz.synthesis.plan import BatchPlace, FeatureBrief
from facviz.synthesis.safety import is_withheld

PROMPTS = {"pairs": REQUEST_TEMPLATE, "guided": GUIDED_TEMPLATE}
TEMPLATES = (SYSTEM_TEMPLATE, REQUEST_TEMPLATE, CONTRAST_TEMPLATE, GUIDED_TEMPLATE)
"""Everything the generator is told; a changed text is another synthesis run."""
_RANKING_SLACK = 0.95
"""Reduced precision moves a few activations across the bar; what ranks this close below it is verified too."""


class FeatureState(StrEnum):
    """How synthesis ended for a missing feature."""

    FILLED = "filled"
    EXHAUSTED = "exhausted"
    REFUSED = "refused"
    BUDGET = "budget"
    PAIRED_ONLY = "paired_only"


class BatchLedger(Protocol):
    """Finished batches, so that a killed run loses at most the unfinished one."""

    def recall(self, place: BatchPlace) -> list[Candidate] | None:
        """The batch at this place if it was finished before."""

    def record(self, place: BatchPlace, candidates: Sequence[Candidate]) -> None:
        """Keep a finished batch durably."""


@dataclass(slots=True)
class FeatureResult:
    """Everything synthesis did for one feature."""

    brief: FeatureBrief
    pair: ContrastivePair
    state: FeatureState
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def accepted(self) -> list[Candidate]:
        """The verified samples."""
        return [c for c in self.candidates if c.accepted]


@dataclass(frozen=True, slots=True)
class Synthesizer:
    """Model, measurement, gates and memory of one synthesis run."""

    synth_id: str
    client: LLMClient
    encoder: Encoder
    gates: TextGates
    ledger: BatchLedger
    config: SynthesisConfig

    def fill(self, brief: FeatureBrief) -> FeatureResult:
        """Run the asked-for steps for one feature; the same call after a kill continues where it stopped."""
        tried = list(self._step_one(brief))
        pair = make_pair(brief, tried, self.config.min_margin)
        result = FeatureResult(brief, pair, FeatureState.PAIRED_ONLY, tried)
        if self.config.step == "pairs":
            return result
        by_id = {c.candidate_id: c for c in tried}
        strong, weak = by_id.get(pair.strong_id or ""), by_id.get(pair.weak_id or "")
        for batch in self._step_two(brief, *guided_messages(brief, strong, weak)):
            result.candidates.extend(batch)
        filled = len(result.accepted) >= self.config.per_feature
        result.state = FeatureState.FILLED if filled else FeatureState.EXHAUSTED
        return result

    def _step_one(self, brief: FeatureBrief) -> Iterable[Candidate]:
        messages, shown = pair_messages(brief)
        for number, size in _batches(self.config.pair_candidates, self.config.batch):
            place = BatchPlace(self.synth_id, brief.feature_id, "pairs", number)
            yield from self._batch(brief, place, size, messages, shown, n_wanted=0)

    def _step_two(
        self, brief: FeatureBrief, messages: tuple[Message, ...], shown: list[str]
    ) -> Iterable[list[Candidate]]:
        wanted = self.config.per_feature
        for number, size in _batches(self.config.max_candidates, self.config.batch):
            if wanted <= 0:
                return
            place = BatchPlace(self.synth_id, brief.feature_id, "guided", number)
            batch = self._batch(brief, place, size, messages, shown, n_wanted=wanted)
            wanted -= sum(c.accepted for c in batch)
            yield batch

    def _batch(
        self,
        brief: FeatureBrief,
        place: BatchPlace,
        size: int,
        messages: tuple[Message, ...],
        shown: list[str],
        *,
        n_wanted: int,
    ) -> list[Candidate]:
        batch = self.ledger.recall(place)
        if batch is None:
            request = self._request(place, size, messages)
            replies = self.client.complete([request])[0]
            batch = self._measure(brief, place, replies, request.rng_seed, shown)
            batch = self._verify(brief, batch, n_wanted)
            self.ledger.record(place, batch)
        else:
            for candidate in batch:
                if candidate.accepted:
                    self.gates.accept(candidate.text)
        return batch

    def _request(self, place: BatchPlace, size: int, messages: tuple[Message, ...]) -> LLMRequest:
        return LLMRequest(
            messages,
            n=size,
            max_tokens=self.config.max_tokens,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            rng_seed=place.rng_seed(self.config.rng_seed),
        )

    def _measure(
        self, brief: FeatureBrief, place: BatchPlace, replies: Sequence[LLMReply], rng_seed: int, shown: Sequence[str]
    ) -> list[Candidate]:
        """Every reply as a candidate with its batched activation; none is dropped, a withheld one loses its text."""
        texts = [clean_reply(reply) for reply in replies]
        withheld = [is_withheld(text) for text in texts]
        texts = ["" if hidden else text for text, hidden in zip(texts, withheld)]
        encoded = self.encoder.encode([brief.document(text) for text in texts])
        candidates = []
        for slot, (reply, text) in enumerate(zip(replies, texts)):
            act, peak = _act_of(encoded, slot, brief.feature_id)
            gates, reason = ({}, "withheld") if withheld[slot] else self._text_gates(reply, text, shown)
            candidates.append(
                Candidate(
                    candidate_id=place.candidate_id(slot),
                    feature_id=brief.feature_id,
                    strategy=place.strategy,
                    step=place.step,
                    round=place.round,
                    slot=slot,
                    text=text,
                    act=act,
                    peak_token=peak,
                    gates=gates | {"ranked_act": act, "outcome": str(reply.outcome)},
                    accepted=False,
                    reject_reason=reason,
                    rng_seed=rng_seed,
                )
            )
        return candidates

    def _text_gates(self, reply: LLMReply, text: str, shown: Sequence[str]) -> tuple[dict[str, Any], str | None]:
        if reply.outcome in (Outcome.REFUSED, Outcome.INVALID):
            return {}, str(reply.outcome)
        if not text:
            return {}, "empty"
        return self.gates.check(text, shown)

    def _verify(self, brief: FeatureBrief, batch: list[Candidate], n_wanted: int) -> list[Candidate]:
        """Strongest first, alone and in float32, until `n_wanted` are accepted; step 1 wants none."""
        verified = {c.candidate_id: c for c in batch}
        for candidate in sorted(batch, key=lambda c: (-c.act, c.slot)):
            if candidate.reject_reason is not None:
                continue
            if candidate.step == "pairs":
                outcome = dataclasses.replace(candidate, reject_reason=STEP_ONE)
            elif candidate.act <= _RANKING_SLACK * brief.bar:
                outcome = dataclasses.replace(candidate, reject_reason="target does not fire")
            elif n_wanted <= 0:
                outcome = dataclasses.replace(candidate, reject_reason="not needed")
            elif self.gates.check(candidate.text, ())[1] == "duplicate":
                outcome = dataclasses.replace(candidate, reject_reason="duplicate")
            else:
                outcome = self._verify_one(brief, candidate)
            n_wanted -= outcome.accepted
            verified[candidate.candidate_id] = outcome
        return list(verified.values())

    def _verify_one(self, brief: FeatureBrief, candidate: Candidate) -> Candidate:
        act, peak = _act_of(self.encoder.encode_alone(brief.document(candidate.text)), 0, brief.feature_id)
        accepted = act > brief.bar and act > 0
        if accepted:
            self.gates.accept(candidate.text)
        return dataclasses.replace(
            candidate,
            act=act,
            peak_token=peak,
            gates={**candidate.gates, "verified_act": act},
            accepted=accepted,
            reject_reason=None if accepted else "target does not fire alone",
        )


def clean_reply(reply: LLMReply) -> str:
    """The sample inside a reply: enclosing quotes off, and a cut-off reply shortened to its last whole sentence."""
    text = reply.text.strip()
    if reply.outcome is Outcome.TRUNCATED:
        ends = [m.end() for m in re.finditer(r"[.!?](?=\s|$)|\n", text)]
        text = text[: ends[-1]].strip() if ends else text
    if len(text) > 1 and text[0] in "\"“'" and text[-1] in "\"”'":
        text = text[1:-1].strip()
    return text


def _batches(total: int, size: int) -> Iterable[tuple[int, int]]:
    for number, start in enumerate(range(0, total, size)):
        yield number, min(size, total - start)


def _act_of(encoded: Encoded, row: int, feature_id: int) -> tuple[float, int]:
    return float(encoded.max_acts[row, feature_id]), int(encoded.peaks[row, feature_id]) - 1


def restore_candidate(row: Mapping[str, Any]) -> Candidate:
    """A candidate from its dictionary form."""
    names = {f.name for f in dataclasses.fields(Candidate)}
    return Candidate(**{k: v for k, v in row.items() if k in names})
