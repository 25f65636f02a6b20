"""The table of features, ready to show: what the address asks for, in words and formatted numbers, a page at a time.

A `Lens` is a way of looking at it: features found elsewhere, such as those that fire on a text or separate two data
sets, and what the table says of each in columns of its own.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any

import numpy as np
import numpy.typing as npt

from facviz.exchange.cells import guard
from facviz.records import Floats
from facviz.store.feature_table import ASIDE, PAGE_ROWS, SORTS, TableFilter, feature_page, feature_totals
from facviz.store.queries import Queries
from facviz.views.decisions import STATUS_WORDS
from facviz.views.format import UNKNOWN, count, count_of, number, percent, short, visible
from facviz.views.scope import Looked

N_CLOSEST = 500
"""As many features as a search by meaning ranks."""

COLUMNS = {
    "feature": "Feature",
    "explanation": "Explanation",
    "match": "Match",
    "share_a": "In the first",
    "share_b": "In the second",
    "q": "q",
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

HIGH_FIRST = {"match", "share_a", "share_b", "coverage", "relevance", "density", "documents", "max", "score"}
STATE_WORDS = {"missing": "missing", "exhausted": "exhausted", "filled": "filled", "covered": "covered"}
MAX_CSV_ROWS = 100_000
_MAX_EXPLANATION = 300


@dataclass(frozen=True, slots=True)
class Lens:
    """Features found elsewhere; `found` None is all of them, and a lens that only chooses has nothing to say."""

    found: Mapping[int, float] | None = None
    words: Mapping[int, str] | None = None  # in the column `match` in place of the number
    aside: Mapping[str, Floats] = field(default_factory=dict)  # in the order of `found`
    headings: Mapping[str, str] = field(default_factory=dict)  # of `match` and what stands aside
    help: str = ""  # of the column `match`
    says: bool = True
    shows_all: bool = False  # dead and always-on features too, where the lens itself says which count

    def narrow(self, chosen: TableFilter) -> TableFilter:
        """The filter with what the lens found."""
        if self.found is None:
            return chosen
        found = replace(chosen, closeness=self.found, aside=self.aside)
        return replace(found, with_dead=True, with_always_on=True) if self.shows_all else found


EVERYTHING = Lens()


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
    headings: Mapping[str, str]
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
    queries: Queries,
    looked: Looked,
    chosen: TableFilter,
    *,
    sort: str,
    descending: bool,
    page: int,
    lens: Lens = EVERYTHING,
) -> FeaturesView:
    """Page `page`, counted from 1, of the features that pass; a page behind the last one is the first."""
    narrowed = lens.narrow(chosen)
    found = feature_page(
        queries,
        looked.table,
        narrowed,
        sort=sort if sort in SORTS else "density",
        descending=descending,
        offset=PAGE_ROWS * (max(page, 1) - 1),
    )
    lines = [_line(row, lens, by_word=bool(chosen.word)) for row in found.rows]
    total = len(lines) and found.offset + 1
    return FeaturesView(
        lines=lines,
        columns=_columns(looked, narrowed, lens, found.rows),
        headings={**COLUMNS, **lens.headings},
        n_found=found.n_rows,
        n_pages=max(1, -(-found.n_rows // PAGE_ROWS)),
        found=count_of(found.n_rows, "feature"),
        first=f"{count(total)}–{count(found.offset + len(lines))}" if lines else "",
    )


def table_csv(
    queries: Queries, looked: Looked, chosen: TableFilter, *, sort: str, descending: bool, lens: Lens = EVERYTHING
) -> bytes:
    """All features that pass, in the table's order, as CSV; numbers are plain and possible formulas are guarded."""
    narrowed = lens.narrow(chosen)
    order = {"sort": sort if sort in SORTS else "density", "descending": descending}
    rows = feature_page(queries, looked.table, narrowed, **order, limit=MAX_CSV_ROWS).rows  # type: ignore[arg-type]
    columns = _columns(looked, narrowed, lens, rows, everything=True)
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*columns, "always_on", "dead"])
    for row in rows:
        cells = [_raw(row[_FIELDS[name]]) for name in columns]
        writer.writerow([*cells, _raw(row["is_always_on"]), _raw(row["is_dead"])])
    return out.getvalue().encode("utf-8", "replace")


_FIELDS = {name: name for name in (*COLUMNS, *ASIDE)} | {
    "feature": "feature_id",
    "coverage": "state",
    "documents": "n_docs",
    "max": "max_act",
    "relevance": "verdict",
}
"""Column of the table → of the store's rows."""


def _raw(value: object) -> str:
    if value is None or value != value:
        return ""
    return guard(value) if isinstance(value, str) else str(value)


def _columns(
    looked: Looked,
    chosen: TableFilter,
    lens: Lens,
    rows: Sequence[Mapping[str, Any]],
    *,
    everything: bool = False,
) -> list[str]:
    """Those with something to say; a ranking takes the room of two that say less then."""
    is_ranked = bool(chosen.word.strip()) or (chosen.closeness is not None and lens.says)
    left_out = {name for name in ASIDE if name not in chosen.aside}
    left_out |= set() if is_ranked else {"match"}
    left_out |= {"documents", "max"} if is_ranked and not everything else set()
    left_out |= set() if looked.run else {"coverage"}
    left_out |= set() if any(row["theme"] for row in rows) else {"theme"}
    return [name for name in COLUMNS if name not in left_out]


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


def _line(row: Mapping[str, Any], lens: Lens, *, by_word: bool) -> FeatureLine:
    match, feature_id = row["match"], int(row["feature_id"])
    marks = [words for flag, words in (("is_dead", "dead"), ("is_always_on", "always on")) if row[flag]]
    relevance = "" if row["verdict"] is None else row["verdict"] + " ✎" * row["is_judged_by_person"]
    said = lens.words.get(feature_id) if lens.words is not None else None
    cells = {
        "feature": str(feature_id),
        "explanation": visible(row["explanation"][:_MAX_EXPLANATION]) or "not explained yet",
        "match": said if said is not None else count_of(int(match), "span") if by_word else number(match),
        "share_a": percent(row["share_a"]),
        "share_b": percent(row["share_b"]),
        "q": number(row["q"]),
        "status": STATUS_WORDS.get(row["status"], row["status"]),
        "coverage": ", ".join(marks) or STATE_WORDS.get(row["state"], UNKNOWN),
        "relevance": relevance or UNKNOWN,
        "theme": short(row["theme"], 60),
        "density": percent(row["density"]),
        "documents": count(row["n_docs"]),
        "max": number(row["max_act"]),
        "score": number(row["score"]),
    }
    return FeatureLine(feature_id, cells, row["state"])
