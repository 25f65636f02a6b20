"""What architectures share that are kept sparse by a penalty: its control, and a start that is sparse already."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from facviz.config import SaeConfig
from facviz.sae.architectures.base import Architecture, Step
from facviz.sae.init import InitialWeights
from facviz.sae.schedule import Recipe
from facviz.sae.sparsity import START_RATIO, SparsityControl

_PROBED_ROWS = 512


class PenalisedArchitecture(Architecture):
    """`sparsity.weight` multiplies the penalty; it moves after every step."""

    def __init__(self, config: SaeConfig, recipe: Recipe, d_in: int) -> None:
        super().__init__(config, recipe, d_in)
        self.sparsity = SparsityControl(
            goal=config.k, n_steps=recipe.n_steps, weight=1 / d_in, fixed=config.sparsity_coefficient
        )

    def starting_threshold(self, start: InitialWeights, sample: Tensor) -> float:
        """The pre-activation that `START_RATIO` · k features of a token exceed at first, on scaled inputs."""
        rows = sample[:: max(1, len(sample) // _PROBED_ROWS)][:_PROBED_ROWS].to(torch.float32) * start.input_scale
        pre = (rows - start.b_dec) @ start.W_enc.T
        n_above = min(START_RATIO * self.k, self.config.d_sae) * len(pre)
        return max(float(pre.flatten().topk(max(1, int(n_above))).values.min()), 0.0)

    def observe(self, step: Step) -> None:
        """Move the penalty's weight by how many features fired."""
        self.sparsity.observe(step.n_active / step.pattern.n_tokens)

    def state(self) -> dict[str, Tensor]:
        """Where the control stands."""
        return {"sparsity": self.sparsity.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue the control."""
        self.sparsity.load_state(state["sparsity"])
