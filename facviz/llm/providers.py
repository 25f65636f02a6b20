"""Which paid-for model a stage talks to: from a provider's name, the environment and a workspace to a client."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from facviz.errors import InputError

if TYPE_CHECKING:
    from facviz.llm.adapter import Adapter
    from facviz.llm.calls import PaidLLM

PAID_PROVIDERS = ("anthropic", "openai")
AUTO = "auto"
TIMEOUT_VARIABLE = "FACVIZ_LLM_TIMEOUT"
DEFAULT_TIMEOUT_SECONDS = 600.0


def set_up() -> dict[str, bool]:
    """Whether the environment names a key, or for openai an address, of each paid provider; none is contacted."""
    return {
        "anthropic": bool(os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_AUTH_TOKEN")),
        "openai": bool(os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")),
    }


def choose_provider() -> str | None:
    """What `auto` means here: anthropic when its key is set, then openai when a key or address is, else None."""
    return next((name for name, is_set in set_up().items() if is_set), None)


def open_client(
    provider: str,
    model: str | None,
    workspace_root: Path,
    *,
    budget_usd: float | None = None,
    scope: str = "",
    concurrency: int = 4,
    base_url: str | None = None,
    timeout_seconds: float | None = None,
    batch: bool = False,
) -> PaidLLM:
    """A client that keeps its books in the workspace; close it when done. `auto` chooses as `choose_provider` does.

    With `batch`, requests are handed in together and answered within a day, at half the price.

    Raises:
        InputError: no such provider, nothing in the environment to choose from, or a model must be named.
        LLMError: a key is missing, or an OpenAI-compatible server that should name its model cannot be reached.
    """
    from facviz.llm.batches import BatchedLLM
    from facviz.llm.cache import ReplyStore
    from facviz.llm.calls import PaidLLM
    from facviz.llm.ledger import LEDGER_FOLDER, Ledger
    from facviz.llm.prices import load_prices

    chosen = choose_provider() if provider == AUTO else provider
    if chosen is None:
        raise InputError("No language model is set up; set ANTHROPIC_API_KEY, OPENAI_API_KEY or OPENAI_BASE_URL.")
    if chosen not in PAID_PROVIDERS:
        raise InputError(f"There is no paid provider {chosen!r}; choose one of {', '.join(PAID_PROVIDERS)}.")
    if batch and chosen != "anthropic":
        raise InputError(f"Batches are known of anthropic alone, not of {chosen}; leave --batch out.")
    prices = load_prices()
    adapter = _open_adapter(chosen, model, base_url, timeout_seconds or _timeout_seconds())
    ledger, replies = Ledger(workspace_root), ReplyStore(workspace_root / LEDGER_FOLDER / "replies")
    kind = BatchedLLM if batch else PaidLLM
    return kind(adapter, ledger, replies, prices, budget_usd=budget_usd, scope=scope, concurrency=concurrency)


def _timeout_seconds() -> float:
    """How long one call may take; a slow server of one's own may need more, a test less."""
    raw = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(raw or DEFAULT_TIMEOUT_SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"{TIMEOUT_VARIABLE} is {raw!r}; give a number of seconds above 0.")
    return seconds


def _open_adapter(provider: str, model: str | None, base_url: str | None, timeout_seconds: float) -> Adapter:
    if provider == "anthropic":
        from facviz.llm.anthropic import DEFAULT_MODEL, AnthropicAdapter

        return AnthropicAdapter(model or DEFAULT_MODEL, base_url=base_url, timeout_seconds=timeout_seconds)
    from facviz.llm.openai import OpenAIAdapter, list_models

    if model is None:
        offered = list_models(base_url)
        if len(offered) != 1:
            raise InputError(f"The server offers {len(offered)} models; name one with --model.")
        model = offered[0]
    return OpenAIAdapter(model, base_url=base_url, timeout_seconds=timeout_seconds)
