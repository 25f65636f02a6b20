"""Reading: an in-memory DuckDB with one view per table over the manifest's live shards, and the named queries on it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from scipy import sparse

from facviz.errors import InputError, WorkspaceError
from facviz.files import read_lines
from facviz.store.schema import EVENT_COLUMNS, TABLES

NAMED_QUERIES = {
    "features": """
        SELECT s.*, f.* EXCLUDE (sae_id, feature_id), e.text AS explanation, e.outcome AS explanation_outcome
        FROM feature_stats s LEFT JOIN feature f USING (sae_id, feature_id)
        LEFT JOIN (SELECT * FROM explanation QUALIFY row_number() OVER
            (PARTITION BY sae_id, feature_id ORDER BY version DESC) = 1) e USING (sae_id, feature_id)
        WHERE $sae_id IS NULL OR s.sae_id = $sae_id ORDER BY s.sae_id, s.dataset_id, s.feature_id""",
    "spans": """
        SELECT * FROM span WHERE feature_id = $feature_id AND ($sae_id IS NULL OR sae_id = $sae_id)
        ORDER BY sae_id, dataset_id, split, rank""",
    "explanations": """
        SELECT * FROM explanation WHERE $sae_id IS NULL OR sae_id = $sae_id
        QUALIFY row_number() OVER (PARTITION BY sae_id, feature_id ORDER BY version DESC) = 1
        ORDER BY sae_id, feature_id""",
    "coverage": "SELECT * FROM coverage_run",
    "samples": "SELECT * FROM candidate WHERE accepted ORDER BY synth_id, feature_id, step, round, slot",
    "datasets": "SELECT * FROM dataset",
    "documents": "SELECT * FROM document WHERE dataset_id = $dataset_id ORDER BY doc_no",
    "stats": """
        SELECT * FROM feature_stats WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode
        ORDER BY feature_id""",
    "encoded_documents": """
        SELECT doc_no, n_content_tokens, n_cut_tokens FROM encoded_document
        WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode ORDER BY doc_no""",
    "doc_activations": """
        SELECT feature_id, doc_no, max_act FROM doc_activation
        WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode""",
    "doc_quantiles": """
        SELECT feature_id, count(*) AS n_docs, max(max_act) AS max_act, quantile_cont(max_act, 0.95) AS p95_act
        FROM doc_activation WHERE sae_id = $sae_id AND dataset_id = $dataset_id AND mode = $mode
        GROUP BY feature_id ORDER BY feature_id""",
    "dataset_spans": """
        SELECT * FROM span WHERE sae_id = $sae_id AND dataset_id = $dataset_id
        ORDER BY feature_id, split, rank""",
    "feature_directions": "SELECT * FROM feature WHERE sae_id = $sae_id ORDER BY feature_id",
    "relevance": "SELECT * FROM relevance WHERE task = $task AND sae_id = $sae_id ORDER BY feature_id",
    "missing": """
        SELECT * FROM missing_feature WHERE coverage_id = $coverage_id
        ORDER BY relevance_score DESC, feature_id""",
    "candidates": """
        SELECT * FROM candidate WHERE synth_id = $synth_id ORDER BY feature_id, step DESC, round, slot""",
    "synthesis_features": "SELECT * FROM synthesis_feature WHERE synth_id = $synth_id ORDER BY feature_id",
    "saes": "SELECT * FROM sae",
    "sae": "SELECT * FROM sae WHERE sae_id = $sae_id",
}


class Reader:
    """Read-only connection; close it (or use `with`) when done. Results are always drained."""

    def __init__(self, shards: Mapping[str, Sequence[Path]], events: Path) -> None:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        self._connection = duckdb.connect(":memory:", config=settings)
        self._unreadable: dict[str, WorkspaceError] = {}
        for table, schema in TABLES.items():
            try:
                create_source(self._connection, table, shards.get(table, ()), schema)
            except WorkspaceError as error:  # only queries of this table fail, so that its stage can run again
                self._unreadable[table] = error
        create_event_source(self._connection, events)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the connection."""
        self._connection.close()

    def named(self, query: str, **parameters: object) -> Any:
        """Result of a named query as an Arrow table."""
        sql = NAMED_QUERIES[query]
        for table, error in self._unreadable.items():
            if re.search(rf"\b{table}\b", sql):
                raise error
        used = {k: v for k, v in parameters.items() if f"${k}" in sql}
        with self._connection.cursor() as cursor, shard_errors():
            return cursor.sql(sql, params=used).to_arrow_table()

    def rows(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        """Result of a named query as dictionaries."""
        return list(self.named(query, **parameters).to_pylist())

    def dataset(self, name: str) -> dict[str, Any]:
        """The dataset row of this name; InputError names the known ones."""
        rows = self.rows("datasets")
        for row in rows:
            if row["name"] == name:
                return row
        known = ", ".join(r["name"] for r in rows) or "none yet"
        raise InputError(
            f"There is no dataset {name!r} in this workspace (known: {known}); add it with `facviz data add`."
        )

    def activation_matrix(self, sae_id: str, dataset_id: str, mode: str, d_sae: int) -> sparse.csr_matrix:
        """`g_i(x)` of a dataset, documents × features."""
        encoded = self.named("encoded_documents", sae_id=sae_id, dataset_id=dataset_id, mode=mode)
        rows = self.named("doc_activations", sae_id=sae_id, dataset_id=dataset_id, mode=mode)
        coordinates = (rows["doc_no"].to_numpy(), rows["feature_id"].to_numpy())
        shape = (encoded.num_rows, d_sae)
        matrix = sparse.coo_matrix((rows["max_act"].to_numpy(), coordinates), shape=shape, dtype=np.float32)
        return matrix.tocsr()


def create_source(connection: duckdb.DuckDBPyConnection, name: str, shards: Sequence[Path], schema: pa.Schema) -> None:
    """A view over shard files, or an empty table of the schema when there are none yet.

    Raises:
        WorkspaceError: a shard is gone or damaged.
    """
    for path in shards:
        if not path.exists():
            raise WorkspaceError(f"The shard {path} is gone; restore it or run the stage that wrote it again.")
    if shards:
        files = ", ".join(_literal(str(p)) for p in shards)
        options = "union_by_name=true, hive_partitioning=false"  # a folder such as `lr=3` above must add no column
        with shard_errors():
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{files}], {options})")  # noqa: S608
        return
    connection.register("_empty", schema.empty_table())
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM _empty")  # noqa: S608
    connection.unregister("_empty")


def create_event_source(connection: duckdb.DuckDBPyConnection, events: Path) -> None:
    """`review_event` from the event files; a line torn by a kill is skipped."""
    rows = [_event_row(e) for path in sorted(events.glob("*.jsonl")) for e in read_lines(path)]
    columns = ", ".join(f'"{name}"::{kind} AS "{name}"' for name, kind in EVENT_COLUMNS.items())
    connection.register(
        "_events", pa.Table.from_pylist(rows, schema=pa.schema([(n, pa.string()) for n in EVENT_COLUMNS]))
    )
    connection.execute(f"CREATE TABLE review_event AS SELECT {columns} FROM _events")  # noqa: S608
    connection.unregister("_events")


def _event_row(event: Mapping[str, Any]) -> dict[str, str | None]:
    return {name: _event_value(event.get(name), kind) for name, kind in EVENT_COLUMNS.items()}


def _event_value(value: Any, kind: str) -> str | None:
    if kind == "JSON":
        return json.dumps(value)
    return None if value is None else str(value)


@contextmanager
def shard_errors() -> Iterator[None]:
    """Turns what DuckDB says of a damaged shard into one sentence."""
    try:
        yield
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise WorkspaceError(
            f"A shard cannot be read ({reason}); delete it and run the stage that wrote it again."
        ) from error


def _literal(path: str) -> str:
    """SQL literal of exactly this path: `*`, `?` and `[` in it match only themselves."""
    exact = "".join(f"[{c}]" if c in "*?[" else c for c in path)
    return "'" + exact.replace("'", "''") + "'"
