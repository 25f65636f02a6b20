"""The measurements an SAE's health is judged by: FVU at neighbouring layers, with the chat template and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facviz.activations import activations_at_layers, length_batches
from facviz.backbone import Backbone, Renderer
from facviz.errors import InputError
from facviz.fidelity.inputs import check_width, padded, reconstruct
from facviz.records import RAW_TEXT_ROLE, Document, Message, TokenizedDocument
from facviz.sae.health import ErrorSums, Health, judge_health
from facviz.sae.model import SAE

HEALTH_TOKENS = 2000
_NEIGHBOURS = 2
"""Layers on either side of the given one that are tried."""
_SHARING_DOCUMENTS = 8
"""At least so many documents share the tokens, where there are so many."""
_NO_LIMIT = 2**31
"""Tokens of a document without its template: only those that fit with it are kept anyway."""


def check_health(
    backbone: Backbone,
    sae: SAE,
    documents: Sequence[Document],
    renderer: Renderer,
    *,
    recorded_fvu: float | None = None,
    max_tokens: int = HEALTH_TOKENS,
    rng_seed: int = 0,
) -> Health:
    """Judge whether the SAE fits this backbone at its layer, as `documents` are rendered (`judge_health`)."""
    sums = health_table(backbone, sae, documents, renderer, max_tokens=max_tokens)
    template = any(s.template for s in sums)
    return judge_health(sums, layer=backbone.layer, template=template, recorded_fvu=recorded_fvu, rng_seed=rng_seed)


def health_table(
    backbone: Backbone,
    sae: SAE,
    documents: Sequence[Document],
    renderer: Renderer,
    *,
    max_tokens: int = HEALTH_TOKENS,
    batch_tokens: int = 512,
) -> list[ErrorSums]:
    """Error sums of the SAE at layers L − 2 to L + 2 with and without the template, on the same content tokens.

    The first documents count, up to `max_tokens` in all and an eighth of that each. One forward per batch and rendering
    reads all layers. Raw-text documents have no template, so of those alone only that half is measured.

    Raises:
        InputError: the SAE reads another width, or no content token is the same in both renderings.
    """
    check_width(backbone, sae)
    pairs = _paired_tokens(documents, renderer, backbone, max_tokens)
    if not pairs:
        raise InputError("These documents have no content tokens to check the SAE on; give other documents.")
    is_templated = any(not np.array_equal(pair.templated.token_ids, pair.raw.token_ids) for pair in pairs)
    sums = _measure(backbone, sae, [pair.raw for pair in pairs], False, batch_tokens)
    if is_templated:
        sums += _measure(backbone, sae, [pair.templated for pair in pairs], True, batch_tokens)
    return sums


def _measure(
    backbone: Backbone, sae: SAE, documents: Sequence[TokenizedDocument], template: bool, batch_tokens: int
) -> list[ErrorSums]:
    neighbours = _neighbours(backbone)
    found: dict[int, dict[int, _Moments]] = {b.layer: {} for b in neighbours}
    for batch in length_batches(documents, batch_tokens):
        chosen = [documents[i] for i in batch]
        counts = [d.n_content_tokens for d in chosen]
        for layer, acts in _layer_activations(neighbours, chosen).items():
            parts = zip(torch.split(acts, counts), torch.split(reconstruct(sae, acts), counts))
            found[layer] |= {i: _moments(*part) for i, part in zip(batch, parts)}
    return [_error_sums(layer, template, [of[i] for i in sorted(of)]) for layer, of in found.items()]


def _neighbours(backbone: Backbone) -> list[Backbone]:
    """The same model read at each layer from L − 2 to L + 2 that exists."""
    lowest = 0 if backbone.site == "resid" else 1  # the outputs of a layer's parts begin with the first layer
    highest = min(backbone.n_layers, backbone.layer + _NEIGHBOURS)
    return [backbone.at(layer) for layer in range(max(lowest, backbone.layer - _NEIGHBOURS), highest + 1)]


def _layer_activations(neighbours: Sequence[Backbone], documents: Sequence[TokenizedDocument]) -> dict[int, Tensor]:
    """Content activations [n, d_in], document after document, at every layer from one forward that stops early."""
    ids, content = padded(documents, neighbours[0])
    read = activations_at_layers(neighbours, ids)
    return {place.layer: acts[content] for place, acts in zip(neighbours, read)}


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """One document's tokens at one layer, in float64."""

    n: int
    mean: npt.NDArray[np.float64]  # [d_in]
    squared_deviation: float  # about its own mean
    squared_error: float


def _moments(x: Tensor, x_hat: Tensor) -> _Moments:
    exact = x.to("cpu", torch.float64)
    mean = exact.mean(0)
    squared_error = float((exact - x_hat.cpu()).square().sum())
    return _Moments(len(x), mean.numpy(), float((exact - mean).square().sum()), squared_error)


def _error_sums(layer: int, template: bool, found: Sequence[_Moments]) -> ErrorSums:
    n = np.array([m.n for m in found])
    means = np.stack([m.mean for m in found])
    offset = means - np.average(means, axis=0, weights=n)
    deviation = np.array([m.squared_deviation for m in found]) + n * (offset**2).sum(1)
    return ErrorSums(layer, template, np.array([m.squared_error for m in found]), deviation, int(n.sum()))


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """A document in both renderings, with the same tokens marked as content."""

    templated: TokenizedDocument
    raw: TokenizedDocument


def _paired_tokens(
    documents: Sequence[Document], renderer: Renderer, backbone: Backbone, max_tokens: int
) -> list[_Pair]:
    plain = Renderer(backbone.tokenizer, max_tokens=_NO_LIMIT, roles=(RAW_TEXT_ROLE,))
    most = max(1, max_tokens // _SHARING_DOCUMENTS)
    left, pairs = max_tokens, []
    for document in documents:
        if left <= 0:
            break
        raw = Document((Message(RAW_TEXT_ROLE, document.text),))
        pair = _same_content(renderer.render(document), plain.render(raw), n=min(most, left))
        if pair.raw.n_content_tokens:
            pairs.append(pair)
            left -= pair.raw.n_content_tokens
    return pairs


def _same_content(templated: TokenizedDocument, raw: TokenizedDocument, n: int) -> _Pair:
    """Both with only their first n content tokens of equal id and characters."""
    there, here = _content_positions(templated), _content_positions(raw)
    shared = [key for key in there if key in here][:n]
    return _Pair(_only(templated, [there[k] for k in shared]), _only(raw, [here[k] for k in shared]))


def _content_positions(document: TokenizedDocument) -> dict[tuple[int, int, int], int]:
    return {
        (int(document.char_start[p]), int(document.char_end[p]), int(document.token_ids[p])): int(p)
        for p in np.flatnonzero(document.is_content)
    }


def _only(document: TokenizedDocument, positions: Sequence[int]) -> TokenizedDocument:
    """Cut after the last of these positions, which alone are content."""
    end = max(positions, default=0) + 1
    is_content = np.zeros(end, bool)
    is_content[list(positions)] = True
    return TokenizedDocument(
        document.doc_no, document.token_ids[:end], is_content, document.char_start[:end], document.char_end[:end]
    )
