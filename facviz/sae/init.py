"""Where training starts: the mean-centred, input-scaled initial weights, and what the data say about dead features.

The numbers here and in `schedule` were found together by search (docs/adr/0015).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facviz.errors import SaeError

ENCODER_SCALE = 0.5
"""Of the encoder against the decoder: sums of k random directions overshoot, and what overshoots is unlearnt first."""
_SPREAD_POWER = 0.125
"""Power of the covariance that shapes random directions: 0 draws them evenly, 0.5 as the data lie."""
_SMALLEST_SPREAD = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class InitialWeights:
    """Trainable tensors on scaled inputs x · input_scale; encoder and decoder both as rows [d_sae, d_in]."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor | None  # None: tied to W_enc
    b_dec: Tensor
    input_scale: float


def init_weights(sample: Tensor, d_sae: int, rng_seed: int) -> InitialWeights:
    """b_dec the sample's mean, random unit decoder rows, encoder half of them; `sample` is [n, d_in].

    Raises:
        SaeError: the sample has no spread, or values that are not finite.
    """
    mean, scale = _centre_and_scale(sample)
    rows = _random_rows(sample, d_sae, rng_seed)
    b_dec = (mean * scale).to(torch.float32)
    return InitialWeights(ENCODER_SCALE * rows, torch.zeros(d_sae, device=rows.device), rows, b_dec, scale)


def _random_rows(sample: Tensor, d_sae: int, rng_seed: int) -> Tensor:
    """Unit rows [d_sae, d_in], somewhat more of them where activations vary more: elsewhere they would never fire."""
    generator = torch.Generator().manual_seed(rng_seed)
    evenly = torch.randn(d_sae, sample.shape[1], generator=generator).to(sample.device)
    spread, axes = torch.linalg.eigh(torch.cov(sample.to(torch.float32).T))
    shape = (axes * spread.clamp_min(float(spread[-1]) * _SMALLEST_SPREAD) ** _SPREAD_POWER) @ axes.T
    return torch.nn.functional.normalize(evenly @ shape, dim=1)


def _centre_and_scale(sample: Tensor) -> tuple[Tensor, float]:
    """Mean [d_in] and the scalar that gives centred inputs a mean squared norm of d_in."""
    rows = sample.to(torch.float64)
    if rows.ndim != 2 or len(rows) < 2 or not bool(torch.isfinite(rows).all()):
        raise SaeError("The sample of activations needs at least two rows of finite values; capture more tokens.")
    mean = rows.mean(0)
    mean_square_norm = float((rows - mean).norm()) ** 2 / len(rows)
    if mean_square_norm <= 0:
        raise SaeError("All sampled activations are identical, so no SAE can be trained on them; check the layer.")
    return mean, float((rows.shape[1] / mean_square_norm) ** 0.5)


def offset_ratio(sample: Tensor) -> float:
    """γ = ‖μ‖ / ‖σ‖ of activations [n, d_in]; it predicts the dead share of an SAE that starts at b_dec = 0.

    Source: arXiv 2605.31518; above about 1, centring decides whether features live.
    """
    rows = sample.to(torch.float64)
    mean = rows.mean(0)
    return float(mean.norm() / (rows - mean).norm() * len(rows) ** 0.5)
