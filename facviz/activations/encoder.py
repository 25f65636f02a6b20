"""A backbone and an SAE joined into the `Encoder` port: documents to feature activations.

Batched passes may run in reduced precision and only rank; `encode_alone` is the measurement a verdict rests on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from facviz.activations.forward import ContentActs, content_activations
from facviz.backbone import Backbone, Renderer
from facviz.config import BackboneConfig
from facviz.errors import InputError
from facviz.records import Document, Encoded, TokenCodes
from facviz.sae.model import SAE
from facviz.spans import DocMaxima, pool_maxima

ALL_ROLES = ("user", "assistant", "text")
RENDER_CHUNK = 512


@dataclass(frozen=True, slots=True, eq=False)
class PooledStates:
    """Model activations of documents over their content tokens: the mean and the last; zeros where there are none."""

    mean: npt.NDArray[np.float32]  # [n_docs, d_in]
    last: npt.NDArray[np.float32]  # [n_docs, d_in]


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
        self.backbone, self.fast, self.dense = backbone, fast or backbone, dense
        self.sae = sae.to(backbone.model.device)
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

    def pool(self, documents: Sequence[Document]) -> tuple[PooledStates, Encoded]:
        """What `encode` returns, and the model activations it was encoded from, in one pass."""
        mean = np.zeros((len(documents), self.backbone.d_model), np.float32)
        last = mean.copy()
        tokenized = self.renderer.render_many(list(enumerate(documents)))
        codes = []
        for batch in content_activations(self.fast, tokenized, self._batch_tokens):
            codes.append(self._codes(batch))
            if not len(batch.doc_index):
                continue
            acts = batch.acts.float()
            present, starts, sizes = np.unique(batch.doc_index, return_index=True, return_counts=True)
            numbers = np.array([batch.documents[i].doc_no for i in present], np.int64)
            sums = torch.zeros(len(batch.documents), acts.shape[1], device=acts.device)
            sums.index_add_(0, torch.from_numpy(batch.doc_index).to(acts.device), acts)
            mean[numbers] = sums[present].cpu().numpy() / sizes[:, None]
            last[numbers] = acts[starts + sizes - 1].cpu().numpy()
        return PooledStates(mean, last), _collect(codes, len(documents), self.d_sae)

    def _codes(self, batch: ContentActs) -> TokenCodes:
        codes = self.sae.encode(batch.acts, dense=self.dense)
        return TokenCodes(
            documents=batch.documents,
            doc_index=batch.doc_index,
            position=batch.position,
            offsets=codes.offsets.cpu().numpy(),
            feature_id=codes.indices.cpu().numpy(),
            act=codes.values.cpu().numpy(),
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
