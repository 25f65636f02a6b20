"""BatchTopK: k features per token on average over a batch; exported as JumpReLU with one threshold.

Inference must not let tokens of a batch compete, so it uses a running mean of the smallest kept activation. The mean is
exponential over about the last twenty steps, fewer in a short run, when weights hardly move any more, and corrected for
its start, so that runs of a few steps have a threshold too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from facviz.sae.architectures.base import Parameters, SelectingArchitecture, Step
from facviz.sae.codes import Codes, batch_top_k_codes
from facviz.sae.weights import Activation

_WINDOW_STEPS, _WINDOW_SHARE = 20, 0.1
"""Steps the mean is taken over: an older threshold belongs to other weights."""


class BatchTopK(SelectingArchitecture):
    """Learns the threshold: `_sum / _weight` is the running mean."""

    _sum = 0.0
    _weight = 0.0
    _smallest = 0.0

    def select(self, pre: Tensor, number: int) -> Codes:  # noqa: ARG002
        """The k × n largest activations of the batch."""
        selected = batch_top_k_codes(pre, self.k * len(pre))
        self._smallest = float(selected.values.min()) if len(selected.values) else 0.0
        return selected

    def observe(self, step: Step) -> None:
        """Move the threshold towards the smallest kept activation of this batch."""
        if step.n_active:
            share = 1 / max(1.0, min(_WINDOW_STEPS, _WINDOW_SHARE * self.recipe.n_steps))
            self._sum += share * (self._smallest - self._sum)
            self._weight += share * (1 - self._weight)

    @property
    def threshold(self) -> float:
        """On the scale of training inputs; 0 before the first step."""
        return self._sum / self._weight if self._weight else 0.0

    def activation(self, parameters: Parameters) -> Activation:
        """JumpReLU with the learnt threshold for every feature."""
        return Activation("jumprelu", threshold=torch.full_like(parameters.b_enc, self.threshold, requires_grad=False))

    def continue_from(self, activation: Activation, parameters: Parameters) -> None:  # noqa: ARG002
        """Begin the running mean at the threshold of `activation`."""
        if activation.threshold is not None:
            self._sum, self._weight = float(activation.threshold.mean()), 1.0

    def state(self) -> dict[str, Tensor]:
        """The running mean's sum and weight, in float64."""
        return {"threshold_mean": torch.tensor([self._sum, self._weight], dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue the running mean."""
        self._sum, self._weight = state["threshold_mean"].tolist()
