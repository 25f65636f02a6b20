"""A local Hugging Face chat model as LLMClient: no key, no network, replies fixed by the request's seed.

Replies are sampled by a loop of its own: all of a request in one batch that shrinks as replies end, and without sorting
the vocabulary at every step, which would cost as much as the model (measured with 32 replies on two cores).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor
from transformers import DynamicCache

from facviz.backbone import Backbone, Renderer
from facviz.errors import LLMError
from facviz.records import LLMReply, LLMRequest, Outcome

_LIKELIEST = 1024  # the nucleus is nearly always among these; where it is not, the whole vocabulary is sorted


class LocalChat:
    """Samples all replies of a request in one batch; the prompt is read once and its cache shared."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._renderer = Renderer(backbone.tokenizer, max_tokens=1_000_000, system_prompt=None, roles=("user",))
        named = backbone.model.generation_config.eos_token_id  # one id, or several: Llama-3 ends turns by another
        self._stops = {backbone.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None}

    @property
    def name(self) -> str:
        """Provider and model."""
        return f"local/{self._backbone.name}"

    def complete(self, requests: Sequence[LLMRequest]) -> list[list[LLMReply]]:
        """Each request in its own batch and with its own seed, so replies depend on nothing but the request."""
        return [[self._reply(ids) for ids in self._sample(request).tolist()] for request in requests]

    @torch.inference_mode()
    def _sample(self, request: LLMRequest) -> Tensor:
        """Reply ids [n, max_tokens], filled up with end tokens."""
        model, end = self._backbone.model, min(self._stops, default=0)
        stops = torch.tensor(sorted(self._stops), device=model.device)
        generator = torch.Generator(model.device).manual_seed(request.rng_seed)
        replies = torch.full((request.n, request.max_tokens), end, device=model.device)
        running = torch.arange(request.n, device=model.device)
        cache = DynamicCache(config=model.config)
        read = model(input_ids=self._prompt(request), past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = read.logits[:, -1].expand(request.n, -1)
        cache.batch_repeat_interleave(request.n)
        for step in range(request.max_tokens):
            if step:
                last = replies[running, step - 1].unsqueeze(1)
                logits = model(input_ids=last, past_key_values=cache, use_cache=True).logits[:, -1]
            tokens = draw_tokens(logits, request.temperature, request.top_p, generator)
            replies[running, step] = tokens
            goes_on = (~torch.isin(tokens, stops)).nonzero().squeeze(1)
            if not len(goes_on):
                break
            if len(goes_on) < len(running):
                running = running[goes_on]
                cache.batch_select_indices(goes_on)
        return replies

    def _prompt(self, request: LLMRequest) -> Tensor:
        model = self._backbone.model
        ids = self._renderer.generation_prompt(request.messages)
        limit = getattr(model.config, "max_position_embeddings", None)
        if limit is not None and len(ids) + request.max_tokens > limit:
            raise LLMError(f"The prompt has {len(ids)} tokens, too many for {self.name}; show fewer spans.")
        return torch.tensor([ids], device=model.device)

    def _reply(self, ids: list[int]) -> LLMReply:
        kept = list(takewhile(lambda token: token not in self._stops, ids))
        text = self._backbone.tokenizer.decode(kept, skip_special_tokens=True).strip()
        return LLMReply(text, Outcome.OK if len(kept) < len(ids) else Outcome.TRUNCATED, len(kept))


def draw_tokens(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """One token [n] per row of logits [n, vocabulary], from its nucleus: the fewest tokens that hold `top_p`.

    Temperature 0 takes the likeliest token.
    """
    if temperature == 0:
        return logits.argmax(-1)
    values, tokens = _likeliest((logits.float() / temperature).softmax(-1), top_p)
    mass_before = values.cumsum(-1) - values
    in_nucleus = mass_before < top_p
    in_nucleus[:, 0] = True
    mass = (values * in_nucleus).cumsum(-1)
    mark = torch.rand(len(mass), 1, generator=generator, device=mass.device) * mass[:, -1:]
    last = in_nucleus.sum(-1, keepdim=True) - 1  # where rounding lifts a mark to the whole mass
    drawn = torch.searchsorted(mass, mark, right=True).clamp(max=last)
    return tokens.gather(1, drawn).squeeze(1)


def _likeliest(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Probabilities and tokens of each row in falling order, as many as hold `top_p` of every row."""
    n = min(_LIKELIEST, probabilities.shape[1])
    values, tokens = probabilities.topk(n)
    if n < probabilities.shape[1] and bool((values.sum(-1) < top_p).any()):
        values, tokens = probabilities.sort(descending=True)
    return values, tokens
