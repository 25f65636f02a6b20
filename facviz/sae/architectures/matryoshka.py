"""Matryoshka-BatchTopK: every prefix of the dictionary must reconstruct by itself, so that early features stay general.

Source: Bussmann et al. 2025, arXiv 2503.17547.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facviz.sae.architectures.base import Parameters, Step
from facviz.sae.architectures.batchtopk import BatchTopK
from facviz.sae.codes import codes_where
from facviz.sae.ops import Pattern, mean_square, residual_at

_DIVISORS = (16, 4, 1)
"""Widths of the prefixes where the config names none, as parts of d_sae."""


class MatryoshkaBatchTopK(BatchTopK):
    """BatchTopK whose loss is the mean over prefixes of their squared errors."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Ascending numbers of features of the prefixes; the last is the whole dictionary."""
        d_sae = self.config.d_sae
        named = self.config.matryoshka_widths or tuple(d_sae // part for part in _DIVISORS)
        return tuple(sorted({width for width in named if 0 < width < d_sae} | {d_sae}))

    def reconstruct(self, x: Tensor, centred: Tensor, acts: Tensor, pattern: Pattern, parameters: Parameters) -> Step:
        """Each group of features is decoded once and added to the groups before it."""
        error, losses, first = centred, [], 0
        for width in self.widths:
            is_in = (pattern.features >= first) & (pattern.features < width)
            group = Pattern.of(codes_where(pattern.features, pattern.tokens, len(x), is_in), self.config.d_sae)
            error = residual_at(error, acts[is_in], parameters.decoder, group)
            losses.append(mean_square(error))
            first = width
        return Step(torch.stack(losses).mean(), error, pattern, acts)
