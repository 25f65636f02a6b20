"""Training an SAE: a pure loop from batches of model activations to weights, resumable bit for bit.

Each step selects features with a dense matmul and does everything else sparsely (`ops`). Parameters are float32;
selection alone runs in bfloat16 where the processor multiplies it natively, and the selected values are recomputed in
float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from facviz.config import SaeConfig
from facviz.errors import SaeError
from facviz.sae.architectures import get_architecture
from facviz.sae.checkpoint import CheckpointSink, TrainState
from facviz.sae.init import init_weights, offset_ratio
from facviz.sae.ops import Pattern, decode_at, encode_at
from facviz.sae.revival import longest_silent, revival_loss
from facviz.sae.schedule import recipe_for
from facviz.sae.weights import SaeWeights

_CLIP_NORM = 1.0
_REVIVAL_POOL = 4  # dead features considered at a time, in multiples of aux_k
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class StepReport:
    """Named metrics of one training step; `fvu` and `l0` are of the training batch, not held out."""

    step: int
    n_steps: int
    n_tokens: int
    loss: float
    fvu: float
    l0: float
    n_dead: int
    revival_loss: float
    learning_rate: float


def train_sae(
    batches: Callable[[int], Iterator[Tensor]],
    config: SaeConfig,
    *,
    d_in: int,
    n_steps: int,
    init_sample: Tensor,
    on_step: Callable[[StepReport], None] | None = None,
    checkpoint: CheckpointSink | None = None,
    resume: TrainState | None = None,
) -> SaeWeights:
    """Weights after `n_steps` batches [config.batch_tokens, d_in]; `batches(step)` yields them from that step on.

    Runs on the device of `init_sample` [n, d_in]; the weights come back on the CPU, for unscaled inputs.

    Raises:
        SaeError: batches run out or do not fit, training diverges, or `resume` belongs to another run.
    """
    run = _Run(config, d_in, n_steps, init_sample)
    if resume is not None:
        run.load(resume)
    stream = batches(run.step)
    while run.step < n_steps:
        report = run.train_on(_next_batch(stream, run))
        if on_step is not None:
            on_step(report)
        if checkpoint is not None and (checkpoint.due(run.step) or run.step == n_steps):
            checkpoint.save(run.state())
    return run.export()


def _next_batch(stream: Iterator[Tensor], run: _Run) -> Tensor:
    batch = next(stream, None)
    if batch is None:
        raise SaeError(f"The activations ran out at step {run.step} of {run.n_steps}; capture more or lower `epochs`.")
    if tuple(batch.shape) != run.batch_shape:
        raise SaeError(f"A training batch has shape {tuple(batch.shape)}; this run needs {run.batch_shape}.")
    return batch


def selection_dtype(device: torch.device) -> torch.dtype:
    """Bfloat16 where the hardware multiplies it natively (three times faster), else float32."""
    if device.type == "cuda":
        return torch.bfloat16
    flags = torch.cpu.get_capabilities()
    return torch.bfloat16 if flags.get("avx512_bf16") or flags.get("amx_bf16") else torch.float32


class _Run:
    """Parameters, optimiser and counters of one training run."""

    def __init__(self, config: SaeConfig, d_in: int, n_steps: int, init_sample: Tensor) -> None:
        if n_steps < 1 or config.k > config.d_sae or init_sample.ndim != 2 or init_sample.shape[1] != d_in:
            raise SaeError(
                f"Cannot train {n_steps} steps with k {config.k}, d_sae {config.d_sae} and a sample of shape "
                f"{tuple(init_sample.shape)}; give at least 1 step, k ≤ d_sae and a sample of [n, {d_in}]."
            )
        self.config, self.n_steps, self.step = config, n_steps, 0
        self.batch_shape = (config.batch_tokens, d_in)
        self.recipe = recipe_for(config, n_steps)
        self.architecture = get_architecture(config.architecture)(config.k)
        self.aux_k = d_in // 2 if config.aux_k is None else config.aux_k
        self.offset_ratio = offset_ratio(init_sample)
        start = init_weights(init_sample, config.d_sae, config.rng_seed)
        self.input_scale = start.input_scale
        self.parameters = {name: Parameter(getattr(start, name)) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        self.W_enc, self.b_enc, self.W_dec, self.b_dec = self.parameters.values()
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=self.recipe.learning_rate, fused=True)
        self.tokens_since_fired = torch.zeros(config.d_sae, dtype=torch.int64, device=init_sample.device)
        self.selection_dtype = selection_dtype(init_sample.device)

    def train_on(self, batch: Tensor) -> StepReport:
        """One optimiser step. The loss is the mean squared error per input dimension: about the FVU, by scaling."""
        x = batch.to(self.W_enc.device, torch.float32) * self.input_scale
        centred = x - self.b_dec
        selected = self.architecture.select(self._selection_acts(centred.detach()))
        pattern = Pattern.of(selected, self.config.d_sae)
        acts = encode_at(centred, self.W_enc, self.b_enc, pattern).relu()
        error = x - self.b_dec - decode_at(acts, self.W_dec, pattern)
        loss = error.square().mean()
        revival = self._revival_loss(error, centred)
        self._check_finite(loss)
        (loss + self.config.aux_coefficient * revival).backward()  # type: ignore[no-untyped-call]
        rate = self._update()
        self.architecture.observe(selected)
        self._count_silence(pattern)
        self.step += 1
        return self._report(x, loss.detach(), revival.detach(), len(selected.indices), rate)

    @torch.no_grad()
    def _selection_acts(self, centred: Tensor) -> Tensor:
        dtype = self.selection_dtype
        return torch.addmm(self.b_enc.to(dtype), centred.to(dtype), self.W_enc.to(dtype).T)

    def _revival_loss(self, error: Tensor, centred: Tensor) -> Tensor:
        if self.config.aux_coefficient == 0:
            return error.new_zeros(())
        dead = longest_silent(self.tokens_since_fired, self.recipe.dead_after_tokens, _REVIVAL_POOL * self.aux_k)
        return revival_loss(error, centred, (self.W_enc, self.b_enc, self.W_dec), dead, self.aux_k)

    def _check_finite(self, loss: Tensor) -> None:
        if not bool(torch.isfinite(loss)):
            raise SaeError(
                f"Training met values that are not finite at step {self.step}; capture the activations in float32 "
                "or bfloat16, or lower `learning_rate`."
            )

    @torch.no_grad()
    def _update(self) -> float:
        """Adam on the sphere: decoder rows move along it and are put back on it."""
        rate = self.recipe.learning_rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        remove_radial_part(self.W_dec)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), _CLIP_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))
        return rate

    def _count_silence(self, pattern: Pattern) -> None:
        self.tokens_since_fired += self.config.batch_tokens
        self.tokens_since_fired[pattern.feature_offsets.diff() > 0] = 0

    def _report(self, x: Tensor, loss: Tensor, revival: Tensor, n_active: int, rate: float) -> StepReport:
        n_dead = int((self.tokens_since_fired > self.recipe.dead_after_tokens).sum())
        variance = float(x.var(0, correction=0).mean())
        return StepReport(
            step=self.step,
            n_steps=self.n_steps,
            n_tokens=self.step * self.config.batch_tokens,
            loss=float(loss),
            fvu=float(loss) / variance if variance else float("nan"),
            l0=n_active / len(x),
            n_dead=n_dead,
            revival_loss=float(revival),
            learning_rate=rate,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What two runs must share for one to continue the other."""
        return dataclasses.asdict(self.config) | {"d_in": self.batch_shape[1], "n_steps": self.n_steps}

    def state(self) -> TrainState:
        """Everything the next step depends on."""
        tensors = {
            "tokens_since_fired": self.tokens_since_fired,
            "input_scale": torch.tensor(self.input_scale, dtype=torch.float64),
            "adam.step": self.optimizer.state[self.W_enc]["step"],
        }
        for name, parameter in self.parameters.items():
            tensors[name] = parameter.detach()
            tensors |= {f"adam.{moment}.{name}": self.optimizer.state[parameter][moment] for moment in _MOMENTS}
        tensors |= {f"architecture.{name}": value for name, value in self.architecture.state().items()}
        return TrainState(self.step, self.identity, tensors)

    @torch.no_grad()
    def load(self, state: TrainState) -> None:
        """Continue from `state`."""
        different = sorted(key for key, value in self.identity.items() if state.run.get(key) != value)
        if different:
            raise SaeError(f"The checkpoint is of a run with another {different[0]}; delete it to start over.")
        tensors = state.tensors
        self.step = state.step
        self.input_scale = float(tensors["input_scale"])
        self.tokens_since_fired.copy_(tensors["tokens_since_fired"])
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[name])
            adam = {moment: tensors[f"adam.{moment}.{name}"].to(parameter.device, copy=True) for moment in _MOMENTS}
            self.optimizer.state[parameter] = adam | {"step": tensors["adam.step"].to(parameter.device, copy=True)}
        prefix = "architecture."
        learnt = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        self.architecture.load_state(learnt)

    def export(self) -> SaeWeights:
        """Weights for unscaled inputs. Decoder rows stay unit-norm, so activations carry the inputs' scale."""
        W_enc, b_enc, W_dec, b_dec = (p.detach().cpu() for p in self.parameters.values())
        return SaeWeights(
            W_enc=W_enc.T.contiguous(),
            b_enc=b_enc / self.input_scale,
            W_dec=W_dec.clone(),
            b_dec=b_dec / self.input_scale,
            activation=self.architecture.export(self.config.d_sae, self.input_scale),
            provenance=self._provenance(),
        )

    def _provenance(self) -> dict[str, Any]:
        return {
            "trainer": "facviz",
            "config": dataclasses.asdict(self.config),
            "recipe": dataclasses.asdict(self.recipe),
            "n_training_tokens": self.step * self.config.batch_tokens,
            "input_scale": self.input_scale,
            "offset_ratio": self.offset_ratio,
        }


@torch.no_grad()
def remove_radial_part(rows: Parameter) -> None:
    """Take from the gradient of unit-norm rows [n, d] what would only change their length."""
    if rows.grad is not None:
        radial = torch.linalg.vecdot(rows.grad, rows).unsqueeze(1)
        rows.grad.addcmul_(rows, radial, value=-1)
