"""Auxiliary loss that asks dead features to explain what the living ones leave over (Gao et al. 2024, aux-k)."""

from __future__ import annotations

import torch
from torch import Tensor


def longest_silent(tokens_since_fired: Tensor, dead_after_tokens: int, limit: int) -> Tensor:
    """Ids of features silent for more than `dead_after_tokens` tokens, the longest silent first, at most `limit`.

    The limit bounds the cost of a step while many features are dead; revived ones make room for the next.
    """
    order = tokens_since_fired.argsort(descending=True, stable=True)[:limit]
    return order[tokens_since_fired[order] > dead_after_tokens]


def revival_loss(
    residual: Tensor, centred: Tensor, weights: tuple[Tensor, Tensor, Tensor], dead: Tensor, aux_k: int
) -> Tensor:
    """Share of the residual's variance that the top `aux_k` dead features of each token leave unexplained.

    `weights` are W_enc [d_sae, d_in], b_enc and W_dec [d_sae, d_in]; only their `dead` rows take part, so living
    features get no gradient. `residual` and `centred` inputs [n, d_in] are taken as constants.
    """
    W_enc, b_enc, W_dec = weights
    if not len(dead) or aux_k == 0:
        return residual.new_zeros(())
    residual, centred = residual.detach(), centred.detach()
    acts = torch.addmm(b_enc[dead], centred, W_enc[dead].T).relu()
    top = acts.topk(min(aux_k, len(dead)), dim=1, sorted=False)
    explained = torch.zeros_like(acts).scatter(1, top.indices, top.values) @ W_dec[dead]
    variance = (residual - residual.mean(0)).square().sum()
    return (residual - explained).square().sum() / variance.clamp_min(torch.finfo(variance.dtype).tiny)
