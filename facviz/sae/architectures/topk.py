"""TopK: the k largest pre-activations of each token, in training and at inference."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from facviz.sae.codes import Codes, top_k_codes
from facviz.sae.weights import Activation


class TopK:
    """Nothing is learnt beside the weights."""

    def __init__(self, k: int) -> None:
        self.k = k

    def select(self, pre: Tensor) -> Codes:
        """At most k features for every token."""
        return top_k_codes(pre, self.k)

    def observe(self, selected: Codes) -> None:
        """Nothing to learn."""

    def export(self, d_sae: int, input_scale: float) -> Activation:  # noqa: ARG002
        """TopK as trained; a scale does not change which features are largest."""
        return Activation("topk", k=self.k)

    def state(self) -> dict[str, Tensor]:
        """Empty."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""
