"""A local Hugging Face chat model as LLMClient: no key, no network, replies fixed by the request's seed.

Replies are sampled by a loop of its own: those of many requests in one batch that shrinks as replies end, and without
sorting the vocabulary at every step, which would cost as much as the model (measured with 32 replies on two cores).
A request with a steering vector is pushed by it from the last token of its prompt on, each row of a batch by its own.
Texts to avoid are never repeated at length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile

import torch
from torch import Tensor
from transformers import DynamicCache

from facviz.backbone import Backbone, Renderer
from facviz.errors import LLMError
from facviz.llm.avoiding import RUN_TOKENS, Avoided, rule_out
from facviz.llm.room import roomy_cache
from facviz.llm.steering import Push, mean_divergence
from facviz.records import LLMReply, LLMRequest, Outcome

_ROWS_AT_ONCE = 64  # twice as many gain little on two cores, and their cache grows
_MAX_STRETCH = 2  # the longest prompt of a batch in lengths of its shortest, which is padded to it
_WORTH_CLOSING = 0.75  # rows of ended replies are read along until fewer than this are still written
_LIKELIEST = 1024  # the nucleus is nearly always among these; where it is not, the whole vocabulary is sorted


class LocalChat:
    """Samples replies in batches; what the prompts of a batch begin with is read once, its cache shared.

    A request with nobody to answer, its messages only a system message or none, gets what a user might ask instead: the
    model continues the template's user turn (Magpie).
    """

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
        """Alike requests side by side, each with its own seed; rounding aside, a reply depends on its request alone."""
        prompts = [self._prompt(request) for request in requests]
        found: dict[int, list[LLMReply]] = {}
        for batch in _batches(requests, [len(ids) for ids in prompts]):
            rows = iter(self._sample([requests[i] for i in batch], [prompts[i] for i in batch]).tolist())
            for i in batch:
                found[i] = [self._reply(ids) for ids in islice(rows, requests[i].n)]
        return [found[i] for i in range(len(requests))]

    def divergence(self, request: LLMRequest, texts: Sequence[str]) -> float:
        """How far the request's push moves the predictions that write `texts`: mean KL(pushed ‖ plain), nats a token.

        0 for a request without a push, and where there is no text.
        """
        if request.steering is None:
            return 0.0
        written = [self._backbone.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        return mean_divergence(self._backbone, request.steering, self._prompt(request), written)

    def _sample(self, requests: Sequence[LLMRequest], prompts: Sequence[list[int]]) -> Tensor:
        """Reply ids [replies, max_tokens] of requests that share their limits, filled up with end tokens."""
        with Push(self._backbone, [request.steering for request in requests]).applied() as push:
            return self._write(requests, prompts, push)

    @torch.inference_mode()
    def _write(self, requests: Sequence[LLMRequest], prompts: Sequence[list[int]], push: Push) -> Tensor:
        model, end, first = self._backbone.model, min(self._stops, default=0), requests[0]
        device = model.device
        stops = torch.tensor(sorted(self._stops), device=device)
        generators = [torch.Generator(device).manual_seed(request.rng_seed) for request in requests]
        cache = roomy_cache(model.config, first.max_tokens)
        read, mask = self._read(prompts, cache, push)
        source = torch.repeat_interleave(
            torch.arange(len(requests), device=device), torch.tensor([r.n for r in requests], device=device)
        )
        cache.batch_select_indices(source)
        logits, mask = read[source], mask[source]
        next_place = mask.sum(-1)
        replies = torch.full((len(source), first.max_tokens), end, device=device)
        rows = torch.arange(len(source), device=device)  # the reply of each row of the cache
        alive = rows  # rows whose reply goes on
        push.follow(len(source))
        by_texts = {texts: Avoided(self._backbone.tokenizer, texts) for texts in {r.avoid for r in requests}}
        avoided = [by_texts[request.avoid] for request in requests]
        longest = max(texts.longest for texts in avoided)
        for step in range(first.max_tokens):
            if step:
                mask = torch.nn.functional.pad(mask, (0, 1), value=1)
                padding = (
                    {} if len(requests) == 1 else {"attention_mask": mask, "position_ids": next_place.unsqueeze(1)}
                )
                push.at(source[rows], replies=rows)
                last = replies[rows, step - 1].unsqueeze(1)
                logits = model(input_ids=last, **self._backbone.keeping(cache), **padding).logits[alive, -1]
                next_place = next_place + 1
            running = rows[alive]
            if step >= RUN_TOKENS and longest:
                written = replies[running, max(0, step - longest) : step]
                rule_out(logits, avoided, source[running].tolist(), written.tolist())
            n_running = torch.bincount(source[running], minlength=len(requests)).tolist()
            tokens = draw_tokens(logits, first.temperature, first.top_p, generators, n_running)
            replies[running, step] = tokens
            goes_on = (~torch.isin(tokens, stops)).nonzero().squeeze(1)
            if not len(goes_on):
                break
            alive = alive[goes_on]
            if len(alive) <= _WORTH_CLOSING * len(rows):
                cache.batch_select_indices(alive)
                rows, mask, next_place = rows[alive], mask[alive], next_place[alive]
                alive = torch.arange(len(rows), device=device)
        return replies

    def _read(self, prompts: Sequence[list[int]], cache: DynamicCache, push: Push) -> tuple[Tensor, Tensor]:
        """Logits [prompts, vocabulary] after each prompt, and which places of the cache are real [prompts, places]."""
        model = self._backbone.model
        n_shared = _n_shared(prompts) if len(prompts) > 1 else 0
        if n_shared:
            shared = torch.tensor([prompts[0][:n_shared]], device=model.device)
            model(input_ids=shared, **self._backbone.keeping(cache), logits_to_keep=1)
            cache.batch_repeat_interleave(len(prompts))
        rests = [ids[n_shared:] for ids in prompts]
        width = max(map(len, rests))
        ids = torch.tensor([[0] * (width - len(rest)) + rest for rest in rests], device=model.device)
        own = torch.tensor([[0] * (width - len(rest)) + [1] * len(rest) for rest in rests], device=model.device)
        mask = torch.nn.functional.pad(own, (n_shared, 0), value=1)
        places = (mask.cumsum(-1) - 1).clamp(min=0)[:, n_shared:]
        padding = {} if len(prompts) == 1 else {"attention_mask": mask, "position_ids": places}
        push.at(torch.arange(len(prompts), device=model.device))
        read = model(input_ids=ids, **self._backbone.keeping(cache), logits_to_keep=1, **padding)
        return read.logits[:, -1], mask

    def _prompt(self, request: LLMRequest) -> list[int]:
        is_asked = any(message.role != "system" for message in request.messages)
        read = self._renderer.generation_prompt if is_asked else self._renderer.query_prompt
        ids = read(request.messages)
        limit = getattr(self._backbone.model.config, "max_position_embeddings", None)
        if limit is not None and len(ids) + request.max_tokens > limit:
            raise LLMError(f"The prompt has {len(ids)} tokens, too many for {self.name}; show fewer spans.")
        return ids

    def _reply(self, ids: list[int]) -> LLMReply:
        kept = list(takewhile(lambda token: token not in self._stops, ids))
        text = self._backbone.tokenizer.decode(kept, skip_special_tokens=True).strip()
        return LLMReply(text, Outcome.OK if len(kept) < len(ids) else Outcome.TRUNCATED, len(kept))


def _batches(requests: Sequence[LLMRequest], lengths: Sequence[int]) -> list[list[int]]:
    """Indices of requests to sample together: of equal limits, and of similar length as they are padded to one."""
    found: list[list[int]] = []
    limits = [(r.max_tokens, r.temperature, r.top_p) for r in requests]
    for i in sorted(range(len(requests)), key=lambda i: (limits[i], lengths[i])):
        batch = found[-1] if found else []
        fits = sum(requests[k].n for k in batch) + requests[i].n <= _ROWS_AT_ONCE
        if batch and fits and limits[batch[0]] == limits[i] and lengths[i] <= _MAX_STRETCH * lengths[batch[0]]:
            batch.append(i)
        else:
            found.append([i])
    return found


def _n_shared(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with; at least one is left to each."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*(ids[:-1] for ids in prompts)))
    return sum(1 for _ in alike)


def draw_tokens(
    logits: Tensor, temperature: float, top_p: float, generators: Sequence[torch.Generator], n_rows: Sequence[int]
) -> Tensor:
    """One token [n] per row of logits [n, vocabulary], from its nucleus: the fewest tokens that hold `top_p`.

    The first `n_rows[0]` rows are drawn by the first generator, and so on. Temperature 0 takes the likeliest token.
    """
    if temperature == 0:
        return logits.argmax(-1)
    values, tokens = _likeliest((logits.float() / temperature).softmax(-1), top_p)
    mass_before = values.cumsum(-1) - values
    in_nucleus = mass_before < top_p
    in_nucleus[:, 0] = True
    mass = (values * in_nucleus).cumsum(-1)
    draws = [torch.rand(n, 1, generator=g, device=mass.device) for g, n in zip(generators, n_rows)]
    mark = torch.cat(draws) * mass[:, -1:]
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
