"""A training run of SAELens, by its own `SAETrainer`, in its own environment; defaults wherever the job is silent.

The setting joins with `+` what is switched on: `autocast`, `sparse` (TopK only) and `compile`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sae_lens
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from benchmarks.peers.job import WEIGHTS_FOLDER, Feed, Job, Trained, run


def train(job: Job, feed: Feed) -> Trained:
    """`SAETrainer.fit` on the feed, with compilation as SAELens' own runner does it."""
    switched = set(job.setting.split("+"))
    torch.manual_seed(job.rng_seed)
    sae = _new_sae(job, feed.rows.shape[1], sparse="sparse" in switched)
    config = SAETrainerConfig(
        total_training_samples=job.n_steps * job.batch_tokens,
        train_batch_size_samples=job.batch_tokens,
        lr=job.learning_rate,
        lr_end=job.learning_rate / 10,  # what the runner's configuration fills in
        autocast="autocast" in switched,
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=feed)
    if "compile" in switched:
        sae.training_forward_pass = torch.compile(sae.training_forward_pass, mode=None, backend="inductor")
    trainer.fit()

    def reopen() -> Callable[[Tensor], Tensor]:
        folder = Path(job.out, WEIGHTS_FOLDER)
        sae.save_inference_model(str(folder))
        return sae_lens.SAE.load_from_disk(str(folder))

    return Trained(reopen, sae_lens.__version__)


def _new_sae(job: Job, d_in: int, sparse: bool) -> TopKTrainingSAE:
    if job.architecture == "topk":
        config = TopKTrainingSAEConfig(d_in=d_in, d_sae=job.d_sae, k=job.k, use_sparse_activations=sparse)
        return TopKTrainingSAE(config)
    return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=d_in, d_sae=job.d_sae, k=job.k))


if __name__ == "__main__":
    run(train)
