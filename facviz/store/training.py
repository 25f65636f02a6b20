"""The course of a training run, beside the SAE's weights: written while it runs, read by whoever watches."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from facviz.files import disk_errors, read_lines

TRAINING_FILE = "training.jsonl"
SERIES = ("loss", "fvu", "l0", "n_dead")
MAX_POINTS = 600
_FLUSH_SECONDS = 0.5


class TrainingCurve:
    """Appends one line a step; a resumed run writes its repeated steps again and the last ones count."""

    def __init__(self, folder: Path, n_steps: int) -> None:
        self._path = folder / TRAINING_FILE
        self._n_steps = n_steps
        self._lines: list[str] = []
        self._written = 0.0

    def add(self, step: int, **values: float) -> None:
        """One step's values; on disk within half a second, and at the last step at once."""
        self._lines.append(json.dumps({"step": step, "n_steps": self._n_steps, **values}))
        now = time.monotonic()
        if now - self._written < _FLUSH_SECONDS and step < self._n_steps:
            return
        self._written = now
        with disk_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write("\n".join(["", *self._lines]))  # a line torn by a kill must not swallow the next
        self._lines.clear()


@dataclass(frozen=True, slots=True)
class TrainingCourse:
    """Steps with the values of each of `SERIES`, thinned to at most 600 points, and how many steps there will be."""

    steps: tuple[int, ...]
    series: dict[str, tuple[float, ...]]
    n_steps: int

    @property
    def is_finished(self) -> bool:
        """Whether the last step was made."""
        return bool(self.steps) and self.steps[-1] >= self.n_steps


def read_training(folder: Path) -> TrainingCourse | None:
    """The course of the SAE in this folder so far; None when nothing was recorded."""
    by_step = {int(e["step"]): e for e in read_lines(folder / TRAINING_FILE) if all(k in e for k in ("step", *SERIES))}
    if not by_step:
        return None
    steps = sorted(by_step)
    kept = steps[:: -(-len(steps) // MAX_POINTS)]
    if kept[-1] != steps[-1]:
        kept.append(steps[-1])
    series = {name: tuple(float(by_step[s][name]) for s in kept) for name in SERIES}
    return TrainingCourse(tuple(kept), series, int(by_step[steps[-1]].get("n_steps", steps[-1])))
