"""Fakes with a memory behind the ports: what a stage asked for can be asserted, not only what it got."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from facviz.records import LLMReply, LLMRequest, Outcome


class FakeLLM:
    """Answers from a script and remembers every request.

    The script is a list of texts served in order (the last one repeats), or a function of the request returning the
    texts of its replies; an `Outcome` in place of a text is a reply that ended that way.
    """

    def __init__(self, script: Sequence[str | Outcome] | Callable[[LLMRequest], Sequence[str | Outcome]]) -> None:
        self._script = script
        self._served = 0
        self.requests: list[LLMRequest] = []

    @property
    def name(self) -> str:
        """Provider and model."""
        return "scripted/fake"

    def complete(self, requests: Sequence[LLMRequest]) -> list[list[LLMReply]]:
        """`n` scripted replies for each request."""
        self.requests.extend(requests)
        return [[_reply(text) for text in self._texts(request)] for request in requests]

    def _texts(self, request: LLMRequest) -> Sequence[str | Outcome]:
        if callable(self._script):
            return self._script(request)
        texts = []
        for _ in range(request.n):
            texts.append(self._script[min(self._served, len(self._script) - 1)])
            self._served += 1
        return texts


def _reply(text: str | Outcome) -> LLMReply:
    if isinstance(text, Outcome):
        return LLMReply("", text, 0)
    return LLMReply(text, Outcome.OK, len(text.split()))


class SilentProgress:
    """Progress nobody watches."""

    def update(self, stage: str, done: float, total: float | None, note: str = "") -> None:
        """Nothing."""
