"""The SAE at inference: model activations to sparse codes and back, in float32, with bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from facviz.errors import SaeError
from facviz.sae.codes import (
    Codes,
    concatenate,
    group_max_codes,
    matching_pursuit_codes,
    threshold_codes,
    top_k_codes,
)
from facviz.sae.screen import Screen
from facviz.sae.weights import SaeWeights

__all__ = ["SAE", "Codes"]

# Larger chunks are no faster (the matmul is saturated), smaller ones lose to per-chunk overhead at d_sae 65,536.
_PRE_ACTIVATION_BYTES = 64 * 2**20, 2**30
"""On a CPU, and on a GPU, which small chunks leave idle."""
_ARCHITECTURES = {"relu": "standard"}  # the other kinds are named alike


class SAE:
    """A loaded or trained sparse autoencoder; `metadata` says which model and layer it belongs to."""

    def __init__(self, weights: SaeWeights, metadata: Mapping[str, Any] | None = None) -> None:
        self.weights = weights
        self.metadata = dict(metadata or {})
        n_bytes = _PRE_ACTIVATION_BYTES[weights.W_enc.device.type == "cuda"]
        self._chunk_tokens = max(1, n_bytes // (4 * weights.d_sae))

    @property
    def d_in(self) -> int:
        """Width of the model activations."""
        return self.weights.d_in

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.weights.d_sae

    @property
    def architecture(self) -> str:
        """How it selects at inference: the kind of `Activation`, with ReLU by the name `standard`."""
        kind = self.weights.activation.kind
        return _ARCHITECTURES.get(kind, kind)

    @property
    def W_dec(self) -> Tensor:  # noqa: N802
        """[d_sae, d_in] decoder directions, also where the decoder is tied."""
        return self._decoder

    @cached_property
    def _decoder(self) -> Tensor:
        return self.weights.decoder  # a copy where it is tied, which encoding alone does without

    def to(self, device: torch.device | str) -> SAE:
        """The same SAE on another device; itself where it is there already."""
        if self.weights.W_enc.device == torch.device(device):
            return self
        return SAE(self.weights.to(device), self.metadata)

    @torch.no_grad()
    def encode(self, x: Tensor, dense: bool = False) -> Codes:
        """Codes of x [n, d_in]; `dense=True` keeps every positive pre-activation (the published code's mode).

        Raises:
            SaeError: x has another width or holds values that are not finite.
        """
        x = self._check_input(x)
        return concatenate([self._encode_chunk(chunk, dense) for chunk in torch.split(x, self._chunk_tokens)])

    @cached_property
    def _screen(self) -> Screen | None:
        return Screen(self.weights) if Screen.suits(self.weights) else None

    def _encode_chunk(self, x: Tensor, dense: bool) -> Codes:
        w = self.weights
        x, shift, scale = self._normalise(x.to(torch.float32))
        x = x - w.b_dec if w.pre_bias else x
        if w.activation.kind == "matching_pursuit" and not dense:
            codes: Codes | None = matching_pursuit_codes(x, self._decoder, w.activation.k or 0)
        else:
            codes = self._screen.encode(x) if self._screen and not dense else None
        if codes is None:
            codes = self._select(torch.addmm(w.b_enc, x, w.W_enc), dense)
        return codes if shift is None else replace(codes, shift=shift, scale=scale)

    def _normalise(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        norm = self.weights.input_norm
        if norm is None:
            return x, None, None
        shift = x.mean(1, keepdim=True)
        x = x - shift
        scale = x.std(1, correction=int(norm.unbiased), keepdim=True)
        return x / (scale + norm.eps), shift, scale

    def _select(self, pre: Tensor, dense: bool) -> Codes:
        activation = self.weights.activation
        if dense or activation.kind == "relu":
            return threshold_codes(pre, 0.0)
        if activation.threshold is not None:
            return threshold_codes(pre, activation.threshold)
        select = group_max_codes if activation.kind == "groupmax" else top_k_codes
        return select(pre, activation.k or 0)

    @torch.no_grad()
    def encode_features(self, x: Tensor, features: Sequence[int]) -> Tensor:
        """Activations [n, len(features)] of these features alone, without computing the others.

        Raises:
            SaeError: features of this architecture compete, so none can be known without the others.
        """
        w, wanted = self.weights, torch.as_tensor(features, dtype=torch.int64, device=self.weights.W_enc.device)
        if w.activation.kind not in ("relu", "jumprelu"):
            raise SaeError(f"Features of a {w.activation.kind} SAE compete; encode all of them and choose.")
        if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < self.d_sae:
            raise SaeError(f"A feature asked for does not exist; this SAE has the features 0 to {self.d_sae - 1}.")
        x, _, _ = self._normalise(self._check_input(x).to(torch.float32))
        pre = torch.addmm(w.b_enc[wanted], x - w.b_dec if w.pre_bias else x, w.W_enc[:, wanted])
        threshold = w.activation.threshold
        lowest = pre.new_zeros(()) if threshold is None else threshold[wanted].clamp_min(0)
        return torch.where(pre > lowest, pre, 0.0)

    def to_dense(self, codes: Codes) -> Tensor:
        """[n, d_sae], zero where a feature is inactive."""
        self._check_codes(codes)
        dense = torch.zeros(codes.n_tokens, self.d_sae, device=codes.values.device)
        dense[codes.tokens, codes.indices] = codes.values
        return dense

    def encode_dense(self, x: Tensor) -> Tensor:
        """`to_dense(encode(x))`, [n, d_sae]."""
        return self.to_dense(self.encode(x))

    @torch.no_grad()
    def decode(self, codes: Codes | Tensor) -> Tensor:
        """Reconstruction [n, d_in] of sparse codes, or of dense feature activations [n, d_sae].

        Raises:
            SaeError: a shape does not fit, or the SAE normalises each token and the codes do not say by how much.
        """
        if self.weights.input_norm is not None and (isinstance(codes, Tensor) or codes.scale is None):
            raise SaeError("This SAE normalises every token; decode the codes that its encode() gave, which say how.")
        if isinstance(codes, Tensor):
            if codes.ndim != 2 or codes.shape[1] != self.d_sae:
                raise SaeError(f"Dense codes have shape {tuple(codes.shape)}; this SAE needs [n, {self.d_sae}].")
            return torch.addmm(self.weights.b_dec, codes.to(torch.float32), self._decoder)
        self._check_codes(codes)
        x = decode_bag(codes, self._decoder) + self.weights.b_dec
        if codes.scale is None or codes.shift is None:
            return x
        return x * codes.scale + codes.shift

    def reconstruct(self, x: Tensor) -> Tensor:
        """`decode(encode(x))`, [n, d_in]."""
        return self.decode(self.encode(x))

    def save(self, folder: str | Path, *, half_precision: bool = False) -> Path:
        """Write the SAELens v6 format, atomically; `half_precision` stores the two matrices as float16."""
        from facviz.sae.formats import saelens  # the formats build SAEs, so this module cannot import them above

        return saelens.save(self, folder, half_precision=half_precision)

    def _check_input(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.d_in:
            raise SaeError(f"Activations have shape {tuple(x.shape)}; this SAE was made for [n, {self.d_in}].")
        if not bool(torch.isfinite(x).all()):
            raise SaeError("Activations hold NaN or infinite values; run the backbone in float32 or bfloat16.")
        return x.to(self.weights.W_enc.device)

    def _check_codes(self, codes: Codes) -> None:
        if len(codes.indices) and int(codes.indices.max()) >= self.d_sae:
            raise SaeError(f"Codes name feature {int(codes.indices.max())}; this SAE has only {self.d_sae} features.")


def decode_bag(codes: Codes, decoder: Tensor) -> Tensor:
    """Weighted sums of decoder rows, [n, d_in], without ever forming the dense code."""
    return embedding_bag(
        codes.indices,
        decoder,
        codes.offsets,
        mode="sum",
        per_sample_weights=codes.values,
        include_last_offset=True,
    )
