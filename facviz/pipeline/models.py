"""Which language model a stage asks, opened with the workspace's books for as long as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from facviz.llm.calls import PaidLLM
from facviz.llm.providers import open_client
from facviz.pipeline.session import Session
from facviz.protocols import LLMClient

LOCAL = "local"


class ModelChoice(Protocol):
    """What a stage's config says about its model."""

    @property
    def provider(self) -> str:
        """`anthropic`, `openai`, `auto` or `local`."""

    @property
    def model(self) -> str | None:
        """None is the provider's default."""

    @property
    def budget_usd(self) -> float | None:
        """None sets no limit."""

    @property
    def concurrency(self) -> int:
        """Requests under way at a time."""


@contextmanager
def language_model(session: Session, choice: ModelChoice, scope: str, *, batch: bool = False) -> Iterator[LLMClient]:
    """The model to ask; what `scope` names has a budget of its own. `batch`: handed in together, at half the price."""
    if choice.provider == LOCAL:
        from facviz.llm.local import LocalChat

        yield LocalChat(session.fast)
    else:
        with paid_model(session, choice, scope, batch=batch) as paid:
            yield paid


def paid_model(session: Session, choice: ModelChoice, scope: str, *, batch: bool = False) -> PaidLLM:
    """The same where only a paid model will do; close it when done."""
    return open_client(
        choice.provider,
        choice.model,
        session.workspace.root,
        budget_usd=choice.budget_usd,
        scope=scope,
        concurrency=choice.concurrency,
        batch=batch,
    )


def spent_usd(client: LLMClient) -> float:
    """Dollars that the client's scope has cost so far, over every run."""
    return round(client.ledger.committed_usd(client.scope), 6) if isinstance(client, PaidLLM) else 0.0
