"""Gated: one affine map decides whether a feature fires, a rescaled copy of it how strongly.

Source: Rajamanoharan et al. 2024, arXiv 2404.16014. Exported as the JumpReLU that it is (identity in `sae.formats`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from facviz.sae.architectures.base import Parameters, Step
from facviz.sae.architectures.penalised import PenalisedArchitecture
from facviz.sae.codes import threshold_codes
from facviz.sae.init import InitialWeights
from facviz.sae.ops import Pattern, encode_at, mean_square, residual_at
from facviz.sae.weights import Activation


class Gated(PenalisedArchitecture):
    """`b_enc` is the gate's bias; `r_mag` and `b_mag` [d_sae] make the magnitude exp(r_mag) · W_enc·x + b_mag."""

    def extra(self, start: InitialWeights, sample: Tensor) -> dict[str, Tensor]:
        """Magnitudes begin as the plain product; gates so closed that a training step is sparse from the first."""
        start.b_enc.sub_(self.starting_threshold(start, sample))
        return {"r_mag": torch.zeros_like(start.b_enc), "b_mag": torch.zeros_like(start.b_enc)}

    def step(self, x: Tensor, parameters: Parameters, number: int) -> Step:  # noqa: ARG002
        """Squared error, L1 of the gates, and the squared error of the gates through a decoder taken as constant."""
        centred = x - parameters.b_dec
        selected = threshold_codes(self.selection_acts(centred, parameters), 0.0)
        pattern = Pattern.of(selected, self.config.d_sae)
        nothing = torch.zeros_like(parameters.b_enc)
        plain = encode_at(centred, parameters.W_enc, nothing, parameters.b_dec, pattern)
        b_enc, r_mag, b_mag = (
            tensor.index_select(0, pattern.features)
            for tensor in (parameters.b_enc, parameters.extra["r_mag"], parameters.extra["b_mag"])
        )
        gate = (plain + b_enc).relu()
        acts = (r_mag.exp() * plain + b_mag).relu() * (gate.detach() > 0)
        error = residual_at(centred, acts, parameters.decoder, pattern)
        by_gates = residual_at(centred.detach(), gate, parameters.decoder.detach(), pattern)
        loss = mean_square(error) + mean_square(by_gates) + self.sparsity.weight * gate.sum() / len(x)
        return Step(loss, error, pattern, acts)

    def activation(self, parameters: Parameters) -> Activation:
        """Thresholds of the JumpReLU that selects alike."""
        ratio = parameters.extra["r_mag"].detach().exp()
        return Activation("jumprelu", threshold=parameters.extra["b_mag"].detach() - ratio * parameters.b_enc.detach())

    def inference(self, parameters: Parameters) -> tuple[Tensor, Tensor, Activation]:
        """Encoder and bias of that JumpReLU: the map that gives magnitudes."""
        W_enc = parameters.W_enc.detach() * parameters.extra["r_mag"].detach().exp().unsqueeze(1)
        return W_enc, parameters.extra["b_mag"].detach(), self.activation(parameters)

    def continue_from(self, activation: Activation, parameters: Parameters) -> None:
        """Read a JumpReLU as gates: magnitudes are its pre-activations, gates open above its thresholds."""
        threshold = activation.threshold
        parameters.extra["b_mag"].data.copy_(parameters.b_enc.data)
        if threshold is not None:
            parameters.b_enc.data.sub_(threshold)
