"""Held-out quality of an SAE, streamed: FVU, shrinkage, L0 and densities over a whole evaluation set, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facviz.errors import SaeError
from facviz.sae.model import SAE

ALWAYS_ON_DENSITY = 0.10


@dataclass(frozen=True, slots=True)
class SaeMetrics:
    """All over `n_tokens` tokens; a feature is dead when it fired on none of them, always-on above 10 %."""

    fvu: float
    """Σ‖x − x̂‖² / Σ‖x − x̄‖²: 1 for predicting the mean, 0 for perfection."""
    normalised_mse: float
    """Σ‖x − x̂‖² / Σ‖x‖², about zero: smaller than `fvu` and not comparable with it."""
    l0: float
    n_tokens: int
    n_dead: int
    dead_share: float
    density: npt.NDArray[np.float64]  # [d_sae]
    n_always_on: int
    l2_ratio: float
    """Σ‖x̂‖ / Σ‖x‖, both about zero: below 1 where reconstructions are too short."""
    reconstruction_bias: float
    """Σ‖x̂‖² / Σ x·x̂, about zero (Eq. 10 of arXiv 2404.16014): 1 without shrinkage, below it with; x̂ / this value is
    the multiple of x̂ nearest to x. NaN where every x̂ is zero, meaningless where it is negative."""

    @property
    def explained_variance(self) -> float:
        """1 − `fvu`, never the mean over tokens or batches that others report under this name."""
        return 1.0 - self.fvu


class SaeEvaluator:
    """Feed it batches of any sizes; the result does not depend on how tokens were split into them."""

    def __init__(self, sae: SAE) -> None:
        self._sae = sae
        self._n_tokens = 0
        self._mean = torch.zeros(sae.d_in, dtype=torch.float64)
        self._squared_deviation = 0.0
        self._squared_norm = 0.0
        self._squared_error = 0.0
        self._norm = 0.0
        self._norm_hat = 0.0
        self._squared_norm_hat = 0.0
        self._product = 0.0
        self._counts = torch.zeros(sae.d_sae, dtype=torch.int64)

    def update(self, x: Tensor) -> None:
        """Add model activations [n, d_in] of any float dtype."""
        if not len(x):
            return
        codes = self._sae.encode(x)
        exact = x.detach().cpu().to(torch.float64)
        x_hat = self._sae.decode(codes).cpu().to(torch.float64)
        self._squared_error += float((exact - x_hat).square().sum())
        self._add_lengths(exact, x_hat)
        self._counts += torch.bincount(codes.indices, minlength=self._sae.d_sae).cpu()
        self._merge(exact)

    def _add_lengths(self, x: Tensor, x_hat: Tensor) -> None:
        self._squared_norm += float(x.square().sum())
        self._squared_norm_hat += float(x_hat.square().sum())
        self._product += float((x * x_hat).sum())
        self._norm += float(x.norm(dim=1).sum())
        self._norm_hat += float(x_hat.norm(dim=1).sum())

    def _merge(self, x: Tensor) -> None:
        """Chan's merge of mean and squared deviation: exact where Σx² − n·x̄² would cancel."""
        mean, n_total = x.mean(0), self._n_tokens + len(x)
        delta = mean - self._mean
        between = float(delta.square().sum()) * self._n_tokens * len(x) / n_total
        self._squared_deviation += float((x - mean).square().sum()) + between
        self._mean += delta * (len(x) / n_total)
        self._n_tokens = n_total

    def result(self) -> SaeMetrics:
        """Metrics of everything seen so far.

        Raises:
            SaeError: fewer than two different activations were seen, so there is no variance to explain.
        """
        if self._squared_deviation <= 0:
            raise SaeError("An SAE cannot be evaluated without activations that differ; give it more held-out tokens.")
        density = self._counts.numpy() / self._n_tokens
        n_dead = int((density == 0).sum())
        return SaeMetrics(
            fvu=self._squared_error / self._squared_deviation,
            normalised_mse=self._squared_error / self._squared_norm,
            l0=float(density.sum()),
            n_tokens=self._n_tokens,
            n_dead=n_dead,
            dead_share=n_dead / len(density),
            density=density,
            n_always_on=int((density > ALWAYS_ON_DENSITY).sum()),
            l2_ratio=self._norm_hat / self._norm,
            reconstruction_bias=self._squared_norm_hat / self._product if self._product else math.nan,
        )
