"""What an architecture is: its parameters, one differentiable step over them, and the weights it leaves for inference.

A step selects features with one dense product, which needs no gradient, and does everything else at the selected
entries. The product runs in bfloat16 where the processor multiplies it natively; the selected values are recomputed in
float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Parameter

from facviz.config import SaeConfig
from facviz.sae.codes import Codes
from facviz.sae.init import InitialWeights, init_weights
from facviz.sae.ops import Pattern, encode_at, mean_square, residual_at
from facviz.sae.schedule import Recipe
from facviz.sae.weights import Activation

_TILE = 32
"""Rows of the dense product are a multiple of this long; their last tile holds the bias, whose addition would take as
long as the product."""


@dataclass(slots=True, eq=False)
class Parameters:
    """What training moves, on scaled inputs; encoder and decoder both as rows [d_sae, d_in]."""

    W_enc: Parameter
    b_enc: Parameter
    W_dec: Parameter | None  # None: tied to W_enc
    b_dec: Parameter
    extra: dict[str, Parameter] = field(default_factory=dict)
    """What only this architecture has, by name; [d_sae] each."""

    @property
    def decoder(self) -> Parameter:
        """[d_sae, d_in] rows that reconstruct."""
        return self.W_enc if self.W_dec is None else self.W_dec

    def named(self) -> dict[str, Parameter]:
        """All of them by name, in a fixed order."""
        named = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec, **self.extra}
        return {name: parameter for name, parameter in named.items() if parameter is not None}


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one batch gave: the loss to descend, and what it is made of."""

    loss: Tensor
    """Scalar with gradient; everything but the revival of dead features."""
    error: Tensor
    """x − x̂ on scaled inputs, [n, d_in], with gradient."""
    pattern: Pattern
    """The features that took part."""
    acts: Tensor
    """[nnz] their activations, zero where a feature that took part does not fire."""

    @property
    def n_active(self) -> int:
        """Entries above zero."""
        return int((self.acts > 0).sum())

    @property
    def fired(self) -> Tensor:
        """Ids of features that fired, with repetitions."""
        return self.pattern.features[self.acts > 0]


class Architecture(ABC):
    """One instance per training run; what it learns beside its parameters lives in `state`."""

    unit_decoder: ClassVar[bool] = True
    """Decoder rows stay on the unit sphere, so that activations alone carry magnitude."""
    tied_start: ClassVar[bool] = False
    """Whether encoder and decoder learn alike in the first `tied_steps`: a feature then finds its direction sooner."""
    decoder_rate: ClassVar[float] = 3.0
    """Of the decoder, as a multiple of the learning rate: unit rows turn more slowly than the encoder's short ones."""
    betas: ClassVar[tuple[float, float]] = (0.5, 0.95)
    """Adam's memory, of a few steps: large gradients of the first steps must not slow a short run to its end."""
    adam_eps: ClassVar[float] = 1e-8
    constant_rate: ClassVar[float | None] = None
    """A learning rate without warm-up and decay; None takes the recipe scaled to the run."""
    revives: ClassVar[bool] = True
    """Whether dead features are asked to explain the residual."""

    def __init__(self, config: SaeConfig, recipe: Recipe, d_in: int) -> None:  # noqa: ARG002
        self.config, self.recipe, self.k = config, recipe, config.k
        self.selection_dtype = torch.float32
        self._selection: list[Tensor] = []

    def start(self, sample: Tensor) -> InitialWeights:
        """Initial weights from a sample of activations [n, d_in]."""
        return init_weights(sample, self.config.d_sae, self.config.rng_seed)

    def extra(self, start: InitialWeights, sample: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Initial values of the parameters that only this architecture has."""
        return {}

    @abstractmethod
    def step(self, x: Tensor, parameters: Parameters, number: int) -> Step:
        """The loss on scaled inputs x [n, d_in] at the 0-based step `number`."""

    def observe(self, step: Step) -> None:  # noqa: B027
        """Learn from a finished step what gradients do not teach."""

    @abstractmethod
    def activation(self, parameters: Parameters) -> Activation:
        """What selects at inference, on scaled inputs."""

    def inference(self, parameters: Parameters) -> tuple[Tensor, Tensor, Activation]:
        """W_enc [d_sae, d_in], b_enc and activation on scaled inputs, as inference uses them."""
        return parameters.W_enc.detach(), parameters.b_enc.detach(), self.activation(parameters)

    def continue_from(self, activation: Activation, parameters: Parameters) -> None:  # noqa: B027
        """Take over an `activation` (on scaled inputs) to matrices and biases that are in place already."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep to resume exactly."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Continue from `state()` of an earlier run."""

    @torch.no_grad()
    def selection_acts(self, centred: Tensor, parameters: Parameters) -> Tensor:
        """Pre-activations [n, d_sae] good enough to choose by; the next call writes over them."""
        (n, d_in), d_sae = centred.shape, len(parameters.b_enc)
        if not self._selection or self._selection[0].dtype != self.selection_dtype or len(self._selection[0]) != n:
            width = (d_in // _TILE + 1) * _TILE
            empty = centred.new_zeros(n, width, dtype=self.selection_dtype)
            self._selection = [empty, empty.new_zeros(d_sae, width), empty.new_empty(n, d_sae)]
            empty[:, d_in] = 1
        inputs, weights, pre = self._selection
        inputs[:, :d_in].copy_(centred)
        weights[:, :d_in].copy_(parameters.W_enc)
        weights[:, d_in].copy_(parameters.b_enc)
        return torch.mm(inputs, weights.T, out=pre)


class SelectingArchitecture(Architecture):
    """Features are chosen by comparing them with each other; the loss is the squared error alone."""

    tied_start = True

    @abstractmethod
    def select(self, pre: Tensor, number: int) -> Codes:
        """The features that take part in this batch, from pre-activations [n, d_sae]."""

    def step(self, x: Tensor, parameters: Parameters, number: int) -> Step:
        """The mean squared error per input dimension: about the FVU, by the scaling of inputs."""
        centred = x - parameters.b_dec
        selected = self.select(self.selection_acts(centred, parameters), number)
        pattern = Pattern.of(selected, self.config.d_sae)
        acts = encode_at(centred, parameters.W_enc, parameters.b_enc, parameters.b_dec, pattern).relu()
        return self.reconstruct(x, centred, acts, pattern, parameters)

    def reconstruct(self, x: Tensor, centred: Tensor, acts: Tensor, pattern: Pattern, parameters: Parameters) -> Step:  # noqa: ARG002
        """Decode and measure."""
        error = residual_at(centred, acts, parameters.decoder, pattern)
        return Step(mean_square(error), error, pattern, acts)
