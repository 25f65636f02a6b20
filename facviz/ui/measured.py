"""What sessions share of coverage: sorted activations, answers at each δ, and what is measured in the background."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from facviz.coverage import ActivityIndex, Kind, join_indices
from facviz.diversity import find_tagger
from facviz.errors import FacvizError
from facviz.store.database import Database
from facviz.store.gap import TaskFeatures, read_activity, read_task_features
from facviz.store.schema import MODE
from facviz.ui.resources import background, embedder, text_vectors
from facviz.views.coverage import Question
from facviz.views.live import Lens, Live, Sure, make_lens, measure_live, measure_sure
from facviz.views.sets import SetRow, compare_sets
from facviz.views.themes import Layout, lay_out
from facviz.views.wording import Wording, draw_sets, measure_wording, set_texts


def lens(database: Database, question: Question) -> tuple[TaskFeatures, Lens]:
    """A coverage question's features, and what of it does not depend on δ."""
    anchor, seed = (activity(database, question.sae_id, names) for names in (question.anchors, question.seeds))
    asked = (question.sae_id, question.task, question.source, question.anchors)
    key = (str(database.workspace.root), database.epoch, *asked, question.seeds)
    return _lens(*key, _database=database, _sets=(anchor, seed))


@st.cache_resource(show_spinner=False, max_entries=6)
def _lens(
    root: str,
    epoch: int,
    sae_id: str,
    task: str,
    source: str,
    anchors: tuple[str, ...],
    seeds: tuple[str, ...],
    *,
    _database: Database,
    _sets: tuple[ActivityIndex, ActivityIndex],
) -> tuple[TaskFeatures, Lens]:
    del root, epoch, seeds  # part of the key only
    anchor, seed = _sets
    found = read_task_features(_database, sae_id, task, source, anchors)
    if len(anchors) > 1:
        found = replace(found, p95=anchor.p95()[found.features])
    return found, make_lens(found, anchor, seed)


def activity(database: Database, sae_id: str, names: tuple[str, ...]) -> ActivityIndex:
    """All activations of these data sets as one, sorted; kept until one of them is encoded anew."""
    root = str(database.workspace.root)
    encoded = _encodings(root, database.epoch, sae_id, names, _database=database)
    return _activity(root, sae_id, names, encoded, _database=database)


@st.cache_resource(show_spinner=False, max_entries=64)
def _encodings(
    root: str, epoch: int, sae_id: str, names: tuple[str, ...], *, _database: Database
) -> tuple[str | None, ...]:
    """Fingerprints of these sets' encodings: a decision somewhere changes the epoch, but none of them."""
    del root, epoch  # part of the key only
    manifest = _database.workspace.manifest
    ids = [_database.dataset(name)["dataset_id"] for name in names]
    return tuple(manifest.latest_fingerprint(f"spans/{sae_id}/{dataset_id}/{MODE}") for dataset_id in ids)


@st.cache_resource(show_spinner=False, max_entries=8)
def _activity(
    root: str, sae_id: str, names: tuple[str, ...], encoded: tuple[str | None, ...], *, _database: Database
) -> ActivityIndex:
    del root, encoded  # part of the key only
    return join_indices([read_activity(_database, sae_id, name) for name in names])


def live_coverage(database: Database, question: Question, kind: Kind, threshold: float) -> Live:
    """Coverage at one δ; turning back to a δ costs nothing."""
    _, prepared = lens(database, question)
    return _live(str(database.workspace.root), database.epoch, question, kind, threshold, _lens=prepared)


@st.cache_resource(show_spinner=False, max_entries=64)
def _live(root: str, epoch: int, question: Question, kind: Kind, threshold: float, *, _lens: Lens) -> Live:
    del root, epoch  # part of the key only
    return measure_live(_lens, question.level, kind, threshold)


def sure_coverage(database: Database, question: Question, live: Live) -> Future[Sure]:
    """Intervals at the δ of `live`: at once for small sets, else from the background."""
    _, prepared = lens(database, question)
    asked = (question, live.kind, live.threshold)
    return _sure(str(database.workspace.root), database.epoch, *asked, _lens=prepared, _live=live)


@st.cache_resource(show_spinner=False, max_entries=64)
def _sure(
    root: str, epoch: int, question: Question, kind: Kind, threshold: float, *, _lens: Lens, _live: Live
) -> Future[Sure]:
    del root, epoch, question, kind, threshold  # part of the key only
    return _soon(_lens.seed.n_docs * len(_lens.features), lambda: measure_sure(_lens, _live))


def compared_sets(
    database: Database, question: Question, live: Live, names: tuple[str, ...]
) -> Future[tuple[int, list[SetRow]]]:
    """The question put to other data sets as well, the seed and the anchor set first."""
    asked = (question, live.kind, live.threshold, names)
    sets = _named(database, question, names)
    return _compared(str(database.workspace.root), database.epoch, *asked, _live=live, _sets=sets)


@st.cache_resource(show_spinner=False, max_entries=16)
def _compared(
    root: str,
    epoch: int,
    question: Question,
    kind: Kind,
    threshold: float,
    names: tuple[str, ...],
    *,
    _live: Live,
    _sets: Mapping[str, ActivityIndex],
) -> Future[tuple[int, list[SetRow]]]:
    del root, epoch, question, kind, threshold, names  # part of the key only
    n_docs = sum(index.n_docs for index in _sets.values())
    return _soon(n_docs * len(_live.target), lambda: compare_sets(_live, _sets))


def wording(
    database: Database, question: Question, live: Live, names: tuple[str, ...]
) -> Future[tuple[int, list[Wording]]]:
    """Text diversity of the seed and the anchor set and others beside FAC; in the background, for it embeds texts."""
    asked = (question, live.kind, live.threshold, names)
    sets = _named(database, question, names)
    return _wording(str(database.workspace.root), database.epoch, *asked, _database=database, _live=live, _sets=sets)


@st.cache_resource(show_spinner=False, max_entries=16)
def _wording(
    root: str,
    epoch: int,
    question: Question,
    kind: Kind,
    threshold: float,
    names: tuple[str, ...],
    *,
    _database: Database,
    _live: Live,
    _sets: Mapping[str, ActivityIndex],
) -> Future[tuple[int, list[Wording]]]:
    del root, epoch, kind, threshold, names  # part of the key only
    budget, draws = draw_sets(_live, _sets)
    texts = [set_texts(_database, question, found) for found in draws]
    loaded = embedder()  # queued before what waits for it: there is one thread

    def measure() -> tuple[int, list[Wording]]:
        embed, tagger = loaded.result().embed, find_tagger()
        return budget, [measure_wording(d, found, embed, tagger) for d, found in zip(draws, texts)]

    return background().submit(measure)


def _named(database: Database, question: Question, names: tuple[str, ...]) -> dict[str, ActivityIndex]:
    asked = (question.seeds, question.anchors)
    sets = {" + ".join(found): activity(database, question.sae_id, found) for found in asked}
    return sets | {name: activity(database, question.sae_id, (name,)) for name in names}


def feature_layout(database: Database, sae_id: str, ids: tuple[int, ...]) -> Future[Layout]:
    """Where features lie by their explanations, and the clusters these form; in the background."""
    return _layout(str(database.workspace.root), database.epoch, sae_id, ids, _database=database)


@st.cache_resource(show_spinner=False, max_entries=8)
def _layout(root: str, epoch: int, sae_id: str, ids: tuple[int, ...], *, _database: Database) -> Future[Layout]:
    del root, epoch  # part of the key only
    rows = _database.rows("explanations_of", sae_id=sae_id, ids=list(ids))
    texts = {row["feature_id"]: row["text"] for row in rows if row["outcome"] == "explained" and row["text"].strip()}
    vectors = text_vectors(np.array(list(texts), np.int64), list(texts.values()))
    return background().submit(lambda: lay_out(ids, texts, *vectors.result()))


_AT_ONCE = 60_000_000
"""Documents × features up to which resampling takes a blink: no need to make anybody wait for a second drawing."""


def _soon(size: int, work: Callable[[], Any]) -> Future[Any]:
    """The result at once, or from a thread of its own where it takes long."""
    if size > _AT_ONCE:
        return _measuring().submit(work)
    done: Future[Any] = Future()
    try:
        done.set_result(work())
    except FacvizError as error:
        done.set_exception(error)
    return done


@st.cache_resource(show_spinner=False)
def _measuring() -> ThreadPoolExecutor:
    """One thread that resamples, so that no interval waits for a model to load."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="facviz-measuring")
