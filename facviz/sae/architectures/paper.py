"""The paper's recipe, for who wants to reproduce it: tied decoder, annealed k, loss normalised by each token's norm.

Source: arXiv 2602.10388 and its published training code. Nothing here is recommended: it starts uncentred, leaves the
decoder's norms free and revives no dead feature.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facviz.sae.architectures.base import Parameters, SelectingArchitecture, Step
from facviz.sae.codes import Codes, top_k_codes
from facviz.sae.init import InitialWeights
from facviz.sae.ops import Pattern, residual_at
from facviz.sae.weights import Activation

_FIRST_K = 10
"""Multiple of k at the first step."""
_ANNEALED_SHARE = 0.5
"""Of the first epoch, over which k falls."""


class Paper(SelectingArchitecture):
    """TopK on raw inputs with W_dec = W_encᵀ; biases begin at zero and the learning rate stays 1e-3."""

    unit_decoder = False
    tied_start = False
    decoder_rate = 1.0
    betas = (0.9, 0.999)
    adam_eps = 6.25e-10
    constant_rate = 1e-3
    revives = False

    def start(self, sample: Tensor) -> InitialWeights:
        """Kaiming's normal by fan-out with the gain of ReLU; inputs are not scaled."""
        generator = torch.Generator().manual_seed(self.config.rng_seed)
        d_sae, d_in = self.config.d_sae, sample.shape[1]
        rows = torch.randn(d_sae, d_in, generator=generator) * (2 / d_in) ** 0.5
        zeros = torch.zeros(d_sae), torch.zeros(d_in)
        rows, b_enc, b_dec = (tensor.to(sample.device) for tensor in (rows, *zeros))
        return InitialWeights(rows, b_enc, None, b_dec, 1.0)

    def k_at(self, number: int) -> int:
        """10 k at step 0, falling in a line to k over the first half of the first epoch."""
        n_annealed = int(_ANNEALED_SHARE * (self.recipe.n_steps // self.config.epochs))
        share = min(1.0, number / n_annealed) if n_annealed else 1.0
        return min(round(self.k * (_FIRST_K + (1 - _FIRST_K) * share)), self.config.d_sae)

    def select(self, pre: Tensor, number: int) -> Codes:
        """At most this step's k for every token."""
        return top_k_codes(pre, self.k_at(number))

    def reconstruct(self, x: Tensor, centred: Tensor, acts: Tensor, pattern: Pattern, parameters: Parameters) -> Step:
        """Mean over tokens of ‖x − x̂‖² / ‖x‖²."""
        error = residual_at(centred, acts, parameters.decoder, pattern)
        smallest = torch.finfo(x.dtype).tiny
        loss = (error.square().sum(1) / x.square().sum(1).clamp_min(smallest)).mean()
        return Step(loss, error, pattern, acts)

    def activation(self, parameters: Parameters) -> Activation:  # noqa: ARG002
        """TopK with the final k."""
        return Activation("topk", k=self.k)
