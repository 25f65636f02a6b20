"""TopK: the k largest pre-activations of each token, in training and at inference."""

from __future__ import annotations

from torch import Tensor

from facviz.sae.architectures.base import Parameters, SelectingArchitecture
from facviz.sae.codes import Codes, top_k_codes
from facviz.sae.weights import Activation


class TopK(SelectingArchitecture):
    """Nothing is learnt beside the weights."""

    def select(self, pre: Tensor, number: int) -> Codes:  # noqa: ARG002
        """At most k features for every token."""
        return top_k_codes(pre, self.k)

    def activation(self, parameters: Parameters) -> Activation:  # noqa: ARG002
        """TopK as trained."""
        return Activation("topk", k=self.k)
