"""The table of features, ready to show: what the address asks for, in words and formatted numbers, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facviz.store.feature_table import PAGE_ROWS, SORTS, TableFilter, feature_page, feature_totals
from facviz.store.queries import Queries
from facviz.views.decisions import STATUS_WORDS
from facviz.views.format import UNKNOWN, count, number, percent, short, visible
from facviz.views.scope import Looked

N_CLOSEST = 500
"""As many features as a search by meaning ranks."""

COLUMNS = {
    "feature": "Feature",
    "explanation": "Explanation",
    "match": "Match",
    "coverage": "Coverage",
    "theme": "Theme",
    "density": "Density",
    "documents": "Texts",
    "max": "Max",
    "score": "Score",
    "relevance": "Relevant",
    "status": "Review",
}
"""Name of a column, which is also its sort → its heading."""

HIGH_FIRST = {"match", "coverage", "relevance", "density", "documents", "max", "score"}
STATE_WORDS = {"missing": "missing", "exhausted": "exhausted", "filled": "filled", "covered": "covered"}
_MAX_EXPLANATION = 300


@dataclass(frozen=True, slots=True)
class Totals:
    """The four numbers above the table, formatted."""

    live: str
    live_note: str
    explained: str
    reviewed: str
    missing: str
    missing_note: str


@dataclass(frozen=True, slots=True)
class FeatureLine:
    """One row: the id, and a text for each of `COLUMNS`."""

    feature_id: int
    cells: Mapping[str, str]
    state: str


@dataclass(frozen=True, slots=True)
class FeaturesView:
    """One page of the table."""

    lines: Sequence[FeatureLine]
    columns: Sequence[str]
    n_found: int
    n_pages: int
    found: str  # "1,023 features", "21 of 1,024 features"
    first: str  # "51–100"


def read_totals(queries: Queries, looked: Looked) -> Totals:
    """Counts over all features, whatever the filter."""
    n = feature_totals(queries, looked.table)
    dead = n["n_features"] - n["n_live"]
    tried = [f"{count(n[f'n_{s}'])} {s}" for s in ("filled", "exhausted") if n[f"n_{s}"]]
    return Totals(
        live=count(n["n_live"]),
        live_note=f"of {count(n['n_features'])}; {count(dead)} dead, {count(n['n_always_on'])} always on",
        explained=percent(n["n_explained"] / n["n_live"] if n["n_live"] else None),
        reviewed=count(n["n_reviewed"]),
        missing=count(n["n_missing"]) if looked.run else UNKNOWN,
        missing_note=", ".join(tried),
    )


def read_features(
    queries: Queries, looked: Looked, chosen: TableFilter, *, sort: str, descending: bool, page: int
) -> FeaturesView:
    """Page `page`, counted from 1, of the features that pass; a page behind the last one is the first."""
    found = feature_page(
        queries,
        looked.table,
        chosen,
        sort=sort if sort in SORTS else "density",
        descending=descending,
        offset=PAGE_ROWS * (max(page, 1) - 1),
    )
    is_search = bool(chosen.word.strip()) or chosen.closeness is not None
    columns = [c for c in COLUMNS if c not in (("documents", "max") if is_search else ("match",))]
    columns = [c for c in columns if c != "coverage" or looked.run]
    columns = [c for c in columns if c != "theme" or any(row["theme"] for row in found.rows)]
    lines = [_line(row, is_meaning=chosen.closeness is not None) for row in found.rows]
    total = len(lines) and found.offset + 1
    return FeaturesView(
        lines=lines,
        columns=columns,
        n_found=found.n_rows,
        n_pages=max(1, -(-found.n_rows // PAGE_ROWS)),
        found="1 feature" if found.n_rows == 1 else f"{count(found.n_rows)} features",
        first=f"{count(total)}–{count(found.offset + len(lines))}" if lines else "",
    )


def closest(
    feature_ids: Sequence[int] | npt.NDArray[np.integer[Any]],
    vectors: npt.NDArray[np.float32],
    query: npt.NDArray[np.float32],
    n: int = N_CLOSEST,
) -> dict[int, float]:
    """Cosine of the n explanations nearest in meaning, by feature: unit `vectors` [n_features, d], `query` [1, d]."""
    if not len(feature_ids):
        return {}
    cosines = vectors @ query[0]
    best = np.argsort(-cosines, kind="stable")[:n]
    return {int(feature_ids[i]): float(cosines[i]) for i in best}


def _line(row: Mapping[str, Any], *, is_meaning: bool) -> FeatureLine:
    match = row["match"]
    marks = [words for flag, words in (("is_dead", "dead"), ("is_always_on", "always on")) if row[flag]]
    relevance = "" if row["verdict"] is None else row["verdict"] + " ✎" * row["is_judged_by_person"]
    cells = {
        "feature": str(row["feature_id"]),
        "explanation": visible(row["explanation"][:_MAX_EXPLANATION]) or "not explained yet",
        "match": number(match) if is_meaning or match is None else f"{count(match)} span{'s' * (match != 1)}",
        "status": STATUS_WORDS.get(row["status"], row["status"]),
        "coverage": ", ".join(marks) or STATE_WORDS.get(row["state"], UNKNOWN),
        "relevance": relevance or UNKNOWN,
        "theme": short(row["theme"], 60),
        "density": percent(row["density"]),
        "documents": count(row["n_docs"]),
        "max": number(row["max_act"]),
        "score": number(row["score"]),
    }
    return FeatureLine(int(row["feature_id"]), cells, row["state"])
