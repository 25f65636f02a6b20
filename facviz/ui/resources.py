"""What sessions share: open databases, and models that load in the background, never at page load."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from facviz.store.database import Database
from facviz.store.workspace import open_workspace

if TYPE_CHECKING:
    from facviz.activations import SaeEncoder
    from facviz.embeddings import SentenceTransformerEmbedder


def open_database(root: Path) -> Database:
    """The workspace's database, with everything that was written until now."""
    database = _database(str(root))
    database.sync()
    return database


def _is_current(database: Database) -> bool:
    """Whether its file is still there; one that was deleted or replaced is let go of, to be opened anew."""
    if database.is_current():
        return True
    database.close()
    return False


@st.cache_resource(
    show_spinner=False,
    max_entries=4,
    validate=lambda database: _is_current(database),
    on_release=lambda database: database.close(),
)
def _database(root: str) -> Database:
    return Database(open_workspace(root))


@st.cache_resource(show_spinner=False)
def background() -> ThreadPoolExecutor:
    """One thread loads and runs models, so that two sessions never run one model at the same time."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="facviz-models")


@st.cache_resource(show_spinner=False)
def embedder() -> Future[SentenceTransformerEmbedder]:
    """The sentence embedder, loading since the first call."""
    return background().submit(_load_embedder)


def _load_embedder() -> SentenceTransformerEmbedder:
    from facviz.embeddings import SentenceTransformerEmbedder

    loaded = SentenceTransformerEmbedder()
    loaded.embed(["warm up"])
    return loaded


@st.cache_resource(show_spinner=False, max_entries=2)
def encoder(root: str, sae_id: str) -> Future[SaeEncoder]:
    """The encoder of an SAE of a workspace on its own backbone, loading since the first call."""
    return background().submit(_load_encoder, Path(root), sae_id)


def _load_encoder(root: Path, sae_id: str) -> SaeEncoder:
    from facviz.pipeline.sae import open_encoder

    return open_encoder(open_workspace(root), sae_id)


@st.cache_resource(show_spinner=False, max_entries=16)
def encoded_text(root: str, sae_id: str, text: str) -> Future[Any]:
    """Feature activations of one text alone, as `views.text` shows them; computed in the background."""
    from facviz.views.text import encode_text

    loaded = encoder(root, sae_id)  # queued before what waits for it: there is one thread
    return background().submit(lambda: encode_text(loaded.result(), text))


def explanation_vectors(database: Database, sae_id: str) -> Future[Any]:
    """Feature ids and unit vectors [n, d] of all explanations of an SAE, embedded in the background."""
    return _explanation_vectors(str(database.workspace.root), database.epoch, sae_id, _database=database)


@st.cache_resource(show_spinner=False, max_entries=4)
def _explanation_vectors(root: str, epoch: int, sae_id: str, *, _database: Database) -> Future[Any]:
    del root, epoch  # part of the key only
    found = _database.named("explanation_texts", sae_id=sae_id)
    ids, texts = found["feature_id"].to_numpy(), found["text"].to_pylist()
    return background().submit(_embed_once, ids, texts, embedder(), _known_vectors())


def text_vectors(feature_ids: Any, texts: list[str]) -> Future[Any]:
    """The same of some explanations only, for pictures that need no others."""
    return background().submit(_embed_once, feature_ids, texts, embedder(), _known_vectors())


@st.cache_resource(show_spinner=False)
def _known_vectors() -> dict[str, Any]:
    """Vectors by text: after an edit only the new words are embedded. Only the background thread touches it."""
    return {}


def _embed_once(
    feature_ids: Any, texts: list[str], loaded: Future[SentenceTransformerEmbedder], known: dict[str, Any]
) -> tuple[Any, Any]:
    new = [text for text in dict.fromkeys(texts) if text not in known]
    known.update(zip(new, loaded.result().embed(new)))
    return feature_ids, np.stack([known[text] for text in texts]) if texts else np.empty((0, 1), np.float32)


@st.cache_resource(show_spinner=False, max_entries=64)
def embedded_query(text: str) -> Future[Any]:
    """Unit vector of a search text, [1, d]."""
    loaded = embedder()  # queued before what waits for it: there is one thread
    return background().submit(lambda: loaded.result().embed([text]))


def text_key(*parts: object) -> str:
    """A short widget key for arbitrary values."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:12]
