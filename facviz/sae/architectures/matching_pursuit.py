"""Matching pursuit: features are chosen one after another, each for what those before it left of the token.

Where more features overlap than one linear map can tell apart, this finds them; it costs k passes over the dictionary.
Sources: Mallat and Zhang 1993; as an SAE, Costa et al. 2025, arXiv 2506.03093.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from facviz.sae.architectures.base import Architecture, Parameters, Step
from facviz.sae.codes import matching_pursuit_codes
from facviz.sae.init import InitialWeights
from facviz.sae.ops import Pattern, mean_square, residual_at
from facviz.sae.weights import Activation


class MatchingPursuit(Architecture):
    """Encoder and decoder are one matrix of unit rows; `b_enc` stays zero."""

    decoder_rate = 1.0

    def start(self, sample: Tensor) -> InitialWeights:
        """One matrix: the decoder's unit rows."""
        first = super().start(sample)
        return first if first.W_dec is None else replace(first, W_enc=first.W_dec, W_dec=None)

    def step(self, x: Tensor, parameters: Parameters, number: int) -> Step:  # noqa: ARG002
        """The mean squared error per input dimension, for the activations that the pursuit gave."""
        centred = x - parameters.b_dec
        with torch.no_grad():
            codes = matching_pursuit_codes(centred, parameters.decoder, self.k, self.selection_dtype)
        pattern = Pattern.of(codes, self.config.d_sae)
        error = residual_at(centred, codes.values, parameters.decoder, pattern)
        unused = 0 * parameters.b_enc.sum()  # the optimiser keeps a state of every parameter
        return Step(mean_square(error) + unused, error, pattern, codes.values)

    def activation(self, parameters: Parameters) -> Activation:  # noqa: ARG002
        """The pursuit, of k steps."""
        return Activation("matching_pursuit", k=self.k)
