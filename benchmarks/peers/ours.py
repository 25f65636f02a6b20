"""A training run of facviz, as a child process: `python -m benchmarks.peers.ours JOB`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

import facviz
from benchmarks.peers.job import WEIGHTS_FOLDER, Feed, Job, Trained, run
from facviz.config import SaeConfig
from facviz.sae.formats import load_sae
from facviz.sae.model import SAE
from facviz.sae.train import StepReport, train_sae

_INIT_TOKENS = 20_000  # as `facviz sae train`


def train(job: Job, feed: Feed) -> Trained:
    """`train_sae` with its metrics of every step."""
    config = SaeConfig(
        architecture=job.architecture,  # type: ignore[arg-type]
        d_sae=job.d_sae,
        k=job.k,
        batch_tokens=job.batch_tokens,
        learning_rate=job.learning_rate,
        rng_seed=job.rng_seed,
    )
    reports: list[StepReport] = []
    weights = train_sae(
        lambda _: feed,
        config,
        d_in=feed.rows.shape[1],
        n_steps=job.n_steps,
        init_sample=feed.rows[:_INIT_TOKENS],
        on_step=reports.append,
    )

    def reopen() -> Callable[[Tensor], Tensor]:
        return load_sae(SAE(weights).save(Path(job.out, WEIGHTS_FOLDER)), "saelens").reconstruct

    return Trained(reopen, facviz.__version__)


if __name__ == "__main__":
    run(train)
