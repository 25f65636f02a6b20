"""Where training starts: the mean-centred, input-scaled initial weights, and what the data say about dead features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facviz.errors import SaeError


@dataclass(frozen=True, slots=True, eq=False)
class InitialWeights:
    """Trainable tensors on scaled inputs x · input_scale; encoder and decoder both as rows [d_sae, d_in]."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor | None  # None: tied to W_enc
    b_dec: Tensor
    input_scale: float


def init_weights(sample: Tensor, d_sae: int, rng_seed: int) -> InitialWeights:
    """b_dec the sample's mean, random unit decoder rows, encoder their transpose; `sample` is [n, d_in].

    Raises:
        SaeError: the sample has no spread, or values that are not finite.
    """
    mean, scale = _centre_and_scale(sample)
    generator = torch.Generator().manual_seed(rng_seed)
    rows = torch.nn.functional.normalize(torch.randn(d_sae, sample.shape[1], generator=generator), dim=1)
    rows = rows.to(sample.device)
    b_dec = (mean * scale).to(torch.float32)
    return InitialWeights(rows.clone(), torch.zeros(d_sae, device=rows.device), rows, b_dec, scale)


def _centre_and_scale(sample: Tensor) -> tuple[Tensor, float]:
    """Mean [d_in] and the scalar that gives centred inputs a mean squared norm of d_in."""
    rows = sample.to(torch.float64)
    if rows.ndim != 2 or len(rows) < 2 or not bool(torch.isfinite(rows).all()):
        raise SaeError("The sample of activations needs at least two rows of finite values; capture more tokens.")
    mean = rows.mean(0)
    mean_square_norm = float((rows - mean).square().sum(1).mean())
    if mean_square_norm <= 0:
        raise SaeError("All sampled activations are identical, so no SAE can be trained on them; check the layer.")
    return mean, float((rows.shape[1] / mean_square_norm) ** 0.5)


def offset_ratio(sample: Tensor) -> float:
    """γ = ‖μ‖ / ‖σ‖ of activations [n, d_in]; it predicts the dead share of an SAE that starts at b_dec = 0.

    Source: arXiv 2605.31518; above about 1, centring decides whether features live.
    """
    rows = sample.to(torch.float64)
    return float(rows.mean(0).norm() / rows.std(0, correction=0).norm())
