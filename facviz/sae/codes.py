"""Sparse codes of tokens and the ways to select them from dense pre-activations.

Selections keep strictly positive values only, ascending by feature within a token, and depend on nothing but their
arguments, so that training and inference share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_PROBED_ROWS = 64
_GROUPS, _GROUPS_FOR_ONE = (8, 4), 4  # columns; grouping pays from four groups for each entry wanted


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """Feature activations of n tokens, token-major: token t owns `indices[offsets[t]:offsets[t+1]]`.

    `shift` and `scale` [n, 1] undo a per-token normalisation of the input; None where there is none.
    """

    indices: Tensor  # [nnz] int64, ascending within a token
    values: Tensor  # [nnz] float32, all > 0
    offsets: Tensor  # [n + 1] int64
    shift: Tensor | None = None
    scale: Tensor | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens, with or without active features."""
        return len(self.offsets) - 1

    @property
    def tokens(self) -> Tensor:
        """[nnz] token of each entry."""
        return torch.arange(self.n_tokens, device=self.offsets.device).repeat_interleave(self.offsets.diff())


def codes_at(pre: Tensor, tokens: Tensor, features: Tensor) -> Codes:
    """Codes of the given entries of pre [n, d_sae], which must come sorted by token, then feature."""
    counts = torch.bincount(tokens, minlength=len(pre))
    return Codes(features, pre[tokens, features], _offsets(counts))


def largest(pre: Tensor, k: int) -> Tensor:
    """[n, k] columns of the k largest entries of each row of pre [n, d], in no order.

    The k largest stand in the k groups with the largest maxima, so most of a wide row is compared only once.
    """
    d = pre.shape[1]
    size = next((size for size in _GROUPS if d % size == 0 and d // size >= _GROUPS_FOR_ONE * k), None)
    if size is None:
        return pre.topk(k, dim=1, sorted=False).indices
    grouped = pre.view(len(pre), size, d // size)  # columns of a group lie apart: maxima are of whole vectors
    groups = largest(grouped.amax(1), k)
    members = grouped.gather(2, groups.unsqueeze(1).expand(-1, size, -1)).flatten(1)
    places = members.topk(k, dim=1, sorted=False).indices
    columns: Tensor = groups.gather(1, places % k) + places.div(k, rounding_mode="floor") * (d // size)
    return columns


def top_k_codes(pre: Tensor, k: int) -> Codes:
    """Top k of every token, then ReLU: at most k features a token."""
    features = largest(pre, k).sort(dim=1).values
    values = pre.gather(1, features)
    kept = values > 0
    if bool(kept.all()):
        return Codes(features.flatten(), values.flatten(), torch.arange(0, features.numel() + 1, k, device=pre.device))
    return Codes(features[kept], values[kept], _offsets(kept.sum(1)))


def matching_pursuit_codes(x: Tensor, decoder: Tensor, k: int, dtype: torch.dtype = torch.float32) -> Codes:
    """Codes of centred x [n, d_in] by k steps: take the unit row of `decoder` [d_sae, d_in] nearest to what is left.

    A row taken again adds to its activation. Rows are compared in `dtype`; activations are float32.
    """
    rows, residual = decoder.to(dtype), x
    chosen, values = [], []
    for _ in range(k):
        features = (residual.to(dtype) @ rows.T).argmax(1)
        taken = decoder[features]
        value = torch.linalg.vecdot(residual, taken).relu()
        residual = residual - value.unsqueeze(1) * taken
        chosen.append(features)
        values.append(value)
    return _added_up(torch.stack(chosen, 1), torch.stack(values, 1), len(decoder))


def _added_up(features: Tensor, values: Tensor, d_sae: int) -> Codes:
    """Codes of features [n, k] that may repeat within a token; what is zero is left out."""
    n_tokens = len(features)
    tokens = torch.arange(n_tokens, device=features.device).unsqueeze(1).expand_as(features)
    entries, place = torch.unique((tokens * d_sae + features).flatten(), return_inverse=True)
    acts = values.new_zeros(len(entries)).index_add_(0, place, values.flatten())
    entries, acts = entries[acts > 0], acts[acts > 0]
    return Codes(entries % d_sae, acts, _offsets(torch.bincount(entries // d_sae, minlength=n_tokens)))


def group_max_codes(pre: Tensor, n_groups: int) -> Codes:
    """The largest entry of each of `n_groups` equal runs of neighbouring features, then ReLU."""
    values, within = pre.view(len(pre), n_groups, -1).max(dim=2)
    features = within + torch.arange(n_groups, device=pre.device) * (pre.shape[1] // n_groups)
    kept = values > 0
    return Codes(features[kept], values[kept], _offsets(kept.sum(1)))


def threshold_codes(pre: Tensor, threshold: Tensor | float) -> Codes:
    """Every entry strictly above `threshold` (a number or one per feature) and above zero."""
    positive = threshold.clamp_min(0) if isinstance(threshold, Tensor) else max(threshold, 0.0)
    tokens, features = (pre > positive).nonzero(as_tuple=True)
    return codes_at(pre, tokens, features)


def batch_top_k_codes(pre: Tensor, n_kept: int) -> Codes:
    """The `n_kept` largest entries of the whole batch, then ReLU; a token keeps as many as it deserves."""
    flat = pre.flatten()
    candidates = (flat > _safe_cutoff(pre, n_kept)).nonzero().squeeze(1)
    if len(candidates) < n_kept:
        candidates = (flat > 0).nonzero().squeeze(1)
    if len(candidates) > n_kept:
        best = flat[candidates].topk(n_kept, sorted=False).indices.sort().values
        candidates = candidates[best]
    return codes_at(pre, candidates // pre.shape[1], candidates % pre.shape[1])


def _safe_cutoff(pre: Tensor, n_kept: int) -> float:
    """A value probably below the batch's cutoff: an exact search over all entries costs ten times as much."""
    probe = pre[:: max(1, len(pre) // _PROBED_ROWS)].flatten()
    n_probe = min(len(probe), 2 * n_kept * len(probe) // pre.numel() + 1)
    return max(float(probe.topk(n_probe, sorted=False).values.min()), 0.0)


def codes_where(features: Tensor, tokens: Tensor, n_tokens: int, is_kept: Tensor) -> Codes:
    """The pattern of some of the entries listed by token; its values are the feature ids."""
    kept = features[is_kept]
    return Codes(kept, kept, _offsets(torch.bincount(tokens[is_kept], minlength=n_tokens)))


def concatenate(parts: Sequence[Codes]) -> Codes:
    """Codes of consecutive chunks of tokens as one; at least one part."""
    counts = torch.cat([part.offsets.diff() for part in parts])
    indices, values = torch.cat([p.indices for p in parts]), torch.cat([p.values for p in parts])
    shifts, scales = [p.shift for p in parts if p.shift is not None], [p.scale for p in parts if p.scale is not None]
    if not shifts or not scales:
        return Codes(indices, values, _offsets(counts))
    return Codes(indices, values, _offsets(counts), torch.cat(shifts), torch.cat(scales))


def _offsets(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
