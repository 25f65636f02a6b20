"""Asking a language model for one JSON object, or one line, and believing only what was checked.

A reply that cannot be used is asked for again within a cap; what is left after that is an outcome with its reason,
never a text to match on. All requests of a round go out in one call, so that a client may run them side by side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

from facviz import prompts
from facviz.protocols import LLMClient
from facviz.records import LLMReply, LLMRequest, Outcome

MAX_REPLY_CHARS = 20_000
MAX_DETAIL_CHARS = 300

RETRY_TEMPLATE = "explain_retry.v1"

_REDRAW_TEMPERATURE = 0.7

T = TypeVar("T")

_FENCED = re.compile(r"```[a-zA-Z]*\s*(.*?)\s*```", re.DOTALL)
_REASONS = {
    Outcome.TRUNCATED: "it was cut off before its end",
    Outcome.REFUSED: "it was a refusal",
    Outcome.INVALID: "it did not follow the schema",
}


class BadReply(ValueError):  # noqa: N818 - caught here, never raised at a user
    """A reply that breaks its contract; the message is ours and quotes nothing of the reply."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What came of one question; `value` is None unless the outcome is ok, and `detail` then says why."""

    value: T | None
    outcome: Outcome
    detail: str = ""
    n_attempts: int = 1
    call_ids: tuple[str, ...] = ()
    """Rows of the ledger, one an attempt; a model that costs nothing has none."""
    advice: str = ""
    """What the model is told before it is asked again; words of ours only."""


def ask(
    client: LLMClient,
    requests: Sequence[LLMRequest],
    readers: Sequence[Callable[[Mapping[str, Any]], T]],
    *,
    n_attempts: int,
) -> list[Answer[T]]:
    """One answer a request (of one reply each), read by the reader beside it, which raises `BadReply` to refuse."""
    return _ask(client, requests, [partial(_answer, read=read) for read in readers], _again, n_attempts)


def ask_lines(
    client: LLMClient, requests: Sequence[LLMRequest], readers: Sequence[Callable[[str], T]], *, n_attempts: int
) -> list[Answer[T]]:
    """The same of a model that is asked for one line; it is asked again in the same words, but drawn at random."""
    return _ask(client, requests, [partial(_answer_line, read=read) for read in readers], _redrawn, n_attempts)


def _ask(
    client: LLMClient,
    requests: Sequence[LLMRequest],
    readers: Sequence[Callable[[LLMReply], Answer[T]]],
    again: Callable[[LLMRequest, Answer[T] | None], LLMRequest],
    n_attempts: int,
) -> list[Answer[T]]:
    answers: dict[int, Answer[T]] = {}
    for attempt in range(1, n_attempts + 1):
        open_ = [i for i in range(len(requests)) if i not in answers or answers[i].outcome is not Outcome.OK]
        if not open_:
            break
        replies = client.complete([again(requests[i], answers.get(i)) for i in open_])
        for i, (reply, *_) in zip(open_, replies):
            earlier = answers[i].call_ids if i in answers else ()
            call_ids = (*earlier, reply.call_id) if reply.call_id else earlier
            answers[i] = replace(readers[i](reply), n_attempts=attempt, call_ids=call_ids)
    return [answers[i] for i in range(len(requests))]


def _again(request: LLMRequest, answer: Answer[T] | None) -> LLMRequest:
    """The request, or after an unusable reply the same question with the reason: an equal one may come from a cache."""
    if answer is None:
        return request
    *before, last = request.messages
    note = prompts.render(RETRY_TEMPLATE, number=str(answer.n_attempts + 1), reason=answer.advice)
    room = request.max_tokens * (2 if answer.outcome is Outcome.TRUNCATED else 1)
    asked = replace(last, content=f"{last.content}\n\n{note}")
    return replace(request, messages=(*before, asked), max_tokens=room, rng_seed=request.rng_seed + answer.n_attempts)


def _redrawn(request: LLMRequest, answer: Answer[T] | None) -> LLMRequest:
    """A small model makes nothing of advice, but may say something else when its words are drawn at random."""
    if answer is None:
        return request
    temperature = max(request.temperature, _REDRAW_TEMPERATURE)
    return replace(request, temperature=temperature, rng_seed=request.rng_seed + answer.n_attempts)


def _answer_line(reply: LLMReply, read: Callable[[str], T]) -> Answer[T]:
    """The first line; of one that was cut off what stands before its last comma."""
    line, line_end, _ = reply.text.strip().partition("\n")
    if reply.outcome is Outcome.TRUNCATED and not line_end:
        line = line.rpartition(",")[0]
    if reply.outcome not in (Outcome.OK, Outcome.TRUNCATED) or (not line and reply.outcome is Outcome.TRUNCATED):
        return _unusable(reply)
    try:
        return Answer(read(line), Outcome.OK)
    except BadReply as bad:
        return Answer(None, Outcome.INVALID, str(bad), advice=str(bad))


def _unusable(reply: LLMReply) -> Answer[T]:
    reason = _REASONS[reply.outcome]
    return Answer(None, reply.outcome, clean(reply.detail)[:MAX_DETAIL_CHARS] or reason, advice=reason)


def _answer(reply: LLMReply, read: Callable[[Mapping[str, Any]], T]) -> Answer[T]:
    if reply.outcome is not Outcome.OK:
        return _unusable(reply)
    try:
        return Answer(read(read_object(reply.text)), Outcome.OK)
    except BadReply as bad:
        return Answer(None, Outcome.INVALID, str(bad), advice=str(bad))


def read_object(text: str) -> Mapping[str, Any]:
    """The JSON object a reply consists of, bare or in one code fence.

    Raises:
        BadReply: it is longer than any honest reply, or anything but one JSON object.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise BadReply(f"it was longer than {MAX_REPLY_CHARS} characters")
    body = text.strip()
    if fenced := _FENCED.fullmatch(body):
        body = fenced[1]
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadReply("it was not one JSON object") from None
    if not isinstance(value, dict):
        raise BadReply("it was not one JSON object")
    return value


def read_text(reply: Mapping[str, Any], name: str, max_chars: int) -> str:
    """A field's text on one line, without what cannot be seen."""
    value = reply.get(name)
    if not isinstance(value, str):
        raise BadReply(f"`{name}` was not a text")
    text = clean(value)
    if len(text) > max_chars:
        raise BadReply(f"`{name}` was longer than {max_chars} characters")
    return text


def read_choice(reply: Mapping[str, Any], name: str, allowed: Sequence[str]) -> str:
    """A field that is exactly one of the allowed values; nothing is looked for inside a longer text."""
    value = reply.get(name)
    if not isinstance(value, str) or value not in allowed:
        raise BadReply(f"`{name}` was not one of {', '.join(allowed)}")
    return value


def read_share(reply: Mapping[str, Any], name: str) -> float:
    """A field between 0 and 1."""
    value = reply.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadReply(f"`{name}` was not a number from 0 to 1")
    return float(value)


def read_number(reply: Mapping[str, Any], name: str, n: int) -> int:
    """A field that is one of 1 … n."""
    value = reply.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= n:
        raise BadReply(f"`{name}` was not a number from 1 to {n}")
    return value


def read_flags(reply: Mapping[str, Any], name: str, flag: str, n: int) -> tuple[bool, ...]:
    """A list of `{"item": number, flag: true or false}` that names each of 1 … n exactly once, in order of number."""
    rows = reply.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadReply(f"`{name}` was not a list of objects")
    if sorted(read_number(row, "item", n) for row in rows) != list(range(1, n + 1)):
        raise BadReply(f"`{name}` did not name each item from 1 to {n} once")
    flags = {row["item"]: row.get(flag) for row in rows}
    if not all(isinstance(value, bool) for value in flags.values()):
        raise BadReply(f"a `{flag}` was neither true nor false")
    return tuple(flags[i] for i in range(1, n + 1))


def clean(text: str) -> str:
    """Printable characters on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
