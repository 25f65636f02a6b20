"""What a provider of paid-for replies offers: one request, one HTTP attempt, one typed result.

Adapters never retry, never count money and never write files; `facviz.llm.calls` does that for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from facviz.records import LLMRequest, Outcome

_MIN_SECRET = 12  # shorter keys are placeholders of local servers, such as EMPTY, and may stand in any text
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key)-[A-Za-z0-9_*.-]{6,}")
_MAX_QUOTE = 240


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as billed; `input_tokens` leaves out what was read from or written to the provider's prompt cache."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that was paid for, usable or not; `usage` None when the server did not say."""

    text: str
    outcome: Outcome
    usage: Usage | None
    model: str
    detail: str = ""


class FailureKind(StrEnum):
    """What a caller may do about an attempt that brought no reply."""

    RETRY = "retry"  # not billed; the same attempt may work later
    THROTTLED = "throttled"  # not billed; the provider asks for fewer requests at a time
    UNREACHABLE = "unreachable"  # nothing was sent
    UNKNOWN = "unknown"  # sent, and no answer came: it may have been billed
    REJECTED = "rejected"  # not billed; this request cannot work, others may
    FATAL = "fatal"  # not billed; no request can work until a person acts


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt without a reply; `sentence` says what a person can do."""

    kind: FailureKind
    sentence: str
    retry_after_seconds: float | None = None
    is_spend_limit: bool = False
    """Fatal because the account's own limit at the provider is reached."""


class Adapter(Protocol):
    """One model at one provider."""

    @property
    def provider(self) -> str:
        """Name in the ledger and the price table."""

    @property
    def model(self) -> str:
        """The model asked for."""

    @property
    def is_sampling(self) -> bool:
        """Whether temperature and top-p reach the model, so that they belong to a request's identity."""

    def output_limit(self, request: LLMRequest) -> int:
        """The most output tokens a reply may be billed for, thinking included."""

    def attempt(self, request: LLMRequest) -> Answer | Failure:
        """One HTTP request, never repeated here; safe to call from several threads."""

    def close(self) -> None:
        """Give the connections back."""


def quote(text: object, secrets: Iterable[str] = ()) -> str:
    """A provider's words fit for one sentence of ours: one line, bounded, without anything that looks like a key."""
    line = " ".join(hide(str(text), secrets).split())
    line = _KEY_LIKE.sub("[key]", line)
    return line if len(line) <= _MAX_QUOTE else line[: _MAX_QUOTE - 1] + "…"


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text with every key of ours blanked out, in case a server echoes it."""
    for secret in secrets:
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, "[key]")
    return text


def read_retry_after(milliseconds: str | None, seconds: str | None) -> float | None:
    """Seconds a provider asks to wait, from its two headers; None when neither is a number."""
    for raw, unit in ((milliseconds, 0.001), (seconds, 1.0)):
        try:
            wait = float(raw or "") * unit
        except ValueError:
            continue
        if 0 <= wait < float("inf"):
            return wait
    return None
