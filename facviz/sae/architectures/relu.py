"""ReLU with an L1 penalty on activations; decoder rows are unit vectors, so the penalty cannot be evaded by scale.

The dictionary's `k` is its goal on average: the penalty's weight is controlled towards it (`sae.sparsity`).
"""

from __future__ import annotations

from torch import Tensor

from facviz.sae.architectures.base import Parameters, Step
from facviz.sae.architectures.penalised import PenalisedArchitecture
from facviz.sae.codes import threshold_codes
from facviz.sae.init import InitialWeights
from facviz.sae.ops import Pattern, encode_at, mean_square, residual_at
from facviz.sae.weights import Activation


class ReLU(PenalisedArchitecture):
    """Every positive pre-activation counts."""

    def extra(self, start: InitialWeights, sample: Tensor) -> dict[str, Tensor]:
        """Nothing of its own; but biases begin so low that a training step is sparse from the first."""
        start.b_enc.sub_(self.starting_threshold(start, sample))
        return {}

    def step(self, x: Tensor, parameters: Parameters, number: int) -> Step:  # noqa: ARG002
        """Squared error per input dimension plus the weighted mean L1 norm."""
        centred = x - parameters.b_dec
        selected = threshold_codes(self.selection_acts(centred, parameters), 0.0)
        pattern = Pattern.of(selected, self.config.d_sae)
        acts = encode_at(centred, parameters.W_enc, parameters.b_enc, parameters.b_dec, pattern).relu()
        error = residual_at(centred, acts, parameters.decoder, pattern)
        return Step(mean_square(error) + self.sparsity.weight * acts.sum() / len(x), error, pattern, acts)

    def activation(self, parameters: Parameters) -> Activation:  # noqa: ARG002
        """ReLU."""
        return Activation("relu")
