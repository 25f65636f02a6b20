"""Model activations of one layer: hook it, stop the forward there, batch by length, stream or write shards.

`SaeEncoder` joins a backbone and an SAE into the `Encoder` port. Batched passes may run in reduced precision and only
rank; `encode_alone` is the measurement a verdict rests on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from scipy import sparse
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from facviz.backbone import Backbone, Renderer
from facviz.config import BackboneConfig, CaptureConfig
from facviz.errors import BackboneError, InputError, WorkspaceError
from facviz.files import append_line, read_lines, write_files
from facviz.protocols import ProgressSink
from facviz.records import Document, Encoded, TokenCodes, TokenizedDocument
from facviz.sae.model import SAE
from facviz.spans import DocMaxima, pool_maxima

ALL_ROLES = ("user", "assistant", "text")
RENDER_CHUNK = 512
# A batch this large gains nothing from growing, so it then takes only documents that add little padding.
_SMALL_BATCH_TOKENS = 2048
_MAX_STRETCH = 1.125
_SMALLEST_START = 8
"""Shared template tokens below which a cache costs more than it saves."""


class _LayerReached(Exception):  # noqa: N818
    """Private early stop that carries the activations, so nothing stale can ever be read (known defect 8)."""

    def __init__(self, acts: torch.Tensor) -> None:
        self.acts = acts


def activations_at_layer(
    backbone: Backbone, token_ids: torch.Tensor, *, start: DynamicCache | None = None
) -> torch.Tensor:
    """`hidden_states[layer]` of right-padded ids, [batch, length] to [batch, length, d_in]; later layers never run.

    Needs no attention mask: under causal attention no content token can see the padding to its right. `start` holds
    the keys and values of tokens that come before these ids, and takes theirs in.
    """
    handle = backbone.on_model_acts(_stop)
    try:
        with torch.inference_mode():
            backbone.model(input_ids=token_ids, past_key_values=start, use_cache=start is not None)
    except _LayerReached as reached:
        return reached.acts
    finally:
        handle.remove()
    raise BackboneError(
        f"The forward pass of {backbone.name} never reached layer {backbone.layer}; choose another layer."
    )


def _stop(acts: torch.Tensor) -> None:
    raise _LayerReached(acts)


def length_batches(documents: Sequence[TokenizedDocument], batch_tokens: int) -> list[list[int]]:
    """Document indices in batches of similar length, at most `batch_tokens` each with padding (or one document)."""
    batches: list[list[int]] = []
    shortest = 0
    for i in sorted(range(len(documents)), key=lambda i: (len(documents[i].token_ids), i)):
        length = len(documents[i].token_ids)
        padded = (len(batches[-1]) + 1) * length if batches else 0
        is_alike = padded <= _SMALL_BATCH_TOKENS or length <= _MAX_STRETCH * shortest
        if batches and padded <= batch_tokens and is_alike:
            batches[-1].append(i)
        else:
            batches.append([i])
            shortest = length
    return batches


class _SharedStart:
    """The template tokens that every document of a batch begins with, run once instead of once a document."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        layers = DynamicCache(config=backbone.model.config).layers
        self._is_plain = backbone.layer > 0 and all(type(layer) is DynamicLayer for layer in layers)
        self._ids: list[int] = []
        self._cache = DynamicCache()

    def length(self, documents: Sequence[TokenizedDocument]) -> int:
        """Leading tokens that are equal and no content in all documents; 0 where sharing them would not pay."""
        if not self._is_plain or len(documents) < 2:
            return 0
        before = min(int(d.is_content.argmax()) if d.is_content.any() else len(d.token_ids) for d in documents)
        starts = np.stack([d.token_ids[:before] for d in documents])
        is_equal = (starts == starts[0]).all(axis=0)
        n = before if is_equal.all() else int(is_equal.argmin())
        return n if n >= _SMALLEST_START else 0

    def repeat(self, token_ids: Sequence[int], n_documents: int) -> DynamicCache:
        """Keys and values of these tokens up to the layer read, for a batch of `n_documents`."""
        if token_ids != self._ids:
            self._ids, self._cache = list(token_ids), DynamicCache()
            activations_at_layer(self._backbone, self._to_device(np.array([token_ids])), start=self._cache)
        filled = (layer for layer in self._cache.layers if isinstance(layer, DynamicLayer))
        pairs = [(layer.keys, layer.values) for layer in filled if layer.is_initialized]
        return DynamicCache(
            [tuple(state.expand(n_documents, -1, -1, -1) for state in pair if state is not None) for pair in pairs]
        )

    def _to_device(self, ids: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(ids).to(self._backbone.model.device)


@dataclass(frozen=True, slots=True)
class ContentActs:
    """Activations of the content tokens of a batch, document after document."""

    documents: tuple[TokenizedDocument, ...]
    doc_index: npt.NDArray[np.int64]
    position: npt.NDArray[np.int32]
    acts: torch.Tensor  # [n_tokens, d_in]


def content_activations(
    backbone: Backbone, documents: Sequence[TokenizedDocument], batch_tokens: int
) -> Iterator[ContentActs]:
    """Batches by length; documents without content tokens still appear, with none."""
    shared = _SharedStart(backbone)
    for batch in length_batches(documents, batch_tokens):
        chosen = tuple(documents[i] for i in batch)
        n_shared = shared.length(chosen)
        ids = np.zeros((len(chosen), max(len(d.token_ids) for d in chosen) - n_shared), np.int64)
        content = np.zeros(ids.shape, bool)
        for row, document in enumerate(chosen):
            n_tokens = len(document.token_ids) - n_shared
            ids[row, :n_tokens] = document.token_ids[n_shared:]
            content[row, :n_tokens] = document.is_content[n_shared:]
        doc_index, position = np.nonzero(content)
        if not len(doc_index):
            acts = torch.empty(0, backbone.d_model)
        else:
            ids = ids[:, : position.max() + 1]  # no content token sees the template tokens that follow it
            start = shared.repeat(chosen[0].token_ids[:n_shared].tolist(), len(chosen)) if n_shared else None
            acts = activations_at_layer(backbone, torch.from_numpy(ids).to(backbone.model.device), start=start)
            acts = acts[torch.from_numpy(doc_index), torch.from_numpy(position)]
        yield ContentActs(chosen, doc_index, (position + n_shared).astype(np.int32), acts)


class SaeEncoder:
    """One SAE on one backbone: documents to feature activations.

    `fast` is the same backbone in the dtype that is fastest here; it serves everything but `encode_alone`.
    """

    def __init__(
        self,
        backbone: Backbone,
        sae: SAE,
        *,
        roles: Sequence[str] = ALL_ROLES,
        config: BackboneConfig | None = None,
        fast: Backbone | None = None,
        dense: bool = False,
    ) -> None:
        if sae.d_in != backbone.d_model:
            raise InputError(
                f"The SAE reads {sae.d_in} dimensions but {backbone.name} has {backbone.d_model}; choose a pair."
            )
        config = config or BackboneConfig()
        self.backbone, self.sae, self.fast, self.dense = backbone, sae, fast or backbone, dense
        self.renderer = Renderer(
            backbone.tokenizer, max_tokens=config.max_tokens, system_prompt=config.system_prompt, roles=roles
        )
        self._batch_tokens = config.batch_tokens

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.sae.d_sae

    def stream(self, documents: Iterable[tuple[int, Document]]) -> Iterator[TokenCodes]:
        """Token codes batch by batch, sorted by length inside chunks; memory does not grow with the corpus."""
        numbered = iter(documents)
        while chunk := list(islice(numbered, RENDER_CHUNK)):
            tokenized = self.renderer.render_many(chunk)
            for batch in content_activations(self.fast, tokenized, self._batch_tokens):
                yield self._codes(batch)

    def encode(self, documents: Sequence[Document | str]) -> Encoded:
        """`g_i(x)` of texts or documents, batched; rows keep the order given."""
        parts = self.stream(enumerate(_as_documents(documents)))
        return _collect(parts, len(documents), self.d_sae)

    def encode_alone(self, document: Document | str) -> Encoded:
        """`g_i(x)` of one document by itself in float32 (design §3, verified sample)."""
        tokenized = self.renderer.render_many([(0, _as_documents([document])[0])])
        batches = content_activations(self.backbone, tokenized, self._batch_tokens)
        return _collect((self._codes(b) for b in batches), 1, self.d_sae)

    def _codes(self, batch: ContentActs) -> TokenCodes:
        codes = self.sae.encode(batch.acts, dense=self.dense)
        return TokenCodes(
            documents=batch.documents,
            doc_index=batch.doc_index,
            position=batch.position,
            offsets=codes.offsets.numpy(),
            feature_id=codes.indices.numpy(),
            act=codes.values.numpy(),
        )


def _as_documents(documents: Sequence[Document | str]) -> list[Document]:
    return [Document.from_text(d) if isinstance(d, str) else d for d in documents]


def _collect(parts: Iterable[TokenCodes], n_docs: int, d_sae: int) -> Encoded:
    maxima_of: list[DocMaxima] = []
    rows: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    n_tokens = np.zeros(n_docs, np.int64)
    for codes in parts:
        numbers = np.array([d.doc_no for d in codes.documents], np.int64)
        n_tokens[numbers] = [d.n_content_tokens for d in codes.documents]
        maxima = pool_maxima(codes)
        rows.append(numbers[maxima.doc_index])
        maxima_of.append(maxima)
    row = np.concatenate(rows)
    column = np.concatenate([np.empty(0, np.int32), *(m.feature_id for m in maxima_of)])
    act = np.concatenate([np.empty(0, np.float32), *(m.max_act for m in maxima_of)])
    peak = np.concatenate([np.empty(0, np.int32), *(m.peak_token + 1 for m in maxima_of)])
    shape = (n_docs, d_sae)
    max_acts = sparse.csr_matrix((act, (row, column)), shape=shape, dtype=np.float32)
    return Encoded(max_acts, sparse.csr_matrix((peak, (row, column)), shape=shape, dtype=np.int32), n_tokens)


def faster_dtype(slow: Backbone, fast: Backbone) -> tuple[torch.dtype, float]:
    """Which of two copies of a backbone runs faster to its layer, by measurement, and by how much."""
    ids = torch.arange(4 * 256).reshape(4, 256) % slow.unembedding.shape[0]
    seconds = []
    for backbone in (slow, fast):
        activations_at_layer(backbone, ids.to(backbone.model.device))
        started = time.perf_counter()
        activations_at_layer(backbone, ids.to(backbone.model.device))
        seconds.append(time.perf_counter() - started)
    ratio = seconds[0] / seconds[1]
    # A copy that is not clearly faster is not worth its rounding.
    chosen = fast if ratio > 1.2 else slow
    return next(chosen.model.parameters()).dtype, ratio


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
    backbone: Backbone,
    renderer: Renderer,
    documents: Sequence[Document],
    plan: CapturePlan,
    folder: Path,
    *,
    batch_tokens: int,
    progress: ProgressSink,
) -> None:
    """Write every shard of the plan that is not there yet: bf16 activations of content tokens with their origin."""
    listing = folder / "shards.jsonl"
    listed = {entry["shard"]: entry["n_tokens"] for entry in read_lines(listing)}
    finished = {name: n for name, n in listed.items() if (folder / f"{name}.safetensors").exists()}
    done = sum(finished.get(name, 0) for name, _ in plan.shards)
    total = plan.n_tokens + plan.n_heldout_tokens
    for name, members in plan.shards:
        if name in finished:
            continue
        tokenized = renderer.render_many([(i, documents[i]) for i in members])
        parts = list(content_activations(backbone, tokenized, batch_tokens))
        tensors = {
            "acts": torch.cat([p.acts.to(torch.bfloat16) for p in parts]),
            "doc_no": torch.from_numpy(np.concatenate([_doc_numbers(p) for p in parts])),
            "position": torch.from_numpy(np.concatenate([p.position for p in parts])),
        }
        _save_tensors(folder / f"{name}.safetensors", tensors)
        append_line(listing, {"shard": name, "n_tokens": len(tensors["acts"])})
        done += len(tensors["acts"])
        progress.update("capture", done, total, "content tokens")


def _doc_numbers(part: ContentActs) -> npt.NDArray[np.int32]:
    return np.array([d.doc_no for d in part.documents], np.int32)[part.doc_index]


def _save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    write_files({path: lambda temporary: safetensors.torch.save_file(tensors, temporary)})


class ActivationShards:
    """Captured activations of one dataset, read shard by shard."""

    def __init__(self, folder: Path, plan: CapturePlan) -> None:
        self._folder = folder
        self._names = [name for name, _ in plan.shards]

    def train_chunks(self, rng_seed: int) -> Iterator[torch.Tensor]:
        """One pass over the training shards in an order fixed by `rng_seed`."""
        names = [n for n in self._names if n.startswith("train-")]
        names.sort(key=lambda n: hashlib.sha256(f"{rng_seed}/{n}".encode()).hexdigest())
        for name in names:
            yield self._load(name)

    def heldout_chunks(self) -> Iterator[torch.Tensor]:
        """Held-out documents, in plan order."""
        for name in self._names:
            if name.startswith("heldout-"):
                yield self._load(name)

    def _load(self, name: str) -> torch.Tensor:
        path = self._folder / f"{name}.safetensors"
        try:
            return safetensors.torch.load_file(path)["acts"]
        except (OSError, safetensors.SafetensorError, KeyError) as error:
            raise WorkspaceError(f"The shard {path} cannot be read ({error}); delete it and capture again.") from error
