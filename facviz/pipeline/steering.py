"""Pushes along an SAE's features in the model that writes, as the `steered` strategies ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from facviz.records import Document, Floats, LLMRequest, Message, SteeringVector

if TYPE_CHECKING:
    from facviz.activations import SaeEncoder
    from facviz.llm.local import LocalChat


class FeatureSteerer:
    """One strength is what the decoder writes for the feature's usual activation, `usual_acts` [d_sae].

    An SAE that normalises tokens writes in units of each token's spread; `examples` say how wide tokens are here.
    """

    def __init__(
        self, chat: LocalChat, encoder: SaeEncoder, usual_acts: Floats, examples: Sequence[Document] = ()
    ) -> None:
        self._chat, self._encoder = chat, encoder
        self._unit = usual_acts * _token_scale(encoder, examples)

    def push(self, feature_id: int, strength: float, bar: float) -> SteeringVector:
        """Along the feature's decoder row, in the model's own space, at the layer that the SAE reads.

        It ends where the feature's activation exceeds the bar, if that can be read off one token alone.
        """
        direction = self._encoder.sae.W_dec[feature_id].cpu().numpy()
        vector = (strength * self._unit[feature_id] * direction).astype(np.float32)
        weights = self._encoder.sae.weights
        if weights.input_norm is not None:
            return SteeringVector(self._encoder.fast.layer, vector, strength)
        reads = weights.W_enc[:, feature_id].cpu().numpy()
        offset = float(weights.b_enc[feature_id]) - weights.pre_bias * float(reads @ weights.b_dec.cpu().numpy())
        return SteeringVector(self._encoder.fast.layer, vector, strength, reads, bar - offset)

    def divergence(self, messages: Sequence[Message], steering: SteeringVector, texts: Sequence[str]) -> float:
        """Nats a token that the push moves the model's predictions by."""
        return self._chat.divergence(LLMRequest(tuple(messages), steering=steering), texts)


def _token_scale(encoder: SaeEncoder, examples: Sequence[Document]) -> float:
    """What brings a decoder row into the model's own space: 1, or the usual spread of a token."""
    if encoder.sae.weights.input_norm is None or not examples:
        return 1.0
    import torch

    states, _ = encoder.pool(examples)
    scale = encoder.sae.encode(torch.from_numpy(states.last)).scale
    return 1.0 if scale is None else float(scale.median())
