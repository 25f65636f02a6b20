"""Where a thresholded SAE can fire, found by one bfloat16 product; what is found is then computed in float32.

The product is safe, not approximate: it adds to each pre-activation more than rounding to bfloat16 can take from it, so
it names every feature above its threshold and a few more, and those are measured exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from facviz.errors import SaeError
from facviz.sae.codes import Codes
from facviz.sae.ops import Pattern, dots_at
from facviz.sae.weights import SaeWeights

# Rounding moves a product of vectors by at most 2⁻⁷ of their norms' product; an eighth more covers the sums.
_MARGIN = 1.125 * 2**-7
# Above this share of possible entries, or with fewer features, the plain float32 product is as fast.
_MAX_SHARE = 0.01
_MIN_D_SAE = 8192


class Screen:
    """Encodes centred inputs x [n, d_in] of an SAE with thresholds; holds the encoder twice, in two precisions."""

    def __init__(self, weights: SaeWeights) -> None:
        threshold = weights.activation.threshold
        if threshold is None:
            raise SaeError("This SAE selects without thresholds, so it cannot be screened; encode it without.")
        self._threshold = threshold.clamp_min(0)
        self._b_enc = weights.b_enc
        self._rows = weights.decoder if weights.W_dec is None else weights.W_enc.T.contiguous()
        offset = weights.b_enc - self._threshold
        high = offset.bfloat16()  # one bfloat16 is too coarse for it, two are not
        lift = _MARGIN * weights.W_enc.norm(dim=0)
        columns = torch.stack([lift.bfloat16(), high, (offset - high).bfloat16()], dim=1)
        self._lifted = torch.cat([self._rows.bfloat16(), columns], dim=1)  # rows: a tenth faster than columns

    @staticmethod
    def suits(weights: SaeWeights) -> bool:
        """It is faster than the float32 product: thresholds, many features, a processor that multiplies bfloat16."""
        flags = torch.cpu.get_capabilities() if weights.W_enc.device.type == "cpu" else {}
        is_native = bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
        return is_native and weights.activation.threshold is not None and weights.d_sae >= _MIN_D_SAE

    def candidates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and features, sorted, of a set that holds every entry above its threshold."""
        lifted = torch.cat([x, x.norm(dim=1, keepdim=True), x.new_ones(len(x), 2)], dim=1)
        tokens, features = (linear(lifted.bfloat16(), self._lifted) > 0).nonzero(as_tuple=True)
        return tokens, features

    def encode(self, x: Tensor) -> Codes | None:
        """Codes as the float32 product gives them; None where so much may fire that it is the faster way."""
        with torch.inference_mode(False), torch.no_grad():  # `dots_at` takes a derivative
            tokens, features = self.candidates(x)
            if len(tokens) > _MAX_SHARE * len(x) * len(self._b_enc):
                return None
            candidates = Codes(features, features, _offsets(tokens, len(x)))
            acts = dots_at(Pattern.of(candidates, len(self._b_enc)), x, self._rows) + self._b_enc[features]
            fires = acts > self._threshold[features]
            return Codes(features[fires], acts[fires], _offsets(tokens[fires], len(x)))


def _offsets(sorted_tokens: Tensor, n: int) -> Tensor:
    return torch.searchsorted(sorted_tokens, torch.arange(n + 1, device=sorted_tokens.device))
