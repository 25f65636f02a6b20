"""All features of an SAE on one dataset as one table: filtered, searched, sorted and cut into pages where it lies.

Column names and directions come from the fixed lists below; whatever a reader types travels as a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facviz.errors import InputError
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
}
"""Name of a sort → the expression it orders by; unknown values come last in both directions."""

_TABLE = """
run AS (
    SELECT c.threshold_kind, c.act_threshold, a.dataset_id AS anchor_id, s.dataset_id AS seed_id,
        CASE c.level WHEN 'yes' THEN 3 WHEN 'probably' THEN 2 ELSE 1 END AS lowest_rank
    FROM coverage_run c JOIN dataset a ON a.name = c.anchor JOIN dataset s ON s.name = c.seed
    WHERE c.coverage_id = $coverage_id LIMIT 1),
stats AS (SELECT * FROM feature_stats WHERE sae_id = $sae_id AND mode = $mode),
reached AS (
    SELECT a.feature_id, a.max_act > delta AND s.max_act > delta AND NOT a.is_always_on AS in_both
    FROM (SELECT t.*, CASE threshold_kind WHEN 'relative' THEN act_threshold * p95_act ELSE act_threshold END AS delta
        FROM stats t JOIN run ON t.dataset_id = run.anchor_id) a
    JOIN (SELECT t.* FROM stats t JOIN run ON t.dataset_id = run.seed_id) s USING (feature_id)),
tried AS (
    SELECT feature_id, bool_or(state = 'filled') AS is_filled,
        bool_or(state IN ('exhausted', 'refused')) AS is_exhausted
    FROM synthesis_feature WHERE coverage_id = $coverage_id GROUP BY feature_id),
judged AS (
    SELECT feature_id, arg_min(verdict, place) AS verdict, min(place) = 0 AS is_judged_by_person, max(theme) AS theme,
        bool_or(verdict <> 'no') FILTER (source <> 'human') AS is_relevant
    FROM (SELECT *, CASE source WHEN 'human' THEN 0 WHEN $source THEN 1 ELSE 2 END AS place
        FROM current_relevance WHERE sae_id = $sae_id AND task = $task)
    GROUP BY feature_id),
said AS (SELECT * FROM current_explanation WHERE sae_id = $sae_id),
joined AS (
    SELECT t.feature_id, t.density, t.n_docs, t.max_act, t.is_dead, t.is_always_on,
        coalesce(e.text, '') AS explanation, coalesce(e.status, 'unreviewed') AS status,
        coalesce(e.author_kind, '') AS author_kind, CAST(e.scores ->> '$.embedding_auroc' AS DOUBLE) AS score,
        j.verdict, coalesce(j.is_judged_by_person, false) AS is_judged_by_person, nullif(j.theme, '') AS theme,
        CASE j.verdict WHEN 'yes' THEN 3 WHEN 'probably' THEN 2 WHEN 'maybe' THEN 1 WHEN 'no' THEN 0 END
            AS verdict_rank, m.n_anchor_docs, coalesce(j.is_relevant, false) AS machine_rank,
        CASE WHEN m.feature_id IS NULL THEN
                CASE WHEN r.in_both AND verdict_rank >= (SELECT lowest_rank FROM run) THEN 'covered' ELSE '' END
            WHEN y.is_filled THEN 'filled' WHEN y.is_exhausted THEN 'exhausted' ELSE 'missing' END AS state
    FROM stats t LEFT JOIN said e USING (feature_id) LEFT JOIN judged j USING (feature_id)
    LEFT JOIN (SELECT * FROM missing_feature WHERE coverage_id = $coverage_id) m USING (feature_id)
    LEFT JOIN tried y USING (feature_id) LEFT JOIN reached r USING (feature_id)
    WHERE t.dataset_id = $dataset_id),
listed AS (
    SELECT *, CASE state WHEN 'missing' THEN 4 WHEN 'exhausted' THEN 3 WHEN 'filled' THEN 2 WHEN 'covered' THEN 1
        ELSE 0 END AS state_rank
    FROM joined)"""

# The word stands around the peak token, which is a part of it: long words are several tokens.
_FIRING = """
found AS (
    SELECT feature_id, count(*) AS match
    FROM (SELECT feature_id, list_extract(tokens, peak_token - start_token + 1) AS peak,
            array_to_string(list_slice(tokens, greatest(peak_token - start_token - 2, 1), peak_token - start_token + 4),
                '') AS near
        FROM span WHERE sae_id = $sae_id AND dataset_id = $dataset_id)
    WHERE trim(peak) <> '' AND contains(lower($word), lower(trim(peak))) AND contains(lower(near), lower($word))
    GROUP BY feature_id)"""
_RANKED = """
found AS (
    SELECT unnest($ids)::INTEGER AS feature_id, unnest($closeness)::DOUBLE AS match)"""


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
    statuses: Sequence[str] = ()
    verdicts: Sequence[str] = ()
    states: Sequence[str] = ()
    lists: Sequence[str] = ()  # ids of lists that people made; on any of them
    min_density: float = 0.0
    max_density: float = 1.0
    with_dead: bool = False
    with_always_on: bool = False


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
    source, conditions, values = _filtered(chosen)
    parts = [_TABLE, *([source] if source else [])]
    joined = "listed JOIN found USING (feature_id)" if source else "(SELECT *, NULL AS match FROM listed)"
    sql = (
        f"WITH {','.join(parts)} SELECT *, count(*) OVER () AS n_rows FROM {joined} "  # noqa: S608
        f"WHERE {' AND '.join(conditions) or 'true'} ORDER BY {order} LIMIT {int(limit)} OFFSET {int(offset)}"
    )
    rows = reader.select(sql, **scope.parameters, **values).to_pylist()
    if not rows and offset:
        return feature_page(reader, scope, chosen, sort=sort, descending=descending, limit=limit)
    n_rows = int(rows[0]["n_rows"]) if rows else 0
    return TablePage([{k: v for k, v in row.items() if k != "n_rows"} for row in rows], n_rows, offset)


def feature_row(reader: Queries, scope: TableScope, feature_id: int) -> dict[str, Any]:
    """One row of the table, whatever its kind; empty where the SAE has no such feature. Reads only that feature."""
    sql = f"WITH {_TABLE} SELECT * FROM listed WHERE feature_id = $feature_id"  # noqa: S608
    rows = reader.select(sql, **scope.parameters, feature_id=feature_id).to_pylist()
    return dict(rows[0]) if rows else {}


def feature_totals(reader: Queries, scope: TableScope) -> dict[str, int]:
    """Counts over the whole table: features, those that fire, are explained, were reviewed, and each coverage state."""
    sql = (
        f"WITH {_TABLE} SELECT count(*) AS n_features, "  # noqa: S608
        "count(*) FILTER (NOT is_dead) AS n_live, count(*) FILTER (is_always_on) AS n_always_on, "
        "count(*) FILTER (explanation <> '') AS n_explained, "
        "count(*) FILTER (status NOT IN ('unreviewed', 'skipped')) AS n_reviewed, "
        "count(*) FILTER (state = 'missing') AS n_missing, count(*) FILTER (state = 'exhausted') AS n_exhausted, "
        "count(*) FILTER (state = 'filled') AS n_filled, count(*) FILTER (state = 'covered') AS n_covered FROM listed"
    )
    [row] = reader.select(sql, **scope.parameters).to_pylist()
    return {name: int(n) for name, n in row.items()}


def _filtered(chosen: TableFilter) -> tuple[str, list[str], dict[str, object]]:
    """The extra source that a search needs, conditions, and the values of both."""
    values: dict[str, object] = {"low": chosen.min_density, "high": chosen.max_density}
    conditions = ["density BETWEEN $low AND $high"]
    conditions += [] if chosen.with_dead else ["NOT is_dead"]
    conditions += [] if chosen.with_always_on else ["NOT is_always_on"]
    for column, wanted in (("status", chosen.statuses), ("verdict", chosen.verdicts), ("state", chosen.states)):
        if wanted:
            values[f"{column}_in"] = list(wanted)
            conditions.append(f"list_contains(${column}_in, {column})")
    if chosen.lists:
        values["lists"] = list(chosen.lists)
        on_lists = "SELECT feature_id FROM listed_feature WHERE sae_id = $sae_id AND list_contains($lists, list_id)"
        conditions.append(f"feature_id IN ({on_lists})")
    if chosen.text.strip():
        values["text"] = chosen.text.strip()
        conditions.append("(contains(lower(explanation), lower($text)) OR CAST(feature_id AS VARCHAR) = $text)")
    if chosen.word.strip():
        return _FIRING, conditions, values | {"word": chosen.word.strip()}
    if chosen.closeness is not None:
        found = {"ids": list(chosen.closeness), "closeness": list(chosen.closeness.values())}
        return _RANKED, conditions, values | found
    return "", conditions, values
