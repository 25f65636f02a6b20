"""The ports: the only ways a stage reaches a model. Stages take these, so tests hand them planted ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from facviz.records import Document, Encoded, LLMReply, LLMRequest, TokenCodes


class Encoder(Protocol):
    """Documents to sparse feature activations on content tokens, of one SAE on one backbone."""

    @property
    def d_sae(self) -> int:
        """Number of features."""

    def stream(self, documents: Iterable[tuple[int, Document]]) -> Iterator[TokenCodes]:
        """Token codes of numbered documents, batched for speed and in reduced precision where that is faster."""

    def encode(self, documents: Sequence[Document]) -> Encoded:
        """Per-document maxima, batched for speed: good for ranking."""

    def encode_alone(self, document: Document) -> Encoded:
        """One document, batch of one, float32: the only measurement a verdict may rest on (design §3)."""


class Embedder(Protocol):
    """Texts to unit vectors."""

    @property
    def name(self) -> str:
        """What produced the vectors, for the record."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors, [n_texts, d]."""


class LLMClient(Protocol):
    """A language model that answers requests; failures of content are outcomes, failures of transport raise."""

    @property
    def name(self) -> str:
        """Provider and model, for the record."""

    def complete(self, requests: Sequence[LLMRequest]) -> list[list[LLMReply]]:
        """`requests[i].n` replies for each request, in order."""


class ProgressSink(Protocol):
    """Where a long stage says how far it is."""

    def update(self, stage: str, done: float, total: float | None, note: str = "") -> None:
        """`done` of `total` units; `total` None when unknown."""


class NoProgress:
    """A `ProgressSink` that says nothing."""

    def update(self, stage: str, done: float, total: float | None, note: str = "") -> None:
        """Nothing."""
