"""Keeping a penalised SAE at the sparsity asked for: the penalty's weight follows the L0 that training shows.

Reading `k` as the goal of every architecture makes them comparable; nobody has to search a coefficient by trial runs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

START_RATIO = 4
"""L0 begins at this multiple of k, so that many features learn before few may fire."""
_DESCENT_SHARE = 0.4
"""Of the run, in which the goal falls from there to k."""
_INTEGRAL, _PROPORTIONAL = 0.03, 1.0
_LARGEST_ERROR = 1.0


class SparsityControl:
    """A proportional-integral controller on logarithms; `fixed` switches it off and keeps that weight."""

    def __init__(self, goal: float, n_steps: int, weight: float, fixed: float | None = None) -> None:
        self._goal, self._n_steps, self._fixed = goal, n_steps, fixed
        self._log_weight, self._error, self._step = math.log(weight), 0.0, 0

    @property
    def weight(self) -> float:
        """What multiplies the penalty in the next step."""
        if self._fixed is not None:
            return self._fixed
        return math.exp(self._log_weight + _PROPORTIONAL * self._error)

    @property
    def goal(self) -> float:
        """The L0 asked for at this point of the run."""
        left = max(0.0, 1 - self._step / max(1.0, _DESCENT_SHARE * self._n_steps))
        return self._goal * float(START_RATIO**left)

    def observe(self, l0: float) -> None:
        """Take in the L0 of a training batch."""
        error = math.log(max(l0, 1e-3) / self.goal)
        self._error = max(-_LARGEST_ERROR, min(_LARGEST_ERROR, error))
        self._log_weight += _INTEGRAL * self._error
        self._step += 1

    def state(self) -> Tensor:
        """[3] float64."""
        return torch.tensor([self._log_weight, self._error, self._step], dtype=torch.float64)

    def load_state(self, state: Tensor) -> None:
        """Continue from `state()`."""
        self._log_weight, self._error, step = state.tolist()
        self._step = int(step)
