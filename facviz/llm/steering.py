"""Pushes along given directions while a local model writes, and how far a push moves the model's predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache

from facviz.backbone import Backbone
from facviz.errors import LLMError
from facviz.records import SteeringVector

_ROWS_AT_ONCE = 8
"""Texts whose predictions, one per vocabulary entry and token, are held at once; each is read twice."""


class Push:
    """Adds to each row's last `n_tokens` places the vector of that row; rows without one get nothing.

    What is pushed is where the backbone's SAE reads, at the layer each vector names. Nothing is pushed until `at` says
    which rows the next forwards read. A vector that says what its feature is read by pushes a reply only until the
    feature has fired in it: the layer is read before the push, so as it would be without one.
    """

    def __init__(self, backbone: Backbone, vectors: Sequence[SteeringVector | None]) -> None:
        self._backbone = backbone
        self._table: dict[int, Tensor] = {}
        self._ends: dict[int, tuple[Tensor, Tensor]] = {}
        self._rows: Tensor | None = None
        self._replies: Tensor | None = None
        self._has_fired = torch.zeros(0, dtype=torch.bool, device=backbone.model.device)
        for row, steering in enumerate(vectors):
            if steering is None:
                continue
            if steering.vector.shape != (backbone.d_model,):
                raise LLMError(
                    f"A push has the shape {steering.vector.shape}, and {backbone.name} needs [{backbone.d_model}]; "
                    "take directions of an SAE made for this model."
                )
            empty = torch.zeros(len(vectors), backbone.d_model, device=backbone.model.device)
            table = self._table.setdefault(steering.layer, empty)
            table[row] = torch.as_tensor(steering.vector, dtype=torch.float32, device=table.device)
            if steering.reads is not None:
                never = torch.zeros_like(empty), torch.full((len(vectors),), torch.inf, device=table.device)
                reads, limits = self._ends.setdefault(steering.layer, never)
                reads[row] = torch.as_tensor(steering.reads, dtype=torch.float32, device=table.device)
                limits[row] = steering.ends_above

    @contextmanager
    def applied(self) -> Iterator[Push]:
        """Inside, forwards are pushed as `at` says; undone after, whatever happens."""
        with ExitStack() as stack:
            for layer in self._table:
                handle = self._backbone.at(layer).change_model_acts(partial(self._add, layer))
                stack.callback(handle.remove)
            yield self

    def follow(self, n_replies: int) -> None:
        """Begin replies, of which none has made its feature fire."""
        self._has_fired = torch.zeros(n_replies, dtype=torch.bool, device=self._has_fired.device)

    def at(self, rows: Tensor | None, n_tokens: int = 1, replies: Tensor | None = None) -> None:
        """The next forwards read these rows of the table and are pushed in their last `n_tokens`; None: not at all.

        `replies` are the numbers of followed replies that they continue by one token.
        """
        self._rows, self._n_tokens, self._replies = rows, n_tokens, replies

    def _add(self, layer: int, acts: Tensor) -> Tensor:
        if self._rows is None:
            return acts
        pushes = self._table[layer][self._rows]
        if self._replies is not None and layer in self._ends:
            reads, limits = (table[self._rows] for table in self._ends[layer])
            self._has_fired[self._replies] |= (acts[:, -1].to(torch.float32) * reads).sum(-1) > limits
            pushes = pushes * ~self._has_fired[self._replies].unsqueeze(1)
        acts = acts.clone()
        acts[:, -self._n_tokens :] += pushes.unsqueeze(1).to(acts.dtype)
        return acts


@torch.inference_mode()
def mean_divergence(
    backbone: Backbone, steering: SteeringVector, prompt: Sequence[int], replies: Sequence[Sequence[int]]
) -> float:
    """Mean KL(pushed ‖ plain) in nats a token of the predictions that write `replies` after `prompt`; 0 for none."""
    written = [list(ids) for ids in replies if len(ids)]
    total, n_tokens = 0.0, 0
    for start in range(0, len(written), _ROWS_AT_ONCE):
        part = written[start : start + _ROWS_AT_ONCE]
        total += _summed(backbone, steering, prompt, part)
        n_tokens += sum(map(len, part))
    return total / n_tokens if n_tokens else 0.0


def _summed(
    backbone: Backbone, steering: SteeringVector, prompt: Sequence[int], replies: Sequence[Sequence[int]]
) -> float:
    """Every reply stands in the batch twice, pushed and plain, after one reading of the prompt's start."""
    model, n = backbone.model, len(replies)
    cache = DynamicCache(config=model.config)
    push = Push(backbone, [steering, None])
    with push.applied():
        if len(prompt) > 1:
            start = torch.tensor([list(prompt[:-1])], device=model.device)
            model(input_ids=start, **backbone.keeping(cache), logits_to_keep=1)
            cache.batch_repeat_interleave(2 * n)
        width = max(map(len, replies))  # the last token of a reply is predicted, and need not be read
        read = [[prompt[-1], *ids[:-1], *[0] * (width - len(ids))] for ids in replies]
        ids = torch.tensor(read, device=model.device)
        push.at(torch.arange(2, device=model.device).repeat_interleave(n), n_tokens=width)
        logits = model(input_ids=ids.repeat(2, 1), **backbone.keeping(cache)).logits
    total = 0.0
    for row, reply in enumerate(replies):
        pushed, plain = (logits[i, : len(reply)].to(torch.float32).log_softmax(-1) for i in (row, n + row))
        total += float((pushed.exp() * (pushed - plain)).sum(-1).clamp(min=0).double().sum())
    return total
