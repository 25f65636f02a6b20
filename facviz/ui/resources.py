"""What sessions share: open databases, and models that load in the background, never at page load."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from facviz.prompts import use_tasks
from facviz.store.database import Database
from facviz.store.events import candidate_of
from facviz.store.feature_table import TableScope
from facviz.store.related import active_together
from facviz.store.review_queue import Parts, read_parts
from facviz.store.schema import MODE
from facviz.store.workspace import TASKS_FOLDER, open_workspace
from facviz.views.comparison import Compared, compare_datasets
from facviz.views.feature_map import Area, FeatureMap, read_map
from facviz.views.feature_map import map_figure as feature_map_figure
from facviz.views.palette import Mode
from facviz.views.samples import Edit
from facviz.views.scope import DatasetChoice, Looked

if TYPE_CHECKING:
    from facviz.activations import SaeEncoder
    from facviz.embeddings import SentenceTransformerEmbedder
    from facviz.pipeline.session import Session


def open_database(root: Path) -> Database:
    """The workspace's database, with everything that was written until now."""
    database = _database(str(root))
    use_tasks(database.workspace.root / TASKS_FOLDER)  # sessions of one server may look at several workspaces
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


def review_parts(database: Database, scope: TableScope) -> Parts:
    """The machine's half of the review queue, read once per state of the shards: decisions leave it as it is."""
    return _review_parts(str(database.workspace.root), database.shard_epoch, scope, _database=database)


@st.cache_resource(show_spinner=False, max_entries=6)
def _review_parts(root: str, epoch: int, scope: TableScope, *, _database: Database) -> Parts:
    del root, epoch  # part of the key only
    return read_parts(_database, scope)


N_TOGETHER = 8


def together(database: Database, scope: TableScope, feature_id: int) -> list[dict[str, Any]]:
    """Features active on the same texts, counted once for each state of the dataset's spans, whatever people decide."""
    name = f"spans/{scope.sae_id}/{scope.dataset_id}/{MODE}"
    state = database.workspace.manifest.latest_fingerprint(name)
    return _together(str(database.workspace.root), state, scope, feature_id, _database=database)


@st.cache_resource(show_spinner=False, max_entries=256)
def _together(
    root: str, state: str | None, scope: TableScope, feature_id: int, *, _database: Database
) -> list[dict[str, Any]]:
    del root, state  # part of the key only
    return active_together(_database, scope.sae_id, scope.dataset_id, feature_id, n=N_TOGETHER)


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
def session(root: str, sae_id: str) -> Session:
    """A session on the backbone of an SAE, shared by what reads single texts; it loads its model on first use."""
    from facviz.pipeline.sae import open_session

    return open_session(open_workspace(Path(root)), sae_id)


@st.cache_resource(show_spinner=False, max_entries=2)
def encoder(root: str, sae_id: str) -> Future[SaeEncoder]:
    """The encoder of an SAE of a workspace on its own backbone, loading since the first call."""
    return background().submit(_load_encoder, Path(root), sae_id, session(root, sae_id))


def _load_encoder(root: Path, sae_id: str, opened: Session) -> SaeEncoder:
    from facviz.pipeline.sae import open_encoder

    return open_encoder(open_workspace(root), sae_id, opened)


@st.cache_resource(show_spinner=False, max_entries=32)
def encoded_text(root: str, sae_id: str, text: str, role: str = "user") -> Future[Any]:
    """Feature activations of one text alone, as `views.text` shows them; computed in the background."""
    from facviz.views.text import encode_text

    loaded = encoder(root, sae_id)  # queued before what waits for it: there is one thread
    return background().submit(lambda: encode_text(loaded.result(), text, role))


def verified_edit(database: Database, actor: str, edit: Edit) -> Future[dict[str, Any]]:
    """An edited sample verified anew and then recorded, in the background; the event.

    It is recorded there, so that nothing is lost when the browser is closed meanwhile.
    """
    opened = session(str(database.workspace.root), edit.sae_id)
    return background().submit(_verify_and_record, database, actor, edit, opened)


def _verify_and_record(database: Database, actor: str, edit: Edit, opened: Session) -> dict[str, Any]:
    from facviz.pipeline.verifying import verify_edit

    measured = verify_edit(opened, edit.candidate_id, edit.text)
    payload = {"text": edit.text, "was": edit.was, "measured": measured}
    return database.record(actor, candidate_of(edit.candidate_id), "edit", payload, seen=edit.seen)


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


def feature_map(database: Database, looked: Looked) -> FeatureMap | None:
    """Places of all features with what they can be coloured by, read again only after something changed."""
    return _feature_map(str(database.workspace.root), database.epoch, looked.table, _database=database)


@st.cache_resource(show_spinner=False, max_entries=4)
def _feature_map(root: str, epoch: int, scope: TableScope, *, _database: Database) -> FeatureMap | None:
    del root, epoch  # part of the key only
    return read_map(_database, scope)


def map_figure(database: Database, looked: Looked, colour: str, mode: Mode, area: Area) -> Any:
    """The picture of the map; turning back to a colour costs nothing."""
    found = feature_map(database, looked)
    root, table = str(database.workspace.root), looked.table
    return _map_figure(root, database.epoch, table, colour, mode, tuple(area), _found=found)


@st.cache_resource(show_spinner=False, max_entries=16)
def _map_figure(root: str, epoch: int, scope: TableScope, colour: str, mode: Mode, area: Area, *, _found: Any) -> Any:
    del root, epoch, scope  # part of the key only
    return feature_map_figure(_found, colour, mode, area)


@st.cache_resource(show_spinner=False)
def _statistics() -> ThreadPoolExecutor:
    """One thread for what is counted rather than run through a model, so that neither waits for the other."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="facviz-statistics")


def comparison(database: Database, sae_id: str, first: DatasetChoice, second: DatasetChoice) -> Future[Compared]:
    """What tells two data sets apart, computed in the background; it does not depend on what people decide."""
    manifest = database.workspace.manifest
    read = [manifest.latest_fingerprint(f"spans/{sae_id}/{d.dataset_id}/{MODE}") for d in (first, second)]
    return _comparison(str(database.workspace.root), sae_id, first, second, tuple(read), _database=database)


@st.cache_resource(show_spinner=False, max_entries=8)
def _comparison(
    root: str,
    sae_id: str,
    first: DatasetChoice,
    second: DatasetChoice,
    read: tuple[str | None, ...],
    *,
    _database: Database,
) -> Future[Compared]:
    del root, read  # part of the key only
    return _statistics().submit(compare_datasets, _database, sae_id, first, second)


@st.cache_resource(show_spinner=False, max_entries=64)
def embedded_query(text: str) -> Future[Any]:
    """Unit vector of a search text, [1, d]."""
    loaded = embedder()  # queued before what waits for it: there is one thread
    return background().submit(lambda: loaded.result().embed([text]))


def text_key(*parts: object) -> str:
    """A short widget key for arbitrary values."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:12]
