"""Replies as candidates with their batched activation: good for ranking, never for a verdict."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from facviz.protocols import Encoder
from facviz.records import Candidate, Encoded, LLMReply, Outcome
from facviz.synthesis.asking import Ask
from facviz.synthesis.replies import clean_reply
from facviz.synthesis.safety import is_withheld


def measure_batches(
    encoder: Encoder, asks: Sequence[Ask], answered: Sequence[Sequence[Sequence[LLMReply]]]
) -> list[list[Candidate]]:
    """Candidates of several batches, encoded together; none is dropped, a withheld one loses its text."""
    texts = [[clean_reply(reply) for replies in groups for reply in replies] for groups in answered]
    withheld = [[is_withheld(text) for text in batch] for batch in texts]
    texts = [["" if hidden else text for text, hidden in zip(*pair)] for pair in zip(texts, withheld)]
    encoded = encoder.encode([ask.brief.document(text) for ask, batch in zip(asks, texts) for text in batch])
    row, found = 0, []
    for ask, groups, batch, hidden in zip(asks, answered, texts, withheld):
        found.append(_candidates(ask, groups, batch, hidden, encoded, row))
        row += len(batch)
    return found


def act_of(encoded: Encoded, row: int, feature_id: int) -> tuple[float, int]:
    """A feature's maximum in one document, and the token it stands on, −1 where it is silent."""
    return float(encoded.max_acts[row, feature_id]), int(encoded.peaks[row, feature_id]) - 1


def _candidates(
    ask: Ask, groups: Sequence[Sequence[LLMReply]], texts: Sequence[str], withheld: Sequence[bool], encoded: Encoded,
    first_row: int,
) -> list[Candidate]:  # fmt: skip
    """Candidates of one batch, before any gate but those that need no text."""
    sources = deque((part, reply) for part, replies in enumerate(groups) for reply in replies)
    found = []
    for slot, ((part, reply), text, hidden) in enumerate(zip(sources, texts, withheld)):
        act, peak = act_of(encoded, first_row + slot, ask.brief.feature_id)
        told: dict[str, Any] = {"ranked_act": act, "outcome": str(reply.outcome), **ask.parts[part].told}
        if reply.call_id:
            told["call_id"] = reply.call_id
        found.append(
            Candidate(
                candidate_id=ask.place.candidate_id(slot),
                feature_id=ask.brief.feature_id,
                strategy=ask.place.strategy,
                step=ask.place.step,
                round=ask.place.round,
                slot=slot,
                text=text,
                act=act,
                peak_token=peak,
                gates=told | {"part": part},
                accepted=False,
                reject_reason="withheld" if hidden else _failure(reply, text),
                rng_seed=ask.requests[part].rng_seed,
            )
        )
    return found


def _failure(reply: LLMReply, text: str) -> str | None:
    if reply.outcome in (Outcome.REFUSED, Outcome.INVALID):
        return str(reply.outcome)
    return None if text else "empty"
