"""What decoder directions say without any data: the output tokens they promote and the features they resemble."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from facviz.errors import SaeError

_CHUNK_BYTES = 64 * 2**20


@torch.no_grad()
def top_output_tokens(
    W_dec: Tensor, unembedding: Tensor, k: int, *, final_norm_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Token ids and logits [n, k], strongest first, of W_dec [n, d_in] through `unembedding` [vocab, d_in].

    `final_norm_weight` [d_in] is the gain of the model's last norm, which a direction passes on its way out.
    """
    logits, ids = _chunked_top(W_dec, unembedding.to(torch.float32), k, gain=final_norm_weight)
    return ids, logits


@torch.no_grad()
def logit_spread(
    W_dec: Tensor, unembedding: Tensor, *, final_norm_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [n] of each direction's logits over the vocabulary, which are never all formed.

    A direction in the middle of a model often promotes nothing: its top tokens are then what noise ranks first, about
    four standard deviations out in a vocabulary of 50,000.
    """
    table = unembedding.to(torch.float32)
    mean = table.mean(dim=0)
    centred = table - mean
    is_small = len(table) < table.shape[1]  # then the logits themselves are the shorter way
    covariance = None if is_small else centred.T @ centred / len(table)
    means, variances = [], []
    for _, rows in _chunks(W_dec, W_dec.shape[1], final_norm_weight):
        means.append(rows @ mean)
        if covariance is None:
            variances.append((rows @ centred.T).square().mean(dim=1))
        else:
            variances.append(((rows @ covariance) * rows).sum(dim=1))
    return torch.cat(means), torch.cat(variances).clamp_min(0).sqrt()


@torch.no_grad()
def nearest_features(W_dec: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ids and cosines [d_sae, k] of the features with the most similar decoder rows, closest first, self excluded."""
    rows = torch.nn.functional.normalize(W_dec.to(torch.float32), dim=1)
    cosines, ids = _chunked_top(rows, rows, k, exclude_self=True)
    return ids, cosines


def _chunked_top(
    rows: Tensor, table: Tensor, k: int, *, gain: Tensor | None = None, exclude_self: bool = False
) -> tuple[Tensor, Tensor]:
    n_choices = len(table) - exclude_self
    if rows.shape[1:] != table.shape[1:] or not 0 < k <= n_choices:
        raise SaeError(
            f"Cannot rank the top {k} of {n_choices} for shapes {tuple(rows.shape)} and {tuple(table.shape)}; "
            "widths must agree and k fit."
        )
    tops = []
    for start, chunk in _chunks(rows, len(table), gain):
        scores = chunk @ table.T
        if exclude_self:
            scores.diagonal(offset=start).fill_(-torch.inf)
        tops.append(scores.topk(k, dim=1))
    return torch.cat([top.values for top in tops]), torch.cat([top.indices for top in tops])


def _chunks(rows: Tensor, width: int, gain: Tensor | None) -> Iterator[tuple[int, Tensor]]:
    """Rows [start, …) in float32, times `gain`, so few that neither they nor `width` values for each take much."""
    size = max(1, _CHUNK_BYTES // (4 * max(width, rows.shape[1])))
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size].to(torch.float32)
        yield start, chunk if gain is None else chunk * gain.to(torch.float32)
