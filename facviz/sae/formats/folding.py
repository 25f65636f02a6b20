"""What formats share in becoming `SaeWeights`: exact folds of gates, norms and scales, and errors that name the file.

A fold leaves reconstructions as they were; tensors go by their canonical names (W_enc [d_in, d_sae], W_dec [d_sae,
d_in], b_enc, b_dec, threshold), and the mapping passed in is never changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facviz.errors import SaeError
from facviz.sae.weights import Activation, LayerNorm, SaeWeights

Tensors = Mapping[str, Tensor]


def fold_decoder_norm(tensors: Tensors) -> dict[str, Tensor]:
    """Features multiplied by the norm of their decoder row, and rows of length 1; a threshold is left as it is."""
    norms = tensors["W_dec"].norm(dim=1)
    return dict(tensors) | {
        "W_enc": tensors["W_enc"] * norms,
        "b_enc": tensors["b_enc"] * norms,
        "W_dec": tensors["W_dec"] / torch.where(norms > 0, norms, 1.0).unsqueeze(1),
    }


def fold_gate(tensors: Tensors) -> dict[str, Tensor]:
    """A gated encoder (r_mag, b_mag, b_gate) as a JumpReLU one: the gate opens exactly where `threshold` is passed."""
    kept = {name: tensor for name, tensor in tensors.items() if name not in ("r_mag", "b_mag", "b_gate")}
    gain = tensors["r_mag"].exp()
    return kept | {
        "W_enc": tensors["W_enc"] * gain,
        "b_enc": tensors["b_mag"],
        "threshold": tensors["b_mag"] - gain * tensors["b_gate"],
    }


def fold_input_scale(tensors: Tensors, scale: float) -> dict[str, Tensor]:
    """An SAE made for `scale` × x as one for x, with the same feature activations and hence the same threshold."""
    return dict(tensors) | {
        "W_enc": tensors["W_enc"] * scale,
        "W_dec": tensors["W_dec"] / scale,
        "b_dec": tensors["b_dec"] / scale,
    }


def positive(value: Any) -> float | None:
    """`value` if it is a finite number above zero, else None."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None


def whole_number(value: Any) -> int:
    """`value` if it is a positive whole number, also as a tensor of one, else 0."""
    number = positive(value)
    return int(number) if number is not None and number.is_integer() else 0


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors raised inside say which file they are about."""
    try:
        yield
    except SaeError as error:
        raise SaeError(f"{path}: {error}") from error


def assemble(
    tensors: Tensors,
    activation: Activation,
    path: Path,
    *,
    pre_bias: bool = True,
    input_norm: LayerNorm | None = None,
    provenance: Mapping[str, Any],
) -> SaeWeights:
    """The canonical weights of tensors with canonical names, tied without W_dec; a refusal names `path`."""
    with naming(path):
        return SaeWeights(
            W_enc=tensors["W_enc"],
            b_enc=tensors["b_enc"],
            W_dec=tensors.get("W_dec"),
            b_dec=tensors["b_dec"],
            activation=activation,
            pre_bias=pre_bias,
            input_norm=input_norm,
            provenance=provenance,
        )
