"""SAE training steps and decoding: facviz's sparse kernels against dense autograd and a dense matmul."""

from __future__ import annotations

import time
from itertools import repeat

import torch
from torch import Tensor
from torch.nn import Parameter

from benchmarks.results import Pairs, Result, alternate, rate
from facviz.config import SaeConfig
from facviz.sae.codes import top_k_codes
from facviz.sae.model import SAE
from facviz.sae.train import StepReport, selection_dtype, train_sae
from facviz.sae.weights import Activation, SaeWeights

STEP_BAR = 4.0
DECODE_BAR = 10.0


def bench_step(
    *, d_in: int = 576, d_sae: int = 16_384, k: int = 32, batch_tokens: int = 2048, n_pairs: int = 3
) -> Result:
    """Whole TopK training steps on the same batch, neither with dead features to revive."""
    batch = synthetic_activations(batch_tokens, d_in)
    never = 10**12
    config = SaeConfig(architecture="topk", d_sae=d_sae, k=k, batch_tokens=batch_tokens, dead_after_tokens=never)
    dense = DenseStep(d_in, d_sae, k)
    pairs = Pairs()
    started = time.perf_counter()

    def measure(report: StepReport) -> None:  # runs between our steps, so the two alternate
        nonlocal started
        ours = batch_tokens / (time.perf_counter() - started)
        reference = rate(lambda: dense.train_on(batch))
        if report.step > 1:  # the first step of each is the warm-up
            pairs.ours.append(ours)
            pairs.reference.append(reference)
        started = time.perf_counter()

    train_sae(lambda _: repeat(batch), config, d_in=d_in, n_steps=n_pairs + 1, init_sample=batch, on_step=measure)
    dtype = str(selection_dtype(batch.device)).removeprefix("torch.")
    return pairs.result(
        "sae-step", "tokens/s", STEP_BAR, d_in=d_in, d_sae=d_sae, k=k, batch_tokens=batch_tokens, selection=dtype
    )


class DenseStep:
    """A plain TopK SAE: dense pre-activations, top k scattered into zeros, dense decode, autograd, fused Adam."""

    def __init__(self, d_in: int, d_sae: int, k: int) -> None:
        rows = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(0)))
        self.k = k
        self.W_enc, self.W_dec = Parameter(rows.T.contiguous()), Parameter(rows.clone())
        self.b_enc, self.b_dec = Parameter(torch.zeros(d_sae)), Parameter(torch.zeros(d_in))
        self.optimizer = torch.optim.Adam([self.W_enc, self.b_enc, self.W_dec, self.b_dec], lr=1e-4, fused=True)
        self.loss = float("nan")

    def train_on(self, x: Tensor) -> int:
        """One optimiser step on x [n, d_in]; the tokens it took in."""
        pre = torch.relu((x - self.b_dec) @ self.W_enc + self.b_enc)
        top = pre.topk(self.k, dim=1, sorted=False)
        feature_acts = torch.zeros_like(pre).scatter(1, top.indices, top.values)
        loss = (feature_acts @ self.W_dec + self.b_dec - x).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.loss = float(loss.detach())
        return len(x)


def bench_decode(
    *, d_in: int = 512, d_sae: int = 8192, k: int = 32, n_tokens: int = 2048, n_calls: int = 10, n_pairs: int = 5
) -> Result:
    """Reconstructions from sparse codes against the same codes as a dense matrix, which is made beforehand."""
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator))
    weights = SaeWeights(W_dec.T.contiguous(), torch.zeros(d_sae), W_dec, torch.zeros(d_in), Activation("topk", k=k))
    sae = SAE(weights)
    codes = top_k_codes(torch.randn(n_tokens, d_sae, generator=generator), k)
    dense = sae.to_dense(codes)

    def ours() -> int:
        return sum(len(sae.decode(codes)) for _ in range(n_calls))

    pairs = alternate(ours, lambda: len(sae.decode(dense)), n_pairs)
    return pairs.result("sparse-decode", "tokens/s", DECODE_BAR, d_in=d_in, d_sae=d_sae, k=k, n_tokens=n_tokens)


def synthetic_activations(n: int, d_in: int) -> Tensor:
    """[n, d_in] sums of eight of 4,096 random directions each: something an SAE can learn."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(4096, d_in, generator=generator))
    chosen = torch.randint(4096, (n, 8), generator=generator)
    strength = torch.rand(n, 8, 1, generator=generator) + 0.5
    return (directions[chosen] * strength).sum(1)
