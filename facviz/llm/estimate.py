"""What a job would cost before anything is sent, and the most that one call can cost."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from facviz.llm.adapter import Adapter, Usage
from facviz.llm.prices import Price
from facviz.records import LLMRequest

_CHARACTERS_PER_TOKEN = 3.5  # a rule of thumb for English; code and other scripts need more tokens
_TOKENS_PER_MESSAGE = 16
_TOKENS_OF_FRAME = 1024  # what a provider may put around a request: system words, the schema's instructions
DEFAULT_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A dry run: `n_calls` counts every reply wanted, `n_cached` those already paid for; the rest is for the others.

    Input tokens are characters / 3.5, output tokens the limit of every call, dollars None for a model without a price.
    """

    n_calls: int
    n_cached: int
    n_input_tokens: int
    n_output_tokens: int
    usd: float | None
    seconds: float


def approximate_tokens(request: LLMRequest) -> int:
    """Input tokens by the rule of thumb."""
    return math.ceil(sum(len(part) for part in _texts(request)) / _CHARACTERS_PER_TOKEN)


def worst_usd(adapter: Adapter, request: LLMRequest, price: Price | None) -> float | None:
    """The most one reply can cost: a token is at least one byte of text, and the reply runs to its limit."""
    if price is None:
        return None
    n_bytes = sum(len(part.encode("utf-8", "surrogatepass")) for part in _texts(request))
    n_input = n_bytes + _TOKENS_PER_MESSAGE * len(request.messages) + _TOKENS_OF_FRAME
    return price.cost_usd(Usage(n_input, adapter.output_limit(request)))


def expected_usd(adapter: Adapter, request: LLMRequest, price: Price | None) -> float | None:
    """What one reply costs by the rule of thumb if it runs to its limit."""
    if price is None:
        return None
    return price.cost_usd(Usage(approximate_tokens(request), adapter.output_limit(request)))


def _texts(request: LLMRequest) -> list[str]:
    """Everything that is sent as text; a schema counts as its JSON."""
    schema = [] if request.schema is None else [json.dumps(request.schema, default=dict)]
    return [m.content for m in request.messages] + schema
