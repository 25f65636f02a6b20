"""Auxiliary loss that asks dead features to explain what the living ones leave over (Gao et al. 2024, aux-k)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def longest_silent(tokens_since_fired: Tensor, dead_after_tokens: int, limit: int) -> Tensor:
    """Ids of features silent for more than `dead_after_tokens` tokens, the longest silent first, at most `limit`.

    The limit bounds the cost of a step while many features are dead; revived ones make room for the next.
    """
    if int(tokens_since_fired.max()) <= dead_after_tokens:
        return tokens_since_fired.new_empty(0)
    order = tokens_since_fired.argsort(descending=True, stable=True)[:limit]
    return order[tokens_since_fired[order] > dead_after_tokens]


@dataclass(frozen=True, slots=True, eq=False)
class Revival:
    """The loss of the dead features chosen, and its gradients by their rows of W_enc, b_enc and W_dec."""

    loss: Tensor
    dead: Tensor
    gradients: tuple[Tensor, ...]

    def add_to(self, parameters: Sequence[Tensor], coefficient: float) -> None:
        """Add `coefficient` × the gradients to those of the whole W_enc, b_enc and W_dec."""
        for parameter, gradient in zip(parameters, self.gradients):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.index_add_(0, self.dead, gradient, alpha=coefficient)


def revive(residual: Tensor, centred: Tensor, weights: Sequence[Tensor], dead: Tensor, aux_k: int) -> Revival | None:
    """Let the `dead` features explain the residual; None where there is none to ask.

    `weights` are W_enc [d_sae, d_in], b_enc and W_dec [d_sae, d_in]. Gradients are taken by copies of the dead rows:
    through the whole matrices they would be as large as these.
    """
    if not len(dead) or aux_k == 0:
        return None
    W_enc, b_enc, W_dec = rows = tuple(weight.detach()[dead].requires_grad_() for weight in weights)
    loss = revival_loss(residual.detach(), centred.detach(), (W_enc, b_enc, W_dec), aux_k)
    return Revival(loss.detach(), dead, torch.autograd.grad(loss, rows))


def revival_loss(residual: Tensor, centred: Tensor, weights: tuple[Tensor, Tensor, Tensor], aux_k: int) -> Tensor:
    """Share of the residual's variance that the top `aux_k` of these features of each token leave unexplained.

    `residual` and `centred` are [n, d_in].
    """
    W_enc, b_enc, W_dec = weights
    acts = torch.addmm(b_enc, centred, W_enc.T).relu()
    top = acts.topk(min(aux_k, len(b_enc)), dim=1, sorted=False)
    explained = torch.zeros_like(acts).scatter(1, top.indices, top.values) @ W_dec
    variance = (residual - residual.mean(0)).square().sum()
    return (residual - explained).square().sum() / variance.clamp_min(torch.finfo(variance.dtype).tiny)
