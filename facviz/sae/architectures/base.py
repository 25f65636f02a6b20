"""What an architecture owns: which features a training batch keeps, and the activation it exports for inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from facviz.sae.codes import Codes
from facviz.sae.weights import Activation


class Architecture(Protocol):
    """One instance per training run; whatever it learns beside the weights lives in `state`."""

    def __init__(self, k: int) -> None:
        """`k` features per token, on average or at most."""

    def select(self, pre: Tensor) -> Codes:
        """The features that take part in this training batch, from pre-activations [n, d_sae]."""

    def observe(self, selected: Codes) -> None:
        """Learn from the selection of one training step."""

    def export(self, d_sae: int, input_scale: float) -> Activation:
        """The inference activation for unscaled inputs: thresholds are divided by `input_scale`."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep to resume exactly."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state()` of an earlier run."""
