"""Local generation: all replies of a request in one batch against plain `generate` on one prompt after another."""

from __future__ import annotations

import torch

from benchmarks.results import Result, alternate
from facviz.backbone import Backbone, Renderer
from facviz.llm.local import LocalChat
from facviz.records import LLMRequest, Message

BAR = 8.0


def bench_generation(
    backbone: Backbone, prompt: str, *, n: int = 32, max_tokens: int = 48, n_single: int = 2, n_pairs: int = 3
) -> Result:
    """Generated tokens per second; replies may end early, so tokens are counted, not assumed."""
    chat = LocalChat(backbone)
    request = LLMRequest((Message("user", prompt),), n=n, max_tokens=max_tokens)

    def ours() -> int:
        return sum(reply.n_tokens for reply in chat.complete([request])[0])

    pairs = alternate(ours, lambda: sum(reply_alone(backbone, request, i) for i in range(n_single)), n_pairs)
    dtype = str(backbone.model.dtype).removeprefix("torch.")
    return pairs.result("generation", "tokens/s", BAR, dtype=dtype, n=n, max_tokens=max_tokens)


def reply_alone(backbone: Backbone, request: LLMRequest, rng_seed: int) -> int:
    """How many tokens `written_alone` has before its end."""
    return sum(token != backbone.tokenizer.eos_token_id for token in written_alone(backbone, request, rng_seed))


def written_alone(backbone: Backbone, request: LLMRequest, rng_seed: int) -> list[int]:
    """Tokens of one reply written as model cards show it: prompt in, `generate`, reply out."""
    end = backbone.tokenizer.eos_token_id
    renderer = Renderer(backbone.tokenizer, max_tokens=1_000_000, roles=("user",))
    prompt = torch.tensor([renderer.generation_prompt(request.messages)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng_seed)
        written = backbone.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=request.max_tokens,
            do_sample=True,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=0,
            eos_token_id=end,
            pad_token_id=end,
        )
    return [int(token) for token in written[0, prompt.shape[1] :]]
