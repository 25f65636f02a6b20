"""One forward pass as far as the activations wanted: hook them, stop there, batch by length, share common starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from facviz.backbone import Backbone
from facviz.errors import BackboneError
from facviz.records import TokenizedDocument

# A batch this large gains nothing from growing, so it then takes only documents that add little padding.
_SMALL_BATCH_TOKENS = 2048
_MAX_STRETCH = 1.125
_SMALLEST_START = 8
"""Shared template tokens below which a cache costs more than it saves."""


class _AllRead(Exception):  # noqa: N818
    """Private early stop that carries the activations, so nothing stale can ever be read (known defect 8)."""

    def __init__(self, acts: list[torch.Tensor]) -> None:
        self.acts = acts


def activations_at_layer(
    backbone: Backbone, token_ids: torch.Tensor, *, start: DynamicCache | None = None
) -> torch.Tensor:
    """Model activations of right-padded ids, [batch, length] to [batch, length, d_in]; later layers never run.

    Needs no attention mask: under causal attention no content token can see the padding to its right. `start` holds
    the keys and values of tokens that come before these ids, and takes theirs in.
    """
    return activations_at_layers([backbone], token_ids, start=start)[0]


def activations_at_layers(
    places: Sequence[Backbone], token_ids: torch.Tensor, *, start: DynamicCache | None = None
) -> list[torch.Tensor]:
    """The same for several places of one model in one pass, which ends when the last of them is read."""
    read: list[torch.Tensor | None] = [None] * len(places)

    def reader(number: int) -> Callable[[torch.Tensor], None]:
        def take(acts: torch.Tensor) -> None:
            read[number] = acts
            found = [acts for acts in read if acts is not None]
            if len(found) == len(read):
                raise _AllRead(found)

        return take

    handles = [place.on_model_acts(reader(number)) for number, place in enumerate(places)]
    try:
        with torch.inference_mode():
            places[0].model(input_ids=token_ids, **places[0].keeping(start))
    except _AllRead as reached:
        return reached.acts
    finally:
        for handle in handles:
            handle.remove()
    unread = next(place.layer for place, acts in zip(places, read) if acts is None)
    raise BackboneError(f"The forward pass of {places[0].name} never reached layer {unread}; choose another layer.")


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

    def __init__(self, places: Sequence[Backbone]) -> None:
        self._places = places
        layers = DynamicCache(config=places[0].model.config).layers
        is_inside = all(place.layer > 0 for place in places)
        self._is_plain = is_inside and all(type(layer) is DynamicLayer for layer in layers)
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
            activations_at_layers(self._places, self._to_device(np.array([token_ids])), start=self._cache)
        filled = (layer for layer in self._cache.layers if isinstance(layer, DynamicLayer))
        pairs = [(layer.keys, layer.values) for layer in filled if layer.is_initialized]
        return DynamicCache(
            [tuple(state.expand(n_documents, -1, -1, -1) for state in pair if state is not None) for pair in pairs]
        )

    def _to_device(self, ids: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(ids).to(self._places[0].model.device)


@dataclass(frozen=True, slots=True)
class ContentActs:
    """Activations of the content tokens of a batch, document after document."""

    documents: tuple[TokenizedDocument, ...]
    doc_index: npt.NDArray[np.int64]
    position: npt.NDArray[np.int32]
    acts: torch.Tensor  # [n_tokens, d_in]; of several places side by side


def content_activations(
    backbone: Backbone | Sequence[Backbone], documents: Sequence[TokenizedDocument], batch_tokens: int
) -> Iterator[ContentActs]:
    """Batches by length; documents without content tokens still appear, with none.

    Several backbones are one model read at several places; their activations lie side by side.
    """
    places = [backbone] if isinstance(backbone, Backbone) else list(backbone)
    shared = _SharedStart(places)
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
            acts = torch.empty(0, sum(place.d_model for place in places))
        else:
            ids = ids[:, : position.max() + 1]  # no content token sees the template tokens that follow it
            start = shared.repeat(chosen[0].token_ids[:n_shared].tolist(), len(chosen)) if n_shared else None
            read = activations_at_layers(places, torch.from_numpy(ids).to(places[0].model.device), start=start)
            chosen_tokens = torch.from_numpy(doc_index), torch.from_numpy(position)
            acts = torch.cat([part[chosen_tokens] for part in read], dim=1) if len(read) > 1 else read[0][chosen_tokens]
        yield ContentActs(chosen, doc_index, (position + n_shared).astype(np.int32), acts)


def faster_dtype(slow: Backbone, fast: Backbone) -> tuple[torch.dtype, float]:
    """Which of two copies of a backbone runs faster to its layer, by measurement, and by how much."""
    ids = torch.arange(4 * 256).reshape(4, 256) % slow.unembedding.shape[0]
    seconds = []
    for backbone in (slow, fast):
        device = backbone.model.device
        activations_at_layer(backbone, ids.to(device)).sum().item()  # a GPU has finished once a number is read
        started = time.perf_counter()
        activations_at_layer(backbone, ids.to(device)).sum().item()
        seconds.append(time.perf_counter() - started)
    ratio = seconds[0] / seconds[1]
    # A copy that is not clearly faster is not worth its rounding.
    chosen = fast if ratio > 1.2 else slow
    return next(chosen.model.parameters()).dtype, ratio
