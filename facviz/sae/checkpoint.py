"""The state of a training run on disk: one safetensors file, replaced atomically, enough to resume bit for bit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
from torch import Tensor

from facviz.errors import SaeError
from facviz.files import write_files


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

    def save(self, state: TrainState) -> None:
        """Keep the state durably before returning."""


@dataclass(frozen=True, slots=True)
class FileCheckpoints:
    """The latest state in one file, renewed every `every_steps` steps."""

    path: Path
    every_steps: int = 200

    def due(self, step: int) -> bool:
        """Every `every_steps` steps."""
        return step % self.every_steps == 0

    def save(self, state: TrainState) -> None:
        """Replace the file."""
        save_state(state, self.path)


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
