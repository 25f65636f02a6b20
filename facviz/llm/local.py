"""A local Hugging Face chat model as LLMClient: no key, no network, replies fixed by the request's seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from facviz.backbone import Backbone, Renderer
from facviz.errors import LLMError
from facviz.records import LLMReply, LLMRequest, Outcome


class LocalChat:
    """Samples all replies of a request in one batch; the prompt is read once and its cache shared."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._renderer = Renderer(backbone.tokenizer, max_tokens=1_000_000, system_prompt=None, roles=("user",))

    @property
    def name(self) -> str:
        """Provider and model."""
        return f"local/{self._backbone.name}"

    def complete(self, requests: Sequence[LLMRequest]) -> list[list[LLMReply]]:
        """Each request in its own batch and with its own seed, so replies depend on nothing but the request."""
        return [self._sample(request) for request in requests]

    def _sample(self, request: LLMRequest) -> list[LLMReply]:
        model, tokenizer = self._backbone.model, self._backbone.tokenizer
        prompt = torch.tensor([self._renderer.generation_prompt(request.messages)], device=model.device)
        limit = getattr(model.config, "max_position_embeddings", None)
        if limit is not None and prompt.shape[1] + request.max_tokens > limit:
            raise LLMError(f"The prompt has {prompt.shape[1]} tokens, too many for {self.name}; show fewer spans.")
        cache = DynamicCache(config=model.config)
        sampled = {"temperature": request.temperature, "top_p": request.top_p, "top_k": 0}
        sampling = sampled if request.temperature > 0 else {}
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.rng_seed)
            model(input_ids=prompt[:, :-1], past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(request.n)
            generated = model.generate(
                input_ids=prompt.repeat(request.n, 1),
                attention_mask=torch.ones(request.n, prompt.shape[1], dtype=torch.long, device=model.device),
                past_key_values=cache,
                max_new_tokens=request.max_tokens,
                do_sample=request.temperature > 0,
                **sampling,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.eos_token_id,
            )
        return [self._reply(row[prompt.shape[1] :].tolist()) for row in generated]

    def _reply(self, ids: list[int]) -> LLMReply:
        tokenizer = self._backbone.tokenizer
        ended = tokenizer.eos_token_id in ids
        kept = ids[: ids.index(tokenizer.eos_token_id)] if ended else ids
        text = tokenizer.decode(kept, skip_special_tokens=True).strip()
        return LLMReply(text, Outcome.OK if ended else Outcome.TRUNCATED, len(kept))
