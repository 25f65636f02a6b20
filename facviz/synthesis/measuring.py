"""Replies as candidates with their batched activation: good for ranking, never for a verdict."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from facviz.protocols import Encoder
from facviz.records import Candidate, Encoded, LLMReply, Outcome
from facviz.synthesis.asking import Ask
from facviz.synthesis.formats import Fields, Parsed
from facviz.synthesis.formats.base import WITHHELD
from facviz.synthesis.formats.cleaning import printable
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.safety import is_withheld


def measure_batches(
    encoder: Encoder, asks: Sequence[Ask], answered: Sequence[Sequence[Sequence[LLMReply]]]
) -> list[list[Candidate]]:
    """Candidates of several batches, encoded together; none is dropped, a withheld one loses its text."""
    read = [[_read(ask.brief, reply) for replies in groups for reply in replies] for ask, groups in zip(asks, answered)]
    documents = [ask.brief.document(one.text, one.fields) for ask, batch in zip(asks, read) for one in batch]
    encoded = encoder.encode(documents)
    row, found = 0, []
    for ask, groups, batch in zip(asks, answered, read):
        found.append(_candidates(ask, groups, batch, encoded, row))
        row += len(batch)
    return found


@dataclass(frozen=True, slots=True)
class _Read:
    """What is kept of a reply, and why it is no sample; the text of one that breaks its format is the reply itself."""

    text: str
    fields: Fields
    failure: str | None = None


def _read(brief: FeatureBrief, reply: LLMReply) -> _Read:
    if reply.outcome in (Outcome.REFUSED, Outcome.INVALID):
        return _Read("", {}, WITHHELD) if is_withheld(reply.text) else _Read(reply.text.strip(), {}, str(reply.outcome))
    sample = brief.format.parse(reply.text, is_cut=reply.outcome is Outcome.TRUNCATED)
    if isinstance(sample, Parsed):
        return _Read(sample.text, sample.fields)
    return _Read("" if sample.reason == WITHHELD else printable(reply.text), {}, sample.reason)


def act_of(encoded: Encoded, row: int, feature_id: int) -> tuple[float, int]:
    """A feature's maximum in one document, and the token it stands on, −1 where it is silent."""
    return float(encoded.max_acts[row, feature_id]), int(encoded.peaks[row, feature_id]) - 1


def _candidates(
    ask: Ask, groups: Sequence[Sequence[LLMReply]], batch: Sequence[_Read], encoded: Encoded, first_row: int
) -> list[Candidate]:
    """Candidates of one batch, before any gate but those that need no text."""
    sources = deque((part, reply) for part, replies in enumerate(groups) for reply in replies)
    found = []
    for slot, ((part, reply), one) in enumerate(zip(sources, batch)):
        act, peak = act_of(encoded, first_row + slot, ask.brief.feature_id)
        told: dict[str, Any] = {"ranked_act": act, "outcome": str(reply.outcome), **ask.parts[part].told}
        if reply.call_id:
            told["call_id"] = reply.call_id
        if reply.detail:
            told["detail"] = reply.detail
        found.append(
            Candidate(
                candidate_id=ask.place.candidate_id(slot),
                feature_id=ask.brief.feature_id,
                strategy=ask.place.strategy,
                step=ask.place.step,
                round=ask.place.round,
                slot=slot,
                text=one.text,
                fields=one.fields or None,
                act=act,
                peak_token=peak,
                gates=told | {"part": part},
                accepted=False,
                reject_reason=one.failure,
                rng_seed=ask.requests[part].rng_seed,
            )
        )
    return found
