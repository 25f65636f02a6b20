"""Adam for the parameters of one run, by torch's fused kernel.

`torch.optim` gives the same numbers, but its first optimiser imports the compiler: a second, which short runs feel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Parameter


@dataclass(slots=True, eq=False)
class Adam:
    """Moments of every parameter by name, and the steps taken; `factors` multiply the learning rate."""

    parameters: Mapping[str, Parameter]
    factors: Mapping[str, float]
    betas: tuple[float, float]
    eps: float
    moments: dict[str, dict[str, Tensor]] = field(init=False)
    n_steps: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.moments = {
            moment: {name: torch.zeros_like(p, requires_grad=False) for name, p in self.parameters.items()}
            for moment in ("exp_avg", "exp_avg_sq")
        }
        device = next(iter(self.parameters.values())).device
        self.n_steps = torch.zeros((), dtype=torch.float32, device=device)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move every parameter that has a gradient, and drop the gradients."""
        self.n_steps += 1
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            torch.ops.aten._fused_adam_(
                [parameter],
                [parameter.grad],
                [self.moments["exp_avg"][name]],
                [self.moments["exp_avg_sq"][name]],
                [],
                [self.n_steps],
                lr=learning_rate * self.factors.get(name, 1.0),
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=0.0,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
            )
            parameter.grad = None
