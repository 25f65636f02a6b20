"""The state of a training run on disk: one safetensors file, replaced atomically, enough to resume bit for bit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
from torch import Tensor

from facviz.errors import SaeError
from facviz.files import write_files
from facviz.sae.weights import SaeWeights


@dataclass(frozen=True, slots=True, eq=False)
class TrainState:
    """Everything after `step` optimiser steps; `tensors` are the live ones, so a sink that keeps them must copy."""

    step: int
    run: dict[str, Any]
    """What must be equal for a resumption to make sense: sizes, seed, number of steps."""
    tensors: dict[str, Tensor]


class CheckpointSink(Protocol):
    """Where a run leaves its state; the state after the last step is always offered, due or not."""

    def due(self, step: int) -> bool:
        """Whether the state after `step` steps is wanted."""

    def save(self, state: TrainState, export: Callable[[], SaeWeights]) -> None:
        """Keep the state durably before returning; `export` gives the weights at this step, for who judges them."""


@dataclass(slots=True)
class FileCheckpoints:
    """The latest state in one file, renewed every `every_steps` steps or `every_seconds` seconds, what comes first.

    `judge` sees the weights before their state is kept, so that a kill in between repeats it.
    """

    path: Path
    every_steps: int = 200
    every_seconds: float = 30.0
    judge: Callable[[int, Callable[[], SaeWeights]], None] | None = None
    _saved: float = field(default_factory=time.monotonic)

    def due(self, step: int) -> bool:
        """Whether enough steps or seconds passed."""
        return step % self.every_steps == 0 or time.monotonic() - self._saved >= self.every_seconds

    def save(self, state: TrainState, export: Callable[[], SaeWeights]) -> None:
        """Replace the file."""
        if self.judge is not None:
            self.judge(state.step, export)
        save_state(state, self.path)
        self._saved = time.monotonic()


def save_state(state: TrainState, path: Path) -> None:
    """Write `state` to `path`, atomically."""
    metadata = {"step": str(state.step), "run": json.dumps(state.run)}
    write_files({path: lambda temporary: safetensors.torch.save_file(state.tensors, temporary, metadata)})


def load_state(path: Path) -> TrainState:
    """The state written by `save_state`.

    Raises:
        SaeError: the file is missing or is no training checkpoint.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return TrainState(int(metadata["step"]), json.loads(metadata["run"]), tensors)
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise SaeError(f"{path} is no usable training checkpoint ({error}); delete it to start over.") from error
