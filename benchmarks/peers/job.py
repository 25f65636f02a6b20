"""One training run of one library: what it is told, the batches it gets, and how its time is taken.

Imported by every library's own interpreter, so it needs nothing but numpy and torch.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

REPORT_FILE = "report.json"
WEIGHTS_FOLDER = "weights"
_WARM_STEPS = 2  # a compiler works during the first, and sometimes again during the second
_EVALUATION_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Job:
    """`setting` names a library's own choices for speed; `float32` is its plain one."""

    activations: str
    out: str
    architecture: str
    d_sae: int
    n_tokens: int
    learning_rate: float
    setting: str = "float32"
    k: int = 32
    batch_tokens: int = 2048
    rng_seed: int = 0

    @property
    def n_steps(self) -> int:
        """Whole batches in `n_tokens`."""
        return self.n_tokens // self.batch_tokens


@dataclass(frozen=True, slots=True)
class Trained:
    """`open` writes the weights where they are not yet, reads them again and gives the library's reconstruction."""

    open: Callable[[], Callable[[Tensor], Tensor]]
    version: str


class Feed(Iterator[Tensor]):
    """The run's batches from memory, in the stored order, noting when each is asked for."""

    def __init__(self, job: Job) -> None:
        stored = np.load(Path(job.activations) / "train.npy", mmap_mode="r")
        n_tokens = job.n_steps * job.batch_tokens
        if not 0 < n_tokens <= len(stored):
            raise ValueError(f"{job.n_tokens} tokens are asked for; {len(stored)} are stored.")
        self.rows = torch.from_numpy(np.array(stored[:n_tokens]))
        self.asked: list[float] = []
        self._batches = iter(torch.split(self.rows, job.batch_tokens))

    def __next__(self) -> Tensor:
        batch = next(self._batches)
        self.asked.append(time.perf_counter())
        return batch


def run(train: Callable[[Job, Feed], Trained]) -> None:
    """What every child does: read its job from the command line, time `train`, write the report beside the weights."""
    job = Job(**json.loads(sys.argv[1]))
    feed = Feed(job)
    started = time.perf_counter()
    trained = train(job, feed)
    ended = time.perf_counter()
    heldout = torch.from_numpy(np.load(Path(job.activations) / "heldout.npy"))
    report = {
        "version": trained.version,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **timing(started, feed.asked, ended, job.batch_tokens),
        "own_fvu": fvu(heldout, trained.open()),
    }
    Path(job.out, REPORT_FILE).write_text(json.dumps(report), encoding="utf-8")


def timing(started: float, asked: list[float], ended: float, batch_tokens: int) -> dict[str, Any]:
    """Tokens/s from the call to the return, and again without what passes before the third batch is asked for."""
    warm = min(_WARM_STEPS, len(asked) - 1)
    n_steady = len(asked) - warm
    return {
        "seconds": ended - started,
        "tokens_per_second": len(asked) * batch_tokens / (ended - started),
        "warm_seconds": asked[warm] - started,
        "steady_tokens_per_second": n_steady * batch_tokens / (ended - asked[warm]),
    }


@torch.no_grad()
def fvu(x: Tensor, reconstruct: Callable[[Tensor], Tensor]) -> float:
    """Σ‖x − x̂‖² / Σ‖x − x̄‖² over x [n, d] in float64."""
    exact = x.to(torch.float64)
    error = 0.0
    for part in torch.split(x, _EVALUATION_TOKENS):
        error += float((part.to(torch.float64) - reconstruct(part).to(torch.float64)).square().sum())
    return error / float((exact - exact.mean(0)).square().sum())
