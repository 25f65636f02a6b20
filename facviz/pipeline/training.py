"""`facviz sae train`: one SAE, or several on one pass of the model, from kept activations or straight from the model.

A run goes on from its checkpoint bit for bit. Beside the last weights the best on held-out tokens are kept where they
are others.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facviz.config import CaptureConfig, SaeConfig, fingerprint
from facviz.errors import InputError
from facviz.files import disk_errors, write_text_atomically
from facviz.pipeline.data import capture_layers, open_capture, plan_dataset
from facviz.pipeline.sae import place_metadata, store_sae
from facviz.pipeline.sae_measures import MEASURED, metric_values
from facviz.pipeline.session import CODE_VERSION, Session
from facviz.sae.schedule import RECIPE_VERSION
from facviz.store.manifest import Scope
from facviz.store.training import TrainingCurve

if TYPE_CHECKING:
    from torch import Tensor

    from facviz.activations import TrainingActivations
    from facviz.sae.buffer import MixingBuffer
    from facviz.sae.model import SAE
    from facviz.sae.train import Plan, StepReport
    from facviz.sae.weights import SaeWeights

INIT_TOKENS = 20_000
CHECKPOINT_STEPS = 200
CHECKPOINT_SECONDS = 30.0
JUDGED_TOKENS = 4096
"""Held-out tokens on which weights are compared while training."""
BUFFER_BATCHES = 64
BEST_FOLDER, BEST_FILE = "best", "best.json"


@dataclass(frozen=True, slots=True)
class Task:
    """One SAE to make: its settings, the layer it reads, and the activations it learns from."""

    config: SaeConfig
    captured: Mapping[str, Any]

    @property
    def layer(self) -> int:
        """Hidden-state index."""
        return int(self.captured["layer"])

    @property
    def sae_id(self) -> str:
        """Named by everything it follows from."""
        described = dataclasses.replace(self.config, path="")
        return fingerprint("sae", CODE_VERSION, RECIPE_VERSION, self.captured["capture_id"], described)[:12]


def train(session: Session, capture: CaptureConfig, config: SaeConfig) -> dict[str, Any]:
    """Train one SAE on a capture (run first when it is missing); resumes from its checkpoint, bit for bit."""
    return train_several(session, capture, [config], [session.backbone.layer])[0]


def vary(config: SaeConfig, widths: Sequence[int], ks: Sequence[int]) -> list[SaeConfig]:
    """The same settings with every width and k; an empty list keeps the setting."""
    return [
        dataclasses.replace(config, d_sae=d_sae, k=k)
        for d_sae, k in product(widths or [config.d_sae], ks or [config.k])
    ]


def train_several(
    session: Session, capture: CaptureConfig, configs: Sequence[SaeConfig], layers: Sequence[int]
) -> list[dict[str, Any]]:
    """Every config at every layer, all on one pass over the activations; those already there are not made again."""
    captures = capture_layers(session, capture, layers)
    tasks = [Task(config, captured) for captured in captures for config in configs]
    if len({task.sae_id for task in tasks}) < len(tasks):
        raise InputError("Two of the SAEs to train are the same; name every k, width and layer once.")
    manifest = session.workspace.manifest
    lacking = [task for task in tasks if manifest.done(Scope("sae", task.sae_id, task.sae_id)) is None]
    made = _train(session, capture, lacking) if lacking else {}
    summaries = []
    for task in tasks:
        scope = Scope("sae", task.sae_id, task.sae_id)
        summaries.append(session.run_once(scope, lambda task=task: made[task.sae_id]))  # type: ignore[misc]
    return summaries


def _train(session: Session, capture: CaptureConfig, tasks: Sequence[Task]) -> dict[str, dict[str, Any]]:
    from facviz.sae.train import train_together

    config, captured = tasks[0].config, tasks[0].captured
    n_steps = captured["n_tokens"] * config.epochs // config.batch_tokens
    if n_steps == 0:
        raise InputError("There are fewer captured tokens than one batch; lower batch_tokens or capture more.")
    layers = list(dict.fromkeys(task.layer for task in tasks))
    activations = _open(session, capture, tasks, layers)
    width = session.backbone.d_model
    columns = {layer: slice(n * width, (n + 1) * width) for n, layer in enumerate(layers)}
    device = session.backbone.model.device  # where the model runs, SAEs train
    sample = _sample(activations.train_chunks(config.rng_seed)).to(device)
    heldout = _first_rows(activations.heldout_chunks(), JUDGED_TOKENS)
    runs = [
        _Running(session, task, n_steps, sample[:, columns[task.layer]], heldout[:, columns[task.layer]])
        for task in tasks
    ]
    for run in runs:
        run.announce()
    plans = [run.plan(columns[run.task.layer] if len(layers) > 1 else None) for run in runs]
    trained = train_together(_Batches(activations, config), plans, n_steps=n_steps)
    return {
        run.task.sae_id: run.finish(
            weights, (chunk[:, columns[run.task.layer]] for chunk in activations.heldout_chunks())
        )
        for run, weights in zip(runs, trained)
    }


def _open(
    session: Session, capture: CaptureConfig, tasks: Sequence[Task], layers: Sequence[int]
) -> TrainingActivations:
    """The captures side by side; where one was not kept, all straight from the model."""
    from facviz.activations import LiveActivations

    ids = {task.layer: str(task.captured["capture_id"]) for task in tasks}
    scopes = [Scope("capture", f"{tasks[0].captured['dataset_id']}/{layer}", i) for layer, i in ids.items()]
    if all(session.workspace.manifest.done(scope) is not None for scope in scopes):  # a killed capture is not
        return open_capture(session, [ids[layer] for layer in layers])
    renderer, documents, plan = plan_dataset(session, capture)
    places = [session.fast.at(layer) for layer in layers]
    return LiveActivations(places, renderer, documents, plan, batch_tokens=session.backbone_config.batch_tokens)


class _Batches:
    """A `BatchSource`: shuffled batches of all epochs; what the model would have to make again is in the checkpoint."""

    def __init__(self, activations: TrainingActivations, config: SaeConfig) -> None:
        self._activations, self._config = activations, config
        self._buffer: MixingBuffer | None = None

    def open(self, step: int, state: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """From that step on."""
        from facviz.sae.buffer import MixingBuffer, prefetch

        config, is_kept = self._config, self._activations.is_kept

        def chunks(first: int) -> Iterator[Tensor]:
            found = self._activations.epochs(config.rng_seed, config.epochs, first)
            return prefetch(found) if is_kept else found

        buffer = MixingBuffer(
            chunks,
            batch_size=config.batch_tokens,
            capacity=BUFFER_BATCHES * config.batch_tokens,
            rng_seed=config.rng_seed,
        )
        if state:
            buffer.restore(state)
        self._buffer = None if is_kept else buffer
        return islice(buffer, 0 if state else step, None)

    def state(self) -> dict[str, Tensor]:
        """The buffer, unless its rows are on disk."""
        return self._buffer.state() if self._buffer is not None else {}


class _Running:
    """One SAE in training: where its news, checkpoints and best weights go."""

    def __init__(self, session: Session, task: Task, n_steps: int, sample: Tensor, heldout: Tensor) -> None:
        self.task, self._session, self._n_steps = task, session, n_steps
        self._sample, self._heldout = sample, heldout
        self._folder = session.workspace.sae_folder(task.sae_id)
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._curve = TrainingCurve(self._folder, n_steps)

    def plan(self, columns: slice | None) -> Plan:
        """What the training loop needs."""
        from facviz.sae.checkpoint import FileCheckpoints, load_state
        from facviz.sae.train import Plan

        path = self._folder / "checkpoint.safetensors"
        return Plan(
            self.task.config,
            self._sample,
            columns=columns,
            on_step=self._tell,
            checkpoint=FileCheckpoints(path, CHECKPOINT_STEPS, CHECKPOINT_SECONDS, self._judge),
            resume=load_state(path) if path.exists() else None,
            start=self._start(),
        )

    def announce(self) -> None:
        """What the activations promise for a training."""
        from facviz.sae.init import offset_ratio
        from facviz.sae.schedule import offset_words

        ratio = offset_ratio(self._sample)
        words = f"steps; γ = ‖μ‖/‖σ‖ = {ratio:.2f}: {offset_words(ratio)}"
        self._session.progress.update("sae", 0, self._n_steps, words)

    def _start(self) -> SaeWeights | None:
        from facviz.sae.formats import load_sae

        name = self.task.config.continue_from
        if not name:
            return None
        folder = self._session.workspace.sae_folder(name) / "weights"
        return load_sae(folder if folder.is_dir() else Path(name)).weights

    def _tell(self, report: StepReport) -> None:
        self._curve.add(report.step, loss=report.loss, fvu=report.fvu, l0=report.l0, n_dead=report.n_dead)
        note = f"steps, batch FVU {report.fvu:.3f}, L0 {report.l0:.0f}, dead {report.n_dead}"
        self._session.progress.update("sae", report.step, report.n_steps, note)

    def _judge(self, step: int, export: Callable[[], SaeWeights]) -> None:
        """Keep these weights when none before them fitted the held-out tokens better."""
        from facviz.sae.model import SAE

        sae = SAE(export()).to(self._sample.device)
        fvu = _evaluate(sae, iter([self._heldout])).fvu
        best = self._best()
        if best is None or fvu < best["fvu"]:
            sae.save(self._folder / BEST_FOLDER)
            write_text_atomically(self._folder / BEST_FILE, json.dumps({"step": step, "fvu": fvu}) + "\n")

    def _best(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self._folder / BEST_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def finish(self, weights: SaeWeights, heldout: Iterator[Tensor]) -> dict[str, Any]:
        """Measure and store the last weights; the best stay beside them only where they are others."""
        from facviz.sae.init import offset_ratio
        from facviz.sae.model import SAE

        session, task, config = self._session, self.task, self.task.config
        if task.layer != session.backbone.layer:
            session.move_to_layer(task.layer)
        sae = SAE(weights, self._metadata())
        metrics = _evaluate(sae.to(self._sample.device), heldout)
        sae.metadata[MEASURED] = metric_values(metrics)
        sae.save(self._folder / "weights")
        summary = store_sae(session, sae, task.sae_id, metrics, config.k, config.architecture)
        best = self._best() or {"step": self._n_steps}
        if best["step"] == self._n_steps:
            for file in sorted((self._folder / BEST_FOLDER).glob("*")):
                file.unlink()
        (self._folder / "checkpoint.safetensors").unlink(missing_ok=True)
        return summary | {
            "n_train_tokens": task.captured["n_tokens"],
            "n_steps": self._n_steps,
            "best_step": best["step"],
            "offset_ratio": round(offset_ratio(self._sample), 4),
        }

    def _metadata(self) -> dict[str, Any]:
        backbone, config, captured = self._session.backbone_config, self.task.config, self.task.captured
        return place_metadata(self._session.backbone) | {
            "model_name": backbone.name,
            "context_size": backbone.max_tokens,
            "training_architecture": config.architecture,
            "k": config.k,
            "dataset": captured["dataset"],
            "n_train_tokens": captured["n_tokens"],
        }


def _sample(chunks: Iterator[Tensor]) -> Tensor:
    import torch

    return torch.cat(list(islice(chunks, 4)))[:INIT_TOKENS].float()


def _first_rows(chunks: Iterator[Tensor], n_rows: int) -> Tensor:
    import torch

    rows: list[Tensor] = []
    for chunk in chunks:
        rows.append(chunk)
        if sum(map(len, rows)) >= n_rows:
            break
    return torch.cat(rows)[:n_rows]


def _evaluate(sae: SAE, chunks: Iterator[Tensor]) -> Any:
    from facviz.sae.metrics import SaeEvaluator

    evaluator = SaeEvaluator(sae)
    for chunk in chunks:
        evaluator.update(chunk)
    return evaluator.result()
