"""Training SAEs: a pure loop from batches of model activations to weights, resumable bit for bit.

What a step computes is the architecture's; here are the optimiser, the revival of dead features and the bookkeeping.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from facviz.config import SaeConfig
from facviz.errors import SaeError
from facviz.heap import freed_memory_kept
from facviz.sae.adam import Adam
from facviz.sae.architectures import get_architecture
from facviz.sae.architectures.base import Parameters, Step
from facviz.sae.checkpoint import CheckpointSink, TrainState
from facviz.sae.continuing import continue_weights
from facviz.sae.init import offset_ratio
from facviz.sae.ops import mean_square, row_dots
from facviz.sae.revival import Revival, longest_silent, revive
from facviz.sae.schedule import recipe_for
from facviz.sae.weights import SaeWeights

_REVIVAL_POOL = 4  # dead features considered at a time, in multiples of aux_k
_ARCHITECTURE, _SOURCE = "architecture.", "source."
"""Begin the names of tensors of a checkpoint that are not the run's own."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One SAE to train: what it reads of each batch, and where its news go."""

    config: SaeConfig
    init_sample: Tensor
    """[n, d_in] activations to start from; training runs on their device."""
    columns: slice | None = None
    """Its part of a batch that holds several layers side by side; None takes all."""
    on_step: Callable[[StepReport], None] | None = None
    checkpoint: CheckpointSink | None = None
    resume: TrainState | None = None
    start: SaeWeights | None = None
    """Train these further instead of beginning anew."""


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
    start: SaeWeights | None = None,
) -> SaeWeights:
    """Weights after `n_steps` batches [config.batch_tokens, d_in]; `batches(step)` yields them from that step on.

    Runs on the device of `init_sample` [n, d_in]; the weights come back on the CPU, for unscaled inputs.

    Raises:
        SaeError: batches run out or do not fit, training diverges, or `resume` belongs to another run.
    """
    if init_sample.ndim == 2 and init_sample.shape[1] != d_in:
        raise SaeError(f"The sample has width {init_sample.shape[1]}, but the run {d_in}; take it from the same layer.")
    plan = Plan(config, init_sample, on_step=on_step, checkpoint=checkpoint, resume=resume, start=start)
    return train_together(Replayed(batches), [plan], n_steps=n_steps)[0]


class BatchSource(Protocol):
    """Where batches come from, so that a run can go on in the middle of them."""

    def open(self, step: int, state: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Batches from that step on; `state` is what `state()` gave there."""

    def state(self) -> dict[str, Tensor]:
        """What the next batch depends on beside its number."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """Batches that are cheap to make again: `batches(step)` yields them from that step on."""

    batches: Callable[[int], Iterator[Tensor]]

    def open(self, step: int, state: Mapping[str, Tensor]) -> Iterator[Tensor]:  # noqa: ARG002
        """Start over and skip."""
        return self.batches(step)

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


def train_together(source: BatchSource, plans: Sequence[Plan], *, n_steps: int) -> list[SaeWeights]:
    """Several SAEs on one pass over the activations; each ends as it would alone.

    A run that was resumed ahead of another waits until the stream reaches it.

    Raises:
        SaeError: as `train_sae`, or the plans disagree on the tokens of a batch.
    """
    if len({plan.config.batch_tokens for plan in plans}) != 1:
        raise SaeError("SAEs trained together read the same batches; give all of them the same `batch_tokens`.")
    runs = [(_Run(plan, n_steps), plan) for plan in plans]
    last, plan = min(runs, key=lambda pair: pair[0].step)
    stream = source.open(last.step, _part(plan.resume.tensors, _SOURCE) if plan.resume else {})
    with freed_memory_kept():
        for step in range(last.step, n_steps):
            batch = next(stream, None)
            if batch is None:
                raise SaeError(f"The activations ran out at step {step} of {n_steps}; capture more or lower `epochs`.")
            for run, plan in runs:
                if run.step == step:
                    _advance(run, plan, batch, source)
    return [run.export() for run, _ in runs]


def _advance(run: _Run, plan: Plan, batch: Tensor, source: BatchSource) -> None:
    part = batch if plan.columns is None else batch[:, plan.columns]
    if tuple(part.shape) != run.batch_shape:
        raise SaeError(f"A training batch has shape {tuple(part.shape)}; this run needs {run.batch_shape}.")
    report = run.train_on(part)
    if plan.on_step is not None:
        plan.on_step(report)
    if plan.checkpoint is not None and (plan.checkpoint.due(run.step) or run.step == run.n_steps):
        plan.checkpoint.save(run.state(source.state()), run.export)


def selection_dtype(device: torch.device) -> torch.dtype:
    """Bfloat16 where the hardware multiplies it natively (three times faster), else float32."""
    if device.type == "cuda":
        return torch.bfloat16
    flags = torch.cpu.get_capabilities()
    return torch.bfloat16 if flags.get("avx512_bf16") or flags.get("amx_bf16") else torch.float32


class _Run:
    """Parameters, optimiser and counters of one training run."""

    def __init__(self, plan: Plan, n_steps: int) -> None:
        config, init_sample = plan.config, plan.init_sample
        if n_steps < 1 or config.k > config.d_sae or init_sample.ndim != 2:
            raise SaeError(
                f"Cannot train {n_steps} steps with k {config.k}, d_sae {config.d_sae} and a sample of shape "
                f"{tuple(init_sample.shape)}; give at least 1 step, k ≤ d_sae and a sample of [n, d_in]."
            )
        d_in = init_sample.shape[1]
        self.config, self.n_steps, self.step = config, n_steps, 0
        self.batch_shape = (config.batch_tokens, d_in)
        kind = get_architecture(config.architecture)
        self.recipe = recipe_for(config, n_steps, kind.constant_rate)
        self.architecture = kind(config, self.recipe, d_in)
        self.architecture.selection_dtype = selection_dtype(init_sample.device)
        self.aux_k = d_in // 2 if config.aux_k is None else config.aux_k
        self.offset_ratio = offset_ratio(init_sample)
        first = self.architecture.start(init_sample)
        extra = self.architecture.extra(first, init_sample)  # before `first` is trained
        self.input_scale = first.input_scale
        self.parameters = Parameters(
            Parameter(first.W_enc),
            Parameter(first.b_enc),
            None if first.W_dec is None else Parameter(first.W_dec),
            Parameter(first.b_dec),
            {name: Parameter(tensor) for name, tensor in extra.items()},
        )
        if plan.start is not None:
            continue_weights(plan.start, self.architecture, self.parameters, self.input_scale)
        self.named = self.parameters.named()
        self.tied_steps = self.recipe.tied_steps if kind.tied_start and plan.start is None else 0
        factors = {name: kind.decoder_rate for name, p in self.named.items() if p is self.parameters.decoder}
        self.optimizer = Adam(self.named, factors, kind.betas, kind.adam_eps)
        self.tokens_since_fired = torch.zeros(config.d_sae, dtype=torch.int64, device=init_sample.device)
        if plan.resume is not None:
            self.load(plan.resume)

    def train_on(self, batch: Tensor) -> StepReport:
        """One optimiser step."""
        x = batch.to(self.parameters.W_enc.device, torch.float32) * self.input_scale
        step = self.architecture.step(x, self.parameters, self.step)
        self._check_finite(step.loss)
        step.loss.backward()  # type: ignore[no-untyped-call]
        revival = self._revive(step.error, x)
        rate = self._update()
        self.architecture.observe(step)
        self._count_silence(step)
        self.step += 1
        return self._report(x, step, revival, rate)

    def _revive(self, error: Tensor, x: Tensor) -> Revival | None:
        """Add to the gradients what dead features would have to learn."""
        if self.config.aux_coefficient == 0 or not self.architecture.revives:
            return None
        dead = longest_silent(self.tokens_since_fired, self.recipe.dead_after_tokens, _REVIVAL_POOL * self.aux_k)
        if not len(dead):
            return None  # before the whole batch is centred for nobody
        weights = (self.parameters.W_enc, self.parameters.b_enc, self.parameters.decoder)
        revival = revive(error, x - self.parameters.b_dec, weights, dead, self.aux_k)
        if revival is not None:
            revival.add_to(weights, self.config.aux_coefficient)
        return revival

    def _check_finite(self, loss: Tensor) -> None:
        if not bool(torch.isfinite(loss)):
            raise SaeError(
                f"Training met values that are not finite at step {self.step}; capture the activations in float32 "
                "or bfloat16, or lower `learning_rate`."
            )

    @torch.no_grad()
    def _update(self) -> float:
        """Adam; unit decoder rows move along their sphere and are put back on it."""
        rate = self.recipe.learning_rate_at(self.step)
        decoder = self.parameters.decoder
        if self.architecture.unit_decoder:
            remove_radial_part(decoder)
        if self.step < self.tied_steps:
            share_gradient(self.parameters.W_enc, decoder)
        self.optimizer.step(rate)
        if self.architecture.unit_decoder:
            decoder.div_(decoder.norm(dim=1, keepdim=True))
        return rate

    def _count_silence(self, step: Step) -> None:
        self.tokens_since_fired += self.config.batch_tokens
        self.tokens_since_fired[step.fired] = 0

    def _report(self, x: Tensor, step: Step, revival: Revival | None, rate: float) -> StepReport:
        n_dead = int((self.tokens_since_fired > self.recipe.dead_after_tokens).sum())
        variance = float(mean_square(x - x.mean(0)))
        return StepReport(
            step=self.step,
            n_steps=self.n_steps,
            n_tokens=self.step * self.config.batch_tokens,
            loss=float(step.loss.detach()),
            fvu=float(mean_square(step.error.detach())) / variance if variance else float("nan"),
            l0=step.n_active / len(x),
            n_dead=n_dead,
            revival_loss=0.0 if revival is None else float(revival.loss),
            learning_rate=rate,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What two runs must share for one to continue the other."""
        described = dataclasses.asdict(self.config) | {"d_in": self.batch_shape[1], "n_steps": self.n_steps}
        return dict(json.loads(json.dumps(described)))  # as a checkpoint file gives it back

    def state(self, source: Mapping[str, Tensor]) -> TrainState:
        """Everything the next step depends on, with what its batch does."""
        tensors = {
            "tokens_since_fired": self.tokens_since_fired,
            "input_scale": torch.tensor(self.input_scale, dtype=torch.float64),
            "adam.step": self.optimizer.n_steps,
        }
        for name, parameter in self.named.items():
            tensors[name] = parameter.detach()
            tensors |= {f"adam.{moment}.{name}": of[name] for moment, of in self.optimizer.moments.items()}
        tensors |= {_ARCHITECTURE + name: value for name, value in self.architecture.state().items()}
        tensors |= {_SOURCE + name: value for name, value in source.items()}
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
        for name, parameter in self.named.items():
            parameter.copy_(tensors[name])
            for moment, of in self.optimizer.moments.items():
                of[name].copy_(tensors[f"adam.{moment}.{name}"])
        self.optimizer.n_steps.copy_(tensors["adam.step"])
        self.architecture.load_state(_part(tensors, _ARCHITECTURE))

    def export(self) -> SaeWeights:
        """Weights for unscaled inputs. Unit decoder rows stay so, hence activations carry the inputs' scale."""
        W_enc, b_enc, activation = self.architecture.inference(self.parameters)
        W_dec, threshold = self.parameters.W_dec, activation.threshold
        if threshold is not None:
            activation = replace(activation, threshold=threshold.cpu() / self.input_scale)
        return SaeWeights(
            W_enc=W_enc.T.cpu().contiguous(),
            b_enc=b_enc.cpu() / self.input_scale,
            W_dec=None if W_dec is None else W_dec.detach().cpu().clone(),
            b_dec=self.parameters.b_dec.detach().cpu() / self.input_scale,
            activation=activation,
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


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def remove_radial_part(rows: Parameter) -> None:
    """Take from the gradient of unit-norm rows [n, d] what would only change their length."""
    if rows.grad is not None:
        radial = row_dots(rows.grad, rows.detach())
        rows.grad.addcmul_(rows, radial.unsqueeze(1), value=-1)


@torch.no_grad()
def share_gradient(first: Parameter, second: Parameter) -> None:
    """Give both the sum of their gradients, once."""
    if first.grad is not None and second.grad is not None:
        first.grad.add_(second.grad)
        second.grad.copy_(first.grad)
