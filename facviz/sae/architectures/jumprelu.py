"""JumpReLU: a learnt threshold per feature, trained through its step by a rectangle of width `BANDWIDTH` above zero.

Source: Rajamanoharan et al. 2024, arXiv 2407.14435. The L0 penalty's weight is controlled towards `k` (`sae.sparsity`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from facviz.sae.architectures.base import Parameters, Step
from facviz.sae.architectures.penalised import PenalisedArchitecture
from facviz.sae.codes import threshold_codes
from facviz.sae.init import InitialWeights
from facviz.sae.ops import Pattern, encode_at, mean_square, residual_at
from facviz.sae.weights import Activation

BANDWIDTH = 0.2
"""On inputs scaled to unit variance per dimension, where kept activations are about 1 to 10."""
_SMALLEST_THRESHOLD = 1e-3


class JumpReLU(PenalisedArchitecture):
    """`log_threshold` [d_sae] is trained beside the weights, in float32."""

    def extra(self, start: InitialWeights, sample: Tensor) -> dict[str, Tensor]:
        """Thresholds begin so high that a training step is sparse from the first."""
        threshold = max(self.starting_threshold(start, sample), _SMALLEST_THRESHOLD)
        return {"log_threshold": torch.full_like(start.b_enc, threshold).log()}

    def step(self, x: Tensor, parameters: Parameters, number: int) -> Step:  # noqa: ARG002
        """Squared error per input dimension plus the weighted mean L0."""
        centred = x - parameters.b_dec
        threshold = parameters.extra["log_threshold"].exp()
        nearly = threshold_codes(self.selection_acts(centred, parameters), threshold.detach() - BANDWIDTH / 2)
        pattern = Pattern.of(nearly, self.config.d_sae)
        pre = encode_at(centred, parameters.W_enc, parameters.b_enc, parameters.b_dec, pattern)
        acts, fires = jump(pre, threshold.index_select(0, pattern.features))
        error = residual_at(centred, acts, parameters.decoder, pattern)
        return Step(mean_square(error) + self.sparsity.weight * fires.sum() / len(x), error, pattern, acts)

    def activation(self, parameters: Parameters) -> Activation:
        """The learnt thresholds."""
        return Activation("jumprelu", threshold=parameters.extra["log_threshold"].detach().exp())

    def continue_from(self, activation: Activation, parameters: Parameters) -> None:
        """The thresholds of `activation`; ReLU counts as almost none."""
        threshold = activation.threshold
        smallest = torch.full_like(parameters.b_enc, _SMALLEST_THRESHOLD)
        parameters.extra["log_threshold"].data.copy_(
            (smallest if threshold is None else threshold.clamp_min(1e-3)).log()
        )


def jump(pre: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Activations and whether each fires (0 or 1), [nnz], with pseudo-derivatives by the threshold."""
    acts, fires = _Jump.apply(pre, threshold)  # type: ignore[no-untyped-call]
    return acts, fires


class _Jump(Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        fires = (pre > threshold).to(pre.dtype)
        ctx.save_for_backward(pre, threshold, fires)
        return pre * fires, fires

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        pre, threshold, fires = ctx.saved_tensors
        grad_acts, grad_fires = grads
        is_near = ((pre - threshold).abs() < BANDWIDTH / 2).to(pre.dtype) / BANDWIDTH
        return grad_acts * fires, -is_near * (threshold * grad_acts + grad_fires)
