"""What decoder directions say without any data: output tokens they promote or suppress, features they resemble."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from facviz.errors import SaeError

_CHUNK_BYTES = 64 * 2**20


class OutputTokens(NamedTuple):
    """Token ids and logits [n, k] at both ends: `top` strongest first, `low` most negative first."""

    top_ids: Tensor
    top_logits: Tensor
    low_ids: Tensor
    low_logits: Tensor


@torch.no_grad()
def output_tokens(
    W_dec: Tensor, unembedding: Tensor, k: int, *, final_norm_weight: Tensor | None = None
) -> OutputTokens:
    """The k tokens that each row of W_dec [n, d_in] promotes and suppresses most through `unembedding` [vocab, d_in].

    `final_norm_weight` [d_in] is the gain of the model's last norm, which a direction passes on its way out.
    """
    table = unembedding.to(torch.float32)
    _check(W_dec, table, k, len(table))
    ends = []
    for _, chunk in _chunks(W_dec, len(table), final_norm_weight):
        logits = chunk @ table.T
        top, low = logits.topk(k, dim=1), logits.topk(k, dim=1, largest=False)
        ends.append((top.indices, top.values, low.indices, low.values))
    return OutputTokens(*(torch.cat(parts) for parts in zip(*ends)))


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
    _check(rows, rows, k, len(rows) - 1)
    tops = []
    for start, chunk in _chunks(rows, len(rows), None):
        cosines = chunk @ rows.T
        cosines.diagonal(offset=start).fill_(-torch.inf)
        tops.append(cosines.topk(k, dim=1))
    return torch.cat([top.indices for top in tops]), torch.cat([top.values for top in tops])


def _check(rows: Tensor, table: Tensor, k: int, n_choices: int) -> None:
    if rows.shape[1:] != table.shape[1:] or not 0 < k <= n_choices:
        raise SaeError(
            f"Cannot rank the top {k} of {n_choices} for shapes {tuple(rows.shape)} and {tuple(table.shape)}; "
            "widths must agree and k fit."
        )


def _chunks(rows: Tensor, width: int, gain: Tensor | None) -> Iterator[tuple[int, Tensor]]:
    """Rows [start, …) in float32, times `gain`, so few that neither they nor `width` values for each take much."""
    size = max(1, _CHUNK_BYTES // (4 * max(width, rows.shape[1])))
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size].to(torch.float32)
        yield start, chunk if gain is None else chunk * gain.to(torch.float32)
