"""Reading beside everyone else: an in-memory DuckDB with one view per table over the manifest's live shards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from facviz.errors import WorkspaceError
from facviz.store.derived import DERIVED_VIEWS
from facviz.store.events import decisions, read_events
from facviz.store.manifest import Shard
from facviz.store.opinions import opinions
from facviz.store.queries import Queries
from facviz.store.schema import DECISION_SCHEMA, EVENT_COLUMNS, OPINION_SCHEMA, TABLES

SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class Reader(Queries):
    """Read-only connection; close it (or use `with`) when done."""

    def __init__(self, shards: Mapping[str, Sequence[Path]], events: Path) -> None:
        self._connection = duckdb.connect(":memory:", config=SETTINGS)
        self._unreadable: dict[str, WorkspaceError] = {}
        for table, schema in TABLES.items():
            try:
                create_source(self._connection, table, shards.get(table, ()), schema)
            except WorkspaceError as error:  # only queries of this table fail, so that its stage can run again
                self._unreadable[table] = error
        create_event_tables(self._connection, read_events(events))
        for name, sql in DERIVED_VIEWS.items():
            if not self._problem(sql):
                self._connection.execute(f"CREATE VIEW {name} AS {sql}")

    def close(self) -> None:
        """Free the connection."""
        self._connection.close()

    def _answer(self, sql: str, parameters: dict[str, object]) -> Any:
        problem = self._problem(sql)
        if problem is not None:
            raise problem
        with self._connection.cursor() as cursor, shard_errors():
            return cursor.sql(sql, params=parameters).to_arrow_table()

    def _problem(self, sql: str) -> WorkspaceError | None:
        """Why a statement cannot be answered: a damaged table it reads, directly or through a derived view."""
        for name, definition in reversed(DERIVED_VIEWS.items()):
            if re.search(rf"\b{name}\b", sql):
                sql += definition
        return next((e for table, e in self._unreadable.items() if re.search(rf"\b{table}\b", sql)), None)


def create_source(connection: duckdb.DuckDBPyConnection, name: str, shards: Sequence[Path], schema: pa.Schema) -> None:
    """A view over shard files with every declared column, or an empty table when there are none yet.

    Raises:
        WorkspaceError: a shard is gone or damaged.
    """
    for path in shards:
        if not path.exists():
            raise WorkspaceError(f"The shard {path} is gone; restore it or run the stage that wrote it again.")
    if not shards:
        create_empty(connection, name, schema)
        return
    with shard_errors():
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {parquet_source(shards)}")  # noqa: S608
        found = {row[0] for row in connection.execute(f"DESCRIBE {name}").fetchall()}
    if set(schema.names) - found:  # all shards are older than a column
        create_empty(connection, f"no_{name}", schema)
        older = f"SELECT * FROM {parquet_source(shards)} UNION ALL BY NAME SELECT * FROM no_{name}"  # noqa: S608
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS {older}")


def create_empty(connection: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema) -> None:
    """A table of this schema without rows."""
    create_filled(connection, name, table_of([], schema))


def create_filled(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """A table that holds these rows."""
    connection.register("_rows", rows)
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM _rows")  # noqa: S608
    connection.unregister("_rows")


def parquet_source(shards: Sequence[Path]) -> str:
    """SQL reading exactly these files."""
    files = ", ".join(_literal(str(p)) for p in shards)
    # A folder such as `lr=3` above must add no column.
    return f"read_parquet([{files}], union_by_name=true, hive_partitioning=false)"


def numbered_parquet_source(shards: Sequence[Shard]) -> str:
    """SQL reading exactly these shards, each row with the `shard_no` it came from."""
    names = ", ".join(_quoted(str(shard.path)) for shard in shards)
    numbers = ", ".join(str(shard.number) for shard in shards)
    rows = parquet_source([shard.path for shard in shards]).removesuffix(")") + ", filename=true)"
    return f"(SELECT * EXCLUDE (filename), ([{numbers}])[list_position([{names}], filename)] AS shard_no FROM {rows})"  # noqa: S608


def create_event_tables(connection: duckdb.DuckDBPyConnection, events: Sequence[Mapping[str, Any]]) -> None:
    """`review_event` as logged, `decision`, the state it adds up to, and `opinion`, what each person thinks."""
    create_filled(connection, "logged_event", event_rows(events))
    columns = ", ".join(f'"{name}"::{kind} AS "{name}"' for name, kind in EVENT_COLUMNS.items())
    connection.execute(f"CREATE TABLE review_event AS SELECT {columns} FROM logged_event")  # noqa: S608
    connection.execute("DROP TABLE logged_event")
    create_filled(connection, "decision", table_of(decisions(events), DECISION_SCHEMA))
    create_filled(connection, "opinion", table_of(opinions(events), OPINION_SCHEMA))


def event_rows(events: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Events as text columns; the payload as JSON."""
    rows = [{name: _event_value(e.get(name), kind) for name, kind in EVENT_COLUMNS.items()} for e in events]
    return table_of(rows, pa.schema([(n, pa.string()) for n in EVENT_COLUMNS]))


def table_of(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table; making arrays imports pandas, half a second that a workspace without events need not wait."""
    return pa.Table.from_pylist(rows, schema=schema) if rows else pa.Table.from_batches([], schema=schema)


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
    return _quoted("".join(f"[{c}]" if c in "*?[" else c for c in path))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
