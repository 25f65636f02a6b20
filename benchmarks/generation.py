"""Local generation: all replies of a request in one batch against one request after another."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.results import Result, alternate
from facviz.backbone import Backbone
from facviz.llm.local import LocalChat
from facviz.records import LLMRequest, Message

BAR = 8.0


def bench_generation(
    backbone: Backbone, prompt: str, *, n: int = 32, max_tokens: int = 48, n_single: int = 3, n_pairs: int = 3
) -> Result:
    """Generated tokens per second; replies may end early, so tokens are counted, not assumed."""
    chat = LocalChat(backbone)
    request = LLMRequest((Message("user", prompt),), n=n, max_tokens=max_tokens)
    singles = [replace(request, n=1, rng_seed=i) for i in range(n_single)]

    def complete(requests: list[LLMRequest]) -> int:
        return sum(reply.n_tokens for replies in chat.complete(requests) for reply in replies)

    pairs = alternate(lambda: complete([request]), lambda: complete(singles), n_pairs)
    dtype = str(next(backbone.model.parameters()).dtype).removeprefix("torch.")
    return pairs.result("generation", "tokens/s", BAR, dtype=dtype, n=n, max_tokens=max_tokens)
