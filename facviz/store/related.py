"""What lies around one feature: spans of others beside its own, texts it is silent on, features active on its texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from facviz.store.queries import Queries
from facviz.store.schema import MODE

MAX_EXCERPT_CHARS = 400
MIN_SHARED_DOCS = 3
"""Fewer texts in common say nothing about two features."""

_AROUND = """
    substring(d.text, greatest(s.start_char - 2000, 1), least(s.start_char, 2001)) AS text_before,
    substring(d.text, s.end_char + 1, 2001) AS text_after"""

_SPANS = f"""
    SELECT s.*, d.label, {_AROUND}
    FROM span s LEFT JOIN document d USING (dataset_id, doc_no)
    WHERE s.sae_id = $sae_id AND s.dataset_id = $dataset_id AND s.split = $split AND s.rank < $n
        AND s.feature_id IN (SELECT unnest($ids::INTEGER[]))
    ORDER BY s.feature_id, s.rank"""  # noqa: S608

_EXCERPTS = """
    SELECT doc_no, label, left(text, $n) AS text, substring(text, $n + 1, 2001) AS text_after FROM document
    WHERE dataset_id = $dataset_id AND doc_no IN (SELECT unnest($doc_nos::INTEGER[]))"""

# Both sides count the texts on which a feature fires at all; the Jaccard index is what they share of all they have.
_TOGETHER = """
    WITH mine AS (
        SELECT doc_no FROM doc_activation
        WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode AND feature_id = $feature_id),
    shared AS (
        SELECT feature_id, count(*) AS n_both FROM doc_activation
        WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode AND feature_id <> $feature_id
            AND doc_no IN (SELECT doc_no FROM mine)
        GROUP BY feature_id HAVING count(*) >= $min_both)
    SELECT feature_id, n_both, s.n_docs, n_both / ((SELECT count(*) FROM mine) + s.n_docs - n_both) AS jaccard
    FROM shared JOIN feature_stats s USING (feature_id)
    WHERE s.sae_id = $sae_id AND s.dataset_id = $dataset_id AND s.mode = $mode
    ORDER BY jaccard DESC, feature_id LIMIT $n"""


def spans_around(
    queries: Queries, sae_id: str, dataset_id: str, feature_ids: Sequence[int], *, split: str, n: int
) -> list[dict[str, Any]]:
    """The n strongest spans of one half of each of these features, with the text around them."""
    found = queries.select(
        _SPANS, sae_id=sae_id, dataset_id=dataset_id, split=split, n=n, ids=[int(i) for i in feature_ids]
    )
    return list(found.to_pylist())


def doc_maxima(
    queries: Queries, sae_id: str, dataset_id: str, feature_id: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Numbers of the texts on which a feature fires, and its highest activation on each."""
    found = queries.named("feature_doc_maxima", sae_id=sae_id, dataset_id=dataset_id, mode=MODE, feature_id=feature_id)
    return found["doc_no"].to_numpy().astype(np.int64), found["max_act"].to_numpy().astype(np.float64)


def excerpts(queries: Queries, dataset_id: str, doc_nos: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The beginnings of these texts, by number."""
    found = queries.select(_EXCERPTS, dataset_id=dataset_id, doc_nos=[int(i) for i in doc_nos], n=MAX_EXCERPT_CHARS)
    return {row["doc_no"]: row for row in found.to_pylist()}


def active_together(queries: Queries, sae_id: str, dataset_id: str, feature_id: int, *, n: int) -> list[dict[str, Any]]:
    """The features that fire on the same texts, by Jaccard index: one pass over the dataset's activations."""
    found = queries.select(
        _TOGETHER,
        sae_id=sae_id,
        dataset_id=dataset_id,
        mode=MODE,
        feature_id=feature_id,
        min_both=MIN_SHARED_DOCS,
        n=n,
    )
    return list(found.to_pylist())
