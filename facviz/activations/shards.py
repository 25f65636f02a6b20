"""Activations for training: planned before the first forward pass, then written to shards or made anew when read."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch

from facviz.activations.forward import ContentActs, content_activations
from facviz.backbone import Backbone, Renderer
from facviz.config import CaptureConfig
from facviz.errors import InputError, WorkspaceError
from facviz.files import append_line, read_lines, write_files
from facviz.protocols import ProgressSink
from facviz.records import Document

LISTING = "shards.jsonl"


def is_held_out(doc_id: str) -> bool:
    """One document in sixteen never trains an SAE; decided by content, so no run can mix the halves up."""
    return int(doc_id[8:10], 16) % 16 == 0


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """Which documents go into which shard, fixed before the first forward pass so that a resumed run is the same."""

    shards: tuple[tuple[str, tuple[int, ...]], ...]  # (name, document numbers)
    n_tokens: int
    n_heldout_tokens: int


def plan_capture(documents: Sequence[Document], renderer: Renderer, config: CaptureConfig) -> CapturePlan:
    """Documents in the order of their hashes (the same in every file order) up to the token goals."""
    order = sorted(range(len(documents)), key=lambda i: documents[i].doc_id)
    groups = {
        "train": [i for i in order if not is_held_out(documents[i].doc_id)],
        "heldout": [i for i in order if is_held_out(documents[i].doc_id)],
    }
    goals = {"train": config.tokens, "heldout": config.heldout_tokens}
    shards: list[tuple[str, tuple[int, ...]]] = []
    reached = dict.fromkeys(groups, 0)
    for name, members in groups.items():
        for start in range(0, len(members), config.shard_docs):
            if reached[name] >= goals[name]:
                break
            chunk = tuple(members[start : start + config.shard_docs])
            shards.append((f"{name}-{start // config.shard_docs:05d}", chunk))
            reached[name] += sum(d.n_content_tokens for d in renderer.render_many([(i, documents[i]) for i in chunk]))
    if not reached["train"] or not reached["heldout"]:
        raise InputError("The corpus has too few documents to train an SAE and hold some out; give a larger one.")
    return CapturePlan(tuple(shards), reached["train"], reached["heldout"])


def capture(
    places: Sequence[Backbone],
    renderer: Renderer,
    documents: Sequence[Document],
    plan: CapturePlan,
    folders: Sequence[Path],
    *,
    batch_tokens: int,
    progress: ProgressSink,
) -> None:
    """Write every shard of the plan that is not there yet: bf16 activations of content tokens with their origin.

    `places` are one model read at several places, each with its own folder; one pass serves all that lack a shard.
    """
    finished = [_finished_shards(folder) for folder in folders]
    done = sum(min(of.get(name, 0) for of in finished) for name, _ in plan.shards)
    total = plan.n_tokens + plan.n_heldout_tokens
    for name, members in plan.shards:
        lacking = [i for i, of in enumerate(finished) if name not in of]
        if not lacking:
            continue
        tokenized = renderer.render_many([(i, documents[i]) for i in members])
        parts = list(content_activations([places[i] for i in lacking], tokenized, batch_tokens))
        acts = torch.cat([p.acts.to("cpu", torch.bfloat16) for p in parts])
        origin = {
            "doc_no": torch.from_numpy(np.concatenate([_doc_numbers(p) for p in parts])),
            "position": torch.from_numpy(np.concatenate([p.position for p in parts])),
        }
        widths = [places[i].d_model for i in lacking]
        for i, of_place in zip(lacking, torch.split(acts, widths, dim=1)):
            _save_tensors(folders[i] / f"{name}.safetensors", {"acts": of_place.contiguous(), **origin})
            append_line(folders[i] / LISTING, {"shard": name, "n_tokens": len(acts)})
        done += len(acts)
        progress.update("capture", done, total, "content tokens")


def _finished_shards(folder: Path) -> dict[str, int]:
    listed = {entry["shard"]: entry["n_tokens"] for entry in read_lines(folder / LISTING)}
    return {name: n for name, n in listed.items() if (folder / f"{name}.safetensors").exists()}


def _doc_numbers(part: ContentActs) -> npt.NDArray[np.int32]:
    return np.array([d.doc_no for d in part.documents], np.int32)[part.doc_index]


def _save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    write_files({path: lambda temporary: safetensors.torch.save_file(tensors, temporary)})


class TrainingActivations(ABC):
    """Chunks [n, d_in] of one plan, whatever they are read from; the same rows in the same order everywhere."""

    is_kept: ClassVar[bool]
    """Whether reading a chunk again costs no forward pass."""

    def __init__(self, plan: CapturePlan) -> None:
        self._shards = dict(plan.shards)

    def train_chunks(self, rng_seed: int, first: int = 0) -> Iterator[torch.Tensor]:
        """One pass over the training shards in an order fixed by `rng_seed`, from the `first` on."""
        for name in self._train_order(rng_seed)[first:]:
            yield self._load(name)

    def heldout_chunks(self) -> Iterator[torch.Tensor]:
        """Held-out documents, in plan order."""
        for name in self._shards:
            if name.startswith("heldout-"):
                yield self._load(name)

    def epochs(self, rng_seed: int, n_epochs: int, first: int = 0) -> Iterator[torch.Tensor]:
        """Training chunks of several passes, each in its own order, from the `first` of all on."""
        n_chunks = len(self._train_order(rng_seed))
        for epoch in range(first // n_chunks, n_epochs):
            yield from self.train_chunks(rng_seed + epoch, max(0, first - epoch * n_chunks))

    def _train_order(self, rng_seed: int) -> list[str]:
        names = [n for n in self._shards if n.startswith("train-")]
        return sorted(names, key=lambda n: hashlib.sha256(f"{rng_seed}/{n}".encode()).hexdigest())

    @abstractmethod
    def _load(self, name: str) -> torch.Tensor: ...


class ActivationShards(TrainingActivations):
    """Captured activations of one dataset, read shard by shard."""

    is_kept = True

    def __init__(self, folder: Path, plan: CapturePlan) -> None:
        super().__init__(plan)
        self._folder = folder

    def _load(self, name: str) -> torch.Tensor:
        path = self._folder / f"{name}.safetensors"
        try:
            return safetensors.torch.load_file(path)["acts"]
        except (OSError, safetensors.SafetensorError, KeyError) as error:
            raise WorkspaceError(f"The shard {path} cannot be read ({error}); delete it and capture again.") from error


class PackedShards(TrainingActivations):
    """Captures of one plan at several places, their activations side by side."""

    is_kept = True

    def __init__(self, parts: Sequence[ActivationShards], plan: CapturePlan) -> None:
        super().__init__(plan)
        self._parts = parts

    def _load(self, name: str) -> torch.Tensor:
        return torch.cat([part._load(name) for part in self._parts], dim=1)


class LiveActivations(TrainingActivations):
    """The same chunks straight from the model, kept nowhere: for corpora whose activations no disk holds."""

    is_kept = False

    def __init__(
        self,
        places: Sequence[Backbone],
        renderer: Renderer,
        documents: Sequence[Document],
        plan: CapturePlan,
        *,
        batch_tokens: int,
    ) -> None:
        super().__init__(plan)
        self._places, self._renderer, self._documents = places, renderer, documents
        self._batch_tokens = batch_tokens

    def _load(self, name: str) -> torch.Tensor:
        tokenized = self._renderer.render_many([(i, self._documents[i]) for i in self._shards[name]])
        parts = content_activations(self._places, tokenized, self._batch_tokens)
        return torch.cat([part.acts.to(torch.bfloat16) for part in parts])
