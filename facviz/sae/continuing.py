"""Training a finished SAE further: its weights in the form that training works on, computing what they did."""

from __future__ import annotations

from dataclasses import replace

import torch

from facviz.errors import SaeError
from facviz.sae.architectures.base import Architecture, Parameters
from facviz.sae.weights import SaeWeights

_KINDS = {
    "topk": ("topk", "paper"),
    "jumprelu": ("batchtopk", "matryoshka", "jumprelu", "gated"),
    "matching_pursuit": ("matching_pursuit",),
    "relu": ("relu", "jumprelu", "gated"),
}
"""Which architectures can take over weights of an inference kind."""


@torch.no_grad()
def continue_weights(start: SaeWeights, architecture: Architecture, parameters: Parameters, input_scale: float) -> None:
    """Put `start`, made for unscaled inputs, in place of the initial `parameters`.

    Raises:
        SaeError: the architecture, width or normalisation of `start` is another.
    """
    name, kind = architecture.config.architecture, start.activation.kind
    if name not in _KINDS.get(kind, ()):
        known = ", ".join(_KINDS.get(kind, ())) or "none"
        raise SaeError(f"A {kind} SAE cannot be trained further as {name}; architectures that can: {known}.")
    if (start.d_in, start.d_sae) != (len(parameters.b_dec), architecture.config.d_sae):
        raise SaeError(
            f"The SAE to train further reads {start.d_in} dimensions with {start.d_sae} features; this run has "
            f"{len(parameters.b_dec)} and {architecture.config.d_sae}."
        )
    if start.input_norm is not None:
        raise SaeError("An SAE that normalises every token cannot be trained further; train a new one.")
    if (start.W_dec is None) != (parameters.W_dec is None):
        tied = "a tied decoder" if start.W_dec is None else "a decoder of its own"
        raise SaeError(f"The SAE to train further has {tied}, which the architecture {name} has not.")
    start = _with_pre_bias(start)
    start = _with_unit_decoder(start) if architecture.unit_decoder else start
    parameters.W_enc.copy_(start.W_enc.T)
    parameters.b_enc.copy_(start.b_enc * input_scale)
    parameters.b_dec.copy_(start.b_dec * input_scale)
    if parameters.W_dec is not None and start.W_dec is not None:
        parameters.W_dec.copy_(start.W_dec)
    threshold = start.activation.threshold
    scaled = None if threshold is None else (threshold * input_scale).to(parameters.b_enc.device)
    architecture.continue_from(replace(start.activation, threshold=scaled), parameters)


def _with_pre_bias(weights: SaeWeights) -> SaeWeights:
    """The bias that makes (x − b_dec) @ W + b′ of x @ W + b."""
    if weights.pre_bias:
        return weights
    return replace(weights, pre_bias=True, b_enc=weights.b_enc + weights.b_dec @ weights.W_enc)


def _with_unit_decoder(weights: SaeWeights) -> SaeWeights:
    """Row norms of the decoder moved into the encoder; top-k features then compete by what they add to x̂."""
    if weights.W_dec is None:
        return weights
    norms = weights.W_dec.norm(dim=1)
    norms = torch.where(norms > 0, norms, 1.0)
    threshold = weights.activation.threshold
    return replace(
        weights,
        W_enc=weights.W_enc * norms,
        b_enc=weights.b_enc * norms,
        W_dec=weights.W_dec / norms.unsqueeze(1),
        activation=replace(weights.activation, threshold=None if threshold is None else threshold * norms),
    )
