"""All features of an SAE on one dataset as one table: filtered, searched, sorted and cut into pages where it lies.

Column names and directions come from the fixed lists below; whatever a reader types travels as a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facviz.errors import InputError
from facviz.records import Floats
from facviz.store.coverage_parts import COVERAGE_PARTS
from facviz.store.queries import Queries
from facviz.store.schema import MODE

PAGE_ROWS = 50

SORTS = {
    "feature": "feature_id",
    "explanation": "lower(explanation)",
    "status": "status",
    "density": "density",
    "documents": "n_docs",
    "max": "max_act",
    "score": "score",
    "relevance": "verdict_rank",
    "theme": "theme",
    "coverage": "state_rank",
    "match": "match",
    "share_a": "share_a",
    "share_b": "share_b",
    "q": "q",
}
"""Name of a sort → the expression it orders by; unknown values come last in both directions."""

ASIDE = ("share_a", "share_b", "q")
"""Columns that a ranking made elsewhere can bring along; NULL in a table without them."""

_JUDGED_AND_JOINED = """
judged AS (
    SELECT feature_id, arg_min(verdict, CASE WHEN source = $source THEN 0 ELSE 1 END) AS verdict, max(theme) AS theme,
        bool_or(verdict <> 'no') AS is_relevant
    FROM relevance WHERE sae_id = $sae_id AND task = $task GROUP BY feature_id)
SELECT t.feature_id, t.density, t.n_docs, t.max_act, t.is_dead, t.is_always_on, e.text, e.author_kind, e.auroc,
    e.outcome = 'explained' AS is_explained,
    j.verdict, nullif(j.theme, '') AS theme, coalesce(j.is_relevant, false) AS is_relevant, m.n_anchor_docs,
    coalesce(r.in_anchor AND r.in_seed AND NOT r.is_always_on, false) AS in_both,
    (SELECT lowest FROM run) AS lowest_rank,
    CASE WHEN m.feature_id IS NULL THEN '' WHEN y.is_filled THEN 'filled' WHEN y.is_exhausted THEN 'exhausted'
        ELSE 'missing' END AS gap
FROM stats t LEFT JOIN (SELECT * FROM best_explanation WHERE sae_id = $sae_id) e USING (feature_id)
LEFT JOIN judged j USING (feature_id)
LEFT JOIN (SELECT * FROM missing_feature WHERE coverage_id = $coverage_id) m USING (feature_id)
LEFT JOIN tried y USING (feature_id) LEFT JOIN reach r USING (feature_id)
WHERE t.dataset_id = $dataset_id ORDER BY t.feature_id"""
_MACHINE = ",".join(("WITH" + COVERAGE_PARTS, _JUDGED_AND_JOINED))
"""What machines know of every feature: nothing in it follows from a decision, so that it can be kept."""
_TABLE = """
said AS (SELECT * FROM decision WHERE kind = 'explanation' AND sae_id = $sae_id),
told AS (SELECT * FROM decision WHERE kind = 'relevance' AND sae_id = $sae_id AND task = $task),
joined AS (
    SELECT k.feature_id, k.density, k.n_docs, k.max_act, k.is_dead, k.is_always_on,
        coalesce(s.text, k.text, '') AS explanation,
        s.text IS NOT NULL OR coalesce(k.is_explained, false) AS is_explained,
        coalesce(s.status, 'unreviewed') AS status,
        CASE WHEN s.text IS NULL THEN coalesce(k.author_kind, '') ELSE 'human' END AS author_kind,
        CASE WHEN s.text IS NULL THEN k.auroc END AS score, coalesce(t.verdict, k.verdict) AS verdict,
        t.feature_id IS NOT NULL AS is_judged_by_person, k.theme,
        CASE coalesce(t.verdict, k.verdict)
            WHEN 'yes' THEN 3 WHEN 'probably' THEN 2 WHEN 'maybe' THEN 1 WHEN 'no' THEN 0 END AS verdict_rank,
        k.n_anchor_docs, k.is_relevant AS machine_rank,
        CASE WHEN k.gap <> '' THEN k.gap WHEN k.in_both AND verdict_rank >= k.lowest_rank THEN 'covered' ELSE '' END
            AS state
    FROM {machine} k LEFT JOIN said s USING (feature_id) LEFT JOIN told t USING (feature_id)),
listed AS (
    SELECT *, CASE state WHEN 'missing' THEN 4 WHEN 'exhausted' THEN 3 WHEN 'filled' THEN 2 WHEN 'covered' THEN 1
        ELSE 0 END AS state_rank
    FROM joined)"""

# The word stands around the peak token, which is a part of it: long words are several tokens.
_FIRING = """
found AS (
    SELECT feature_id, count(*) AS match FROM span_peak
    WHERE sae_id = $sae_id AND dataset_id = $dataset_id
        AND contains(lower($word), peak) AND contains(near, lower($word))
    GROUP BY feature_id)"""
# Features that matter to any of these tasks: a person's verdict wins, else one machine's yes, probably or maybe does.
_OF_TASKS = """feature_id IN (
    SELECT feature_id FROM current_relevance WHERE sae_id = $sae_id AND list_contains($tasks, task)
    GROUP BY feature_id, task
    HAVING coalesce(bool_or(verdict <> 'no') FILTER (source = 'human'), bool_or(verdict <> 'no')))"""
_IN_CLUSTERS = """feature_id IN (
    SELECT feature_id FROM feature_map WHERE sae_id = $sae_id AND list_contains($clusters, cluster))"""


@dataclass(frozen=True, slots=True)
class TableScope:
    """Which table: an SAE on a dataset, judged for a task by a source, against a coverage run ("" for none)."""

    sae_id: str
    dataset_id: str
    task: str = ""
    source: str = ""
    coverage_id: str = ""

    @property
    def parameters(self) -> dict[str, object]:
        """The values every statement about this table takes."""
        return {
            "sae_id": self.sae_id,
            "dataset_id": self.dataset_id,
            "task": self.task,
            "source": self.source,
            "coverage_id": self.coverage_id,
            "mode": MODE,
        }


@dataclass(frozen=True, slots=True)
class TableFilter:
    """Which rows: empty fields let everything through; a search by text, by word, or by ids found elsewhere."""

    text: str = ""  # literal part of the explanation, or a feature id
    word: str = ""  # spans of this dataset peak on it
    closeness: Mapping[int, float] | None = None  # of the features to choose from, by id
    aside: Mapping[str, Floats] = field(default_factory=dict)  # of `ASIDE`, in the order of `closeness`
    statuses: Sequence[str] = ()
    verdicts: Sequence[str] = ()
    states: Sequence[str] = ()
    lists: Sequence[str] = ()  # ids of lists that people made; on any of them
    tasks: Sequence[str] = ()  # relevant to any of them
    clusters: Sequence[int] = ()  # of the map
    min_density: float = 0.0
    max_density: float = 1.0
    min_score: float | None = None  # a bound leaves out features without a score
    max_score: float | None = None
    min_max_act: float | None = None
    max_max_act: float | None = None
    with_dead: bool = False
    with_always_on: bool = False
    only_dead: bool = False
    only_always_on: bool = False


@dataclass(frozen=True, slots=True)
class TablePage:
    """Rows `offset` onwards of all `n_rows` that passed the filter."""

    rows: list[dict[str, Any]]
    n_rows: int
    offset: int


def feature_page(
    reader: Queries,
    scope: TableScope,
    chosen: TableFilter,
    *,
    sort: str = "feature",
    descending: bool = False,
    offset: int = 0,
    limit: int = PAGE_ROWS,
) -> TablePage:
    """One page of the table; the first one where `offset` lies behind the last row.

    Raises:
        InputError: there is no such sort.
    """
    if sort not in SORTS:
        raise InputError(f"The features cannot be sorted by {sort!r}; choose one of {', '.join(SORTS)}.")
    order = f"{SORTS[sort]} {'DESC' if descending else 'ASC'} NULLS LAST, feature_id"
    table, values = _filtered(reader, scope, chosen)
    sql = (
        f"{table} SELECT *, count(*) OVER () AS n_rows FROM passed "  # noqa: S608
        f"ORDER BY {order} LIMIT {int(limit)} OFFSET {int(offset)}"
    )
    rows = reader.select(sql, **scope.parameters, **values).to_pylist()
    if not rows and offset:
        return feature_page(reader, scope, chosen, sort=sort, descending=descending, limit=limit)
    n_rows = int(rows[0]["n_rows"]) if rows else 0
    return TablePage([{k: v for k, v in row.items() if k != "n_rows"} for row in rows], n_rows, offset)


def feature_row(reader: Queries, scope: TableScope, feature_id: int) -> dict[str, Any]:
    """One row of the table, whatever its kind; empty where the SAE has no such feature. Reads only that feature."""
    sql = f"WITH {_table(reader, scope)} SELECT * FROM listed WHERE feature_id = $feature_id"  # noqa: S608
    rows = reader.select(sql, **scope.parameters, feature_id=feature_id).to_pylist()
    return dict(rows[0]) if rows else {}


def feature_totals(reader: Queries, scope: TableScope) -> dict[str, int]:
    """Counts over the whole table: features, those that fire, are explained, were reviewed, and each coverage state."""
    sql = (
        f"WITH {_table(reader, scope)} SELECT count(*) AS n_features, "  # noqa: S608
        "count(*) FILTER (NOT is_dead) AS n_live, count(*) FILTER (is_always_on) AS n_always_on, "
        "count(*) FILTER (is_explained) AS n_explained, "
        "count(*) FILTER (status NOT IN ('unreviewed', 'skipped')) AS n_reviewed, "
        "count(*) FILTER (state = 'missing') AS n_missing, count(*) FILTER (state = 'exhausted') AS n_exhausted, "
        "count(*) FILTER (state = 'filled') AS n_filled, count(*) FILTER (state = 'covered') AS n_covered FROM listed"
    )
    [row] = reader.select(sql, **scope.parameters).to_pylist()
    return {name: int(n) for name, n in row.items()}


def passing(reader: Queries, scope: TableScope, chosen: TableFilter) -> Any:
    """Every feature that passes, with what was said and decided of it, as an Arrow table by feature id."""
    table, values = _filtered(reader, scope, chosen)
    columns = "feature_id, status, is_explained, verdict, is_judged_by_person"
    sql = f"{table} SELECT {columns} FROM passed ORDER BY feature_id"  # noqa: S608
    return reader.select(sql, **scope.parameters, **values)


def mapped(reader: Queries, scope: TableScope) -> Any:
    """Every feature that has a place on the map, with all it can be coloured by, as an Arrow table by feature id."""
    columns = "m.feature_id, m.umap_x, m.umap_y, m.cluster, l.density, l.max_act, l.score, l.verdict, l.status, l.state"
    flags = "l.is_dead, l.is_always_on, left(l.explanation, 80) AS explanation"
    source = "feature_map m JOIN listed l USING (feature_id) WHERE m.sae_id = $sae_id ORDER BY m.feature_id"
    sql = f"WITH {_table(reader, scope)} SELECT {columns}, {flags} FROM {source}"  # noqa: S608
    return reader.select(sql, **scope.parameters)


def _table(reader: Queries, scope: TableScope) -> str:
    """Common table expressions up to `listed`: what machines know, with what people decided."""
    return _TABLE.format(machine=reader.kept(_MACHINE, **scope.parameters))


def _filtered(reader: Queries, scope: TableScope, chosen: TableFilter) -> tuple[str, dict[str, object]]:
    """The statement's beginning, up to the rows that `passed`, and the values it takes."""
    source, values = _source(chosen)
    conditions, more = _conditions(chosen)
    given = [name for name in ASIDE if chosen.closeness is not None and name in chosen.aside]
    aside = [f"NULL::DOUBLE AS {name}" for name in ASIDE if name not in given]
    columns = ", ".join(["*", *([] if source else ["NULL AS match"]), *aside])
    joined = "listed JOIN found USING (feature_id)" if source else "listed"
    parts = ",".join([_table(reader, scope), *([source] if source else [])])
    where = " AND ".join(conditions)
    return f"WITH {parts}, passed AS (SELECT {columns} FROM {joined} WHERE {where})", values | more  # noqa: S608


def _source(chosen: TableFilter) -> tuple[str, dict[str, object]]:
    """The features that a search found elsewhere, "" for no search, and its values."""
    if chosen.word.strip():
        return _FIRING, {"word": chosen.word.strip()}
    if chosen.closeness is None:
        return "", {}
    n = len(chosen.closeness)
    values: dict[str, object] = {  # arrays bind in a tenth of the time that lists take
        "ids": np.fromiter(chosen.closeness.keys(), np.int32, n),
        "match": np.fromiter(chosen.closeness.values(), np.float64, n),
    }
    values |= {name: np.asarray(chosen.aside[name], np.float64) for name in ASIDE if name in chosen.aside}
    columns = ", ".join(f"unnest(${name})::DOUBLE AS {name}" for name in values if name != "ids")
    return f"found AS (SELECT unnest($ids)::INTEGER AS feature_id, {columns})", values


def _conditions(chosen: TableFilter) -> tuple[list[str], dict[str, object]]:
    values: dict[str, object] = {"low": chosen.min_density, "high": chosen.max_density}
    conditions = ["density BETWEEN $low AND $high"]
    conditions += [] if chosen.with_dead or chosen.only_dead else ["NOT is_dead"]
    conditions += [] if chosen.with_always_on or chosen.only_always_on else ["NOT is_always_on"]
    only = [c for c, on in (("is_dead", chosen.only_dead), ("is_always_on", chosen.only_always_on)) if on]
    conditions += [f"({' OR '.join(only)})"] if only else []
    for column, wanted in (("status", chosen.statuses), ("verdict", chosen.verdicts), ("state", chosen.states)):
        if wanted:
            values[f"{column}_in"] = list(wanted)
            conditions.append(f"list_contains(${column}_in, {column})")
    if chosen.lists:
        values["lists"] = list(chosen.lists)
        on_lists = "SELECT feature_id FROM listed_feature WHERE sae_id = $sae_id AND list_contains($lists, list_id)"
        conditions.append(f"feature_id IN ({on_lists})")
    for column, sign, bound in (
        ("score", ">=", chosen.min_score),
        ("score", "<=", chosen.max_score),
        ("max_act", ">=", chosen.min_max_act),
        ("max_act", "<=", chosen.max_max_act),
    ):
        if bound is not None:
            name = f"{column}_{'least' if sign == '>=' else 'most'}"
            values[name] = float(bound)
            conditions.append(f"{column} {sign} ${name}")
    for name, members, condition in (("tasks", chosen.tasks, _OF_TASKS), ("clusters", chosen.clusters, _IN_CLUSTERS)):
        if members:
            values[name] = list(members)
            conditions.append(condition)
    if chosen.text.strip():
        values["text"] = chosen.text.strip()
        conditions.append("(contains(lower(explanation), lower($text)) OR CAST(feature_id AS VARCHAR) = $text)")
    return conditions, values
