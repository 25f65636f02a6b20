"""The inputs of a coverage question, read from the tables once: what commands measure and pages let people turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from facviz.config import CoverageConfig
from facviz.coverage import ActivityIndex, index_entries, thresholds, without_always_on
from facviz.prompts import load_task
from facviz.records import Floats, Ints, Relevance, Verdict
from facviz.relevance import LEVELS, relevant_features
from facviz.store.queries import Queries
from facviz.store.schema import MODE


@dataclass(frozen=True, slots=True)
class Gap:
    """Matrices of anchor and seed, thresholds, and the task's features with what says that they matter."""

    anchor: sparse.csr_matrix
    seed: sparse.csr_matrix
    features: npt.NDArray[np.int64]
    act_threshold: npt.NDArray[np.float64]
    p95: npt.NDArray[np.float64]
    anchor_tokens: npt.NDArray[np.int64]
    seed_tokens: npt.NDArray[np.int64]
    relevance_score: Mapping[int, float]
    theme: Mapping[int, str]


@dataclass(frozen=True, slots=True, eq=False)
class TaskFeatures:
    """The features that matter to a task at any level, [n], and what says so; those that always fire are left out."""

    features: Ints
    rank: Ints  # place of the verdict in `relevance.LEVELS`: 0 is the strongest
    p95: Floats  # on the anchor set
    relevance_score: Mapping[int, float]
    theme: Mapping[int, str]


def read_gap(reader: Queries, sae_id: str, task: str, source: str, config: CoverageConfig) -> Gap:
    """Everything a coverage question is computed from; a person's verdict wins over the source's."""
    (d_sae,) = {row["d_sae"] for row in reader.rows("sae", sae_id=sae_id)}
    ids = [reader.dataset(name)["dataset_id"] for name in (config.anchor, config.seed)]
    matrices = [reader.activation_matrix(sae_id, i, MODE, d_sae) for i in ids]
    tokens = [
        reader.named("encoded_documents", sae_id=sae_id, dataset_id=i, mode=MODE)["n_content_tokens"].to_numpy()
        for i in ids
    ]
    stats = reader.named("stats", sae_id=sae_id, dataset_id=ids[0], mode=MODE)
    verdicts = _verdicts(reader, sae_id, task)
    features = relevant_features(verdicts, config.level, source)
    if not config.include_always_on:
        features = without_always_on(features, stats["is_always_on"].to_numpy(zero_copy_only=False))
    p95 = stats["p95_act"].to_numpy().astype(np.float64)
    return Gap(
        anchor=matrices[0],
        seed=matrices[1],
        features=np.asarray(features, np.int64),
        act_threshold=np.asarray(thresholds(config.kind, config.threshold, p95), np.float64),
        p95=p95,
        anchor_tokens=tokens[0].astype(np.int64),
        seed_tokens=tokens[1].astype(np.int64),
        relevance_score={v.feature_id: v.score for v in verdicts if v.source == source},
        theme={v.feature_id: v.theme for v in verdicts if v.theme},
    )


def read_task_features(
    reader: Queries, sae_id: str, task: str, source: str, anchors: Sequence[str], *, include_always_on: bool = False
) -> TaskFeatures:
    """What a task counts on this SAE, whatever the level and δ.

    Unless asked for, features that fire nearly everywhere in one of the anchor sets are left out; the scale is that of
    the first.
    """
    ids = [reader.dataset(name)["dataset_id"] for name in anchors]
    all_stats = [reader.named("stats", sae_id=sae_id, dataset_id=i, mode=MODE) for i in ids]
    is_always_on = np.any([s["is_always_on"].to_numpy(zero_copy_only=False) for s in all_stats], axis=0)
    is_always_on &= not include_always_on
    stats = all_stats[0]
    # Of features that matter at no level nothing is read: of a wide SAE they are most.
    verdicts = _records(reader.rows("task_verdicts", task=load_task(task).name, sae_id=sae_id, source=source))
    by_level = [
        np.asarray(without_always_on(relevant_features(verdicts, level.value, source), is_always_on))
        for level in LEVELS
    ]
    features = by_level[-1]
    return TaskFeatures(
        features=features.astype(np.int64),
        rank=len(LEVELS) - np.sum([np.isin(features, ids) for ids in by_level], axis=0),
        p95=stats["p95_act"].to_numpy().astype(np.float64)[features],
        relevance_score={v.feature_id: v.score for v in verdicts if v.source == source},
        theme={v.feature_id: v.theme for v in verdicts if v.theme},
    )


def read_activity(reader: Queries, sae_id: str, name: str) -> ActivityIndex:
    """All activations of a data set by an SAE, sorted for every δ there is."""
    (d_sae,) = {row["d_sae"] for row in reader.rows("sae", sae_id=sae_id)}
    place = {"sae_id": sae_id, "dataset_id": reader.dataset(name)["dataset_id"], "mode": MODE}
    tokens = reader.named("encoded_documents", **place)["n_content_tokens"].to_numpy()
    rows = reader.named("doc_activations", **place)
    columns = (rows[column].to_numpy() for column in ("feature_id", "doc_no", "max_act"))
    return index_entries(*columns, d_sae=d_sae, n_docs=len(tokens), n_tokens=tokens)


def _verdicts(reader: Queries, sae_id: str, task: str) -> list[Relevance]:
    return _records(reader.rows("relevance", task=load_task(task).name, sae_id=sae_id))


def _records(rows: Sequence[Mapping[str, Any]]) -> list[Relevance]:
    return [
        Relevance(r["feature_id"], r["source"], Verdict(r["verdict"]), r["score"], r["rationale"], r["theme"])
        for r in rows
    ]


def human_verdicts(reader: Queries, sae_id: str, task: str) -> list[tuple[int, str]]:
    """What people said of features of a task: part of what a coverage result follows from."""
    rows = reader.rows("relevance", task=load_task(task).name, sae_id=sae_id)
    return [(r["feature_id"], r["verdict"]) for r in rows if r["source"] == "human"]
