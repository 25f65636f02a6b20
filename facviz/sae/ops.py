"""Sparse training kernels: encoding and residuals at selected positions, whose gradients never touch [batch, d_sae].

All sums are embedding bags, once over the features of a token and once over the tokens of a feature. Each bag is added
up by one thread in a fixed order, so results repeat bitwise at the same number of threads, which COO products and
scattered additions do not promise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import embedding_bag

from facviz.sae.codes import Codes

_bag_by_weights = torch.ops.aten._embedding_bag_per_sample_weights_backward
_SUM = 0
"""Its number for bags that are sums."""


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """Where codes are non-zero, listed by token and (`order`, `feature_offsets`) by feature."""

    features: Tensor  # [nnz]
    offsets: Tensor  # [n + 1]
    tokens: Tensor  # [nnz]
    order: Tensor  # [nnz] entries sorted by feature, then token
    ordered_tokens: Tensor  # [nnz] their tokens
    feature_offsets: Tensor  # [d_sae + 1]

    @property
    def n_tokens(self) -> int:
        """Tokens, with or without an entry."""
        return len(self.offsets) - 1

    @classmethod
    def of(cls, codes: Codes, d_sae: int) -> Pattern:
        """The pattern of codes; their values are dropped."""
        counts = torch.bincount(codes.indices, minlength=d_sae)
        feature_offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        order = codes.indices.to(_narrowest(d_sae)).argsort(stable=True)
        tokens = codes.tokens
        return cls(codes.indices, codes.offsets, tokens, order, tokens[order], feature_offsets)


def _narrowest(n: int) -> torch.dtype:
    """Smallest type for ids below n: sorting is by the byte."""
    return next((t for t in (torch.int16, torch.int32) if n <= torch.iinfo(t).max), torch.int64)


def sum_by_token(pattern: Pattern, values: Tensor, table: Tensor) -> Tensor:
    """[n, d]: for each token the sum of `values` × rows of table [d_sae, d]."""
    return _bag(pattern.features, table, pattern.offsets, values)


def sum_by_feature(pattern: Pattern, values: Tensor, rows: Tensor) -> Tensor:
    """[d_sae, d]: for each feature the sum of `values` × rows [n, d]; zero for features without an entry."""
    return _bag(pattern.ordered_tokens, rows, pattern.feature_offsets, values[pattern.order])


def dots_at(pattern: Pattern, rows: Tensor, table: Tensor) -> Tensor:
    """[nnz] products rows[token] · table[feature], for rows [n, d] and table [d_sae, d].

    They are the derivative of a bag by its weights, for which torch has a kernel that never gathers [nnz, d]; asking
    autograd for it would compute the bag first.
    """
    args = rows.contiguous(), table.detach(), pattern.features, pattern.offsets, pattern.tokens
    dots: Tensor = _bag_by_weights(*args, _SUM, -1)
    return dots


def row_dots(first: Tensor, second: Tensor) -> Tensor:
    """[n] products of rows of equal place, for two tensors [n, d]; their elementwise product is never written down."""
    rows = torch.arange(len(first) + 1, device=first.device)
    dots: Tensor = _bag_by_weights(first, second, rows[:-1], rows, rows[:-1], _SUM, -1)
    return dots


def _bag(indices: Tensor, table: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    return embedding_bag(indices, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


class _EncodeAt(Function):
    @staticmethod
    def forward(  # b_dec is here for its gradient
        ctx: Any,
        centred: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        b_dec: Tensor,  # noqa: ARG004
        pattern: Pattern,
    ) -> Tensor:
        ctx.save_for_backward(centred, W_enc)
        ctx.pattern = pattern
        return dots_at(pattern, centred, W_enc) + b_enc[pattern.features]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None]:
        centred, W_enc = ctx.saved_tensors
        grad, pattern = grads[0].contiguous(), ctx.pattern
        grad_b_enc = torch.zeros(len(W_enc), device=grad.device).index_add_(0, pattern.features, grad)
        return None, sum_by_feature(pattern, grad, centred), grad_b_enc, -(grad_b_enc @ W_enc), None


def encode_at(centred: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, pattern: Pattern) -> Tensor:
    """[nnz] pre-activations at the pattern, for centred = x − b_dec [n, d_in] and W_enc as rows [d_sae, d_in].

    The gradient of b_dec follows from that of b_enc, so that none by tokens is needed; `centred` itself gets none.
    """
    values: Tensor = _EncodeAt.apply(centred, W_enc, b_enc, b_dec, pattern)  # type: ignore[no-untyped-call]
    return values


class _MeanSquare(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        flat = values.flatten()
        return flat.dot(flat) / flat.numel()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        grad: Tensor = values * (2 / values.numel() * grads[0])
        return grad


def mean_square(values: Tensor) -> Tensor:
    """The mean of the squares, without the three copies of `values` that autograd makes of it."""
    mean: Tensor = _MeanSquare.apply(values)  # type: ignore[no-untyped-call]
    return mean


class _ResidualAt(Function):
    @staticmethod
    def forward(ctx: Any, centred: Tensor, values: Tensor, W_dec: Tensor, pattern: Pattern) -> Tensor:
        negative = -values
        ctx.save_for_backward(negative, W_dec)
        ctx.pattern = pattern
        return sum_by_token(pattern, negative, W_dec).add_(centred)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        negative, W_dec = ctx.saved_tensors
        grad, pattern = grads[0].contiguous(), ctx.pattern
        of_values = -dots_at(pattern, grad, W_dec) if ctx.needs_input_grad[1] else None
        of_rows = sum_by_feature(pattern, negative, grad) if ctx.needs_input_grad[2] else None
        return grad, of_values, of_rows, None


def residual_at(centred: Tensor, values: Tensor, W_dec: Tensor, pattern: Pattern) -> Tensor:
    """[n, d_in] centred − decoded, without a copy of what was decoded."""
    residual: Tensor = _ResidualAt.apply(centred, values, W_dec, pattern)  # type: ignore[no-untyped-call]
    return residual
