"""A training run of dictionary_learning, by its own `trainSAE`, in its own environment.

Its defaults count in steps of long runs: the warm-up of 1,000 steps is refused in a shorter one. It is scaled to a
twentieth of the run, and the threshold is followed during the last fifth only, as its average hardly moves from where
it begins. All else is as the library has it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from dictionary_learning.trainers import BatchTopKTrainer, TopKTrainer
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.training import trainSAE
from torch import Tensor

from benchmarks.peers.job import WEIGHTS_FOLDER, Feed, Job, Trained, run

_CLASSES = {"topk": (TopKTrainer, AutoEncoderTopK), "batchtopk": (BatchTopKTrainer, BatchTopKSAE)}


def train(job: Job, feed: Feed) -> Trained:
    """`trainSAE` on the feed; writing the 10 to 80 MB of weights is part of it."""
    trainer, dictionary = _CLASSES[job.architecture]
    config = {
        "trainer": trainer,
        "steps": job.n_steps,
        "activation_dim": feed.rows.shape[1],
        "dict_size": job.d_sae,
        "k": job.k,
        "layer": 0,
        "lm_name": "cached",
        "lr": job.learning_rate,
        "warmup_steps": job.n_steps // 20,
        "threshold_start_step": job.n_steps * 4 // 5,
        "seed": job.rng_seed,
        "device": "cpu",
    }
    folder = Path(job.out, WEIGHTS_FOLDER)
    trainSAE(feed, [config], steps=job.n_steps, save_dir=str(folder), device="cpu")

    def reopen() -> Callable[[Tensor], Tensor]:
        return dictionary.from_pretrained(str(folder / "trainer_0" / "ae.pt"), device="cpu")

    return Trained(reopen, version("dictionary-learning"))


if __name__ == "__main__":
    run(train)
