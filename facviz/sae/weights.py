"""The canonical weights of an SAE, whatever file or training run they came from, and their validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from facviz.errors import SaeError

_CHECKED_VALUES = 2**22


@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """What turns pre-activations into feature activations at inference; all kinds clip at zero."""

    kind: Literal["relu", "topk", "groupmax", "jumprelu", "matching_pursuit"]
    k: int | None = None
    """topk: at most this many features per token (top k first, ReLU after); groupmax: the largest of each of k groups
    of neighbouring features; matching_pursuit: this many steps, each of one feature."""
    threshold: Tensor | None = None
    """jumprelu: [d_sae], a pre-activation counts strictly above it."""


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Each token centred and divided by its standard deviation + eps; x̂ is multiplied by the deviation alone."""

    eps: float = 1e-5
    unbiased: bool = True
    """Whether the standard deviation divides by d_in − 1, as `torch.std` does."""


@dataclass(frozen=True, slots=True, eq=False)
class SaeWeights:
    """Float32 weights in x' = (x − b_dec if pre_bias) @ W_enc + b_enc, x̂ = acts @ W_dec + b_dec.

    With `input_norm`, x and x̂ are those of normalised tokens.

    Raises:
        SaeError: a shape does not fit, a value is not finite, or the activation lacks its parameter.
    """

    W_enc: Tensor  # [d_in, d_sae]
    b_enc: Tensor  # [d_sae]
    W_dec: Tensor | None  # [d_sae, d_in]; None: tied to W_enc
    b_dec: Tensor  # [d_in]
    activation: Activation
    pre_bias: bool = True
    input_norm: LayerNorm | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.W_enc.ndim != 2 or 0 in self.W_enc.shape:
            raise SaeError(f"W_enc has shape {tuple(self.W_enc.shape)}; it must be [d_in, d_sae], both above 0.")
        for name, tensor, shape in self._expected():
            if tuple(tensor.shape) != shape:
                raise SaeError(f"{name} has shape {tuple(tensor.shape)}; with this W_enc it must be {shape}.")
            if tensor.dtype != torch.float32:
                raise SaeError(f"{name} is {tensor.dtype}; convert SAE weights to float32.")
            if not _is_finite(tensor):
                raise SaeError(f"{name} holds NaN or infinite values; the file is damaged or its training diverged.")
        self._check_activation()

    def _expected(self) -> list[tuple[str, Tensor, tuple[int, ...]]]:
        d_in, d_sae = self.d_in, self.d_sae
        expected: list[tuple[str, Tensor, tuple[int, ...]]] = [
            ("W_enc", self.W_enc, (d_in, d_sae)),
            ("b_enc", self.b_enc, (d_sae,)),
            ("b_dec", self.b_dec, (d_in,)),
        ]
        if self.W_dec is not None:
            expected.append(("W_dec", self.W_dec, (d_sae, d_in)))
        if self.activation.threshold is not None:
            expected.append(("threshold", self.activation.threshold, (d_sae,)))
        return expected

    def _check_activation(self) -> None:
        kind, k = self.activation.kind, self.activation.k
        if kind not in ("relu", "topk", "groupmax", "jumprelu", "matching_pursuit"):
            raise SaeError(
                f"The activation {kind!r} is unknown; use relu, topk, groupmax, jumprelu or matching_pursuit."
            )
        if kind == "matching_pursuit" and (self.W_dec is not None or not self.pre_bias):
            raise SaeError("A matching_pursuit SAE has one matrix, and its bias is taken from the input first.")
        if kind in ("topk", "groupmax", "matching_pursuit") and (k is None or not 0 < k <= self.d_sae):
            raise SaeError(f"A {kind} SAE needs a k between 1 and d_sae = {self.d_sae}, not {k}.")
        if kind == "groupmax" and self.d_sae % (k or 1):
            raise SaeError(f"A groupmax SAE needs a d_sae that its k groups share evenly, not {self.d_sae} and k {k}.")
        if kind == "jumprelu" and self.activation.threshold is None:
            raise SaeError("A jumprelu SAE needs a threshold per feature, and none is given.")

    @property
    def d_in(self) -> int:
        """Width of the model activations."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.W_enc.shape[1]

    @property
    def decoder(self) -> Tensor:
        """[d_sae, d_in], contiguous: W_dec, or W_enc transposed where the decoder is tied."""
        return self.decoder_view.contiguous()

    @property
    def decoder_view(self) -> Tensor:
        """[d_sae, d_in] without a copy, and therefore not contiguous where the decoder is tied."""
        return self.W_enc.T if self.W_dec is None else self.W_dec

    def to(self, device: torch.device | str) -> SaeWeights:
        """The same weights on another device."""
        threshold = self.activation.threshold
        return replace(
            self,
            W_enc=self.W_enc.to(device),
            b_enc=self.b_enc.to(device),
            W_dec=None if self.W_dec is None else self.W_dec.to(device),
            b_dec=self.b_dec.to(device),
            activation=replace(self.activation, threshold=None if threshold is None else threshold.to(device)),
        )


def _is_finite(tensor: Tensor) -> bool:
    """In slices, because one check of a whole tensor takes as much memory as the tensor."""
    rows = max(1, _CHECKED_VALUES * len(tensor) // max(1, tensor.numel()))
    return all(bool(torch.isfinite(part).all()) for part in torch.split(tensor, rows))
