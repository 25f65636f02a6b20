"""A model that replies from a script: no network, no key, and the same ledger, cache and budget as a real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from facviz.llm.adapter import Answer, Failure, Usage
from facviz.llm.estimate import approximate_tokens
from facviz.records import LLMRequest, Outcome

Scripted = str | Answer | Failure


class ScriptedAdapter:
    """Serves a list in order (the last one repeats), or what a function of (number from 0, request) returns.

    A text is a good reply whose tokens are counted by the rule of thumb; answers and failures pass as they are.
    """

    provider = "scripted"
    is_sampling = True

    def __init__(
        self, script: Sequence[Scripted] | Callable[[int, LLMRequest], Scripted], *, model: str = "script"
    ) -> None:
        self.model = model
        self._script = script
        self._lock = threading.Lock()
        self.requests: list[LLMRequest] = []

    def output_limit(self, request: LLMRequest) -> int:
        """The request's own limit."""
        return request.max_tokens

    def attempt(self, request: LLMRequest) -> Answer | Failure:
        """The script's next line."""
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
        line = (
            self._script(number, request)
            if callable(self._script)
            else self._script[min(number, len(self._script) - 1)]
        )
        if isinstance(line, str):
            usage = Usage(approximate_tokens(request), min(len(line.split()), request.max_tokens))
            return Answer(line, Outcome.OK, usage, self.model)
        return line

    def close(self) -> None:
        """Nothing to give back."""
