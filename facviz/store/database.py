"""The dashboard's own DuckDB file: every table, kept up with the shards and events that are the truth.

One process opens it and hands out a cursor per call. New shards are taken in once each, by their place in the manifest;
shards of a replaced result leave. The file can be deleted at any time and is made again from shards and events.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from facviz.errors import WorkspaceError
from facviz.files import disk_errors
from facviz.store.deciding import Deciding
from facviz.store.derived import DERIVED_VIEWS
from facviz.store.events import LOG_FILE, Event, Target, append_events, decisions, read_events
from facviz.store.keeping import MATERIALISED, Keep, refresh
from facviz.store.manifest import Shard
from facviz.store.opinions import opinions
from facviz.store.reader import (
    SETTINGS,
    create_empty,
    create_event_tables,
    event_rows,
    numbered_parquet_source,
    shard_errors,
    table_of,
)
from facviz.store.schema import DECISION_SCHEMA, OPINION_SCHEMA, SCHEMA_VERSION, TABLES
from facviz.store.workspace import Workspace

DATABASE_FILE = "facviz.duckdb"
STORAGE_VERSION = "v1.5.0"
"""Written so that both supported major versions of DuckDB open the file."""
_SHARDS_AT_ONCE = 64
_ORDER = {
    "doc_activation": "ORDER BY sae_id, dataset_id, feature_id, max_act DESC",
    "span": "ORDER BY feature_id, rank",
}


_FOLDED: dict[str, tuple[Callable[[Iterable[Event]], list[dict[str, Any]]], pa.Schema]] = {
    "decision": (decisions, DECISION_SCHEMA),
    "opinion": (opinions, OPINION_SCHEMA),
}
"""Tables that follow from the events alone, each with what folds the events of whole targets into its rows."""

_epochs = itertools.count(1)
"""One count for all databases of the process, so that nothing cached from a file since replaced is taken again."""


class Database(Deciding):
    """The open file of one workspace; safe to share between threads, refused to a second process.

    `epoch` grows with every change of content, `shard_epoch` only with what machines wrote; `damaged` says in sentences
    which shards could not be taken in.
    """

    def __init__(self, workspace: Workspace, path: Path | None = None) -> None:
        self.workspace = workspace
        self.path = path or workspace.root / DATABASE_FILE
        self._shown = workspace.root / DATABASE_FILE  # a rebuild writes elsewhere, but that is no user's concern
        self._writing = threading.RLock()
        self._seen: tuple[tuple[str, tuple[int, int, int]], ...] = ()
        self.epoch = next(_epochs)
        self.shard_epoch = self.epoch
        self.damaged: list[str] = []
        self._connection = self._open()
        with self._connection.cursor() as cursor:
            self._keep = Keep(cursor)
        self._inode = self.path.stat().st_ino

    def is_current(self) -> bool:
        """Whether the open file is still the one at its path; False after it was deleted or replaced."""
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Free the file."""
        self._connection.close()

    def sync(self) -> bool:
        """Take in what stages and other tools wrote since the last call; whether anything changed.

        Cheap when nothing did: it only looks at the sizes of the manifest and of the event files.
        """
        seen = _state_of(self.workspace)
        if seen == self._seen:
            return False
        with self._writing, self._transaction() as cursor:
            changed, self.damaged = _take_in_shards(cursor, self.workspace)
            if changed:
                self._keep.renew(cursor)
            self.shard_epoch = next(_epochs) if changed else self.shard_epoch
            changed |= _take_in_events(cursor, self.workspace)
        self._seen = seen
        if changed:
            self.epoch = next(_epochs)
        return changed

    def _log(self, events: Sequence[dict[str, Any]]) -> None:
        folder = self.workspace.root / "events"
        keys = list(dict.fromkeys(event["target"] for event in events))
        before = self._events_of(*keys)
        known = dict(_state_of(self.workspace))
        length = known.get(LOG_FILE, (0,))[0]
        grown = append_events(folder, events)
        with self._transaction() as cursor:
            _insert_events(cursor, list(events))
            _replace_states(cursor, keys, [*before, *events])
        now = dict(_state_of(self.workspace))
        others = {name: state for name, state in now.items() if name != LOG_FILE}
        is_ours_alone = now[LOG_FILE][0] == length + grown and all(known.get(k) == v for k, v in others.items())
        # Else another tool wrote something meanwhile, and the next sync looks again.
        self._seen = tuple(now.items()) if tuple(known.items()) == self._seen and is_ours_alone else ()
        self.epoch = next(_epochs)

    def kept(self, sql: str, **parameters: object) -> str:
        """The table in which the rows of this statement stand, made when first asked for after the shards changed."""
        with self._writing:
            found = self._keep.find(sql, parameters)
            if found is None:
                with self._transaction() as cursor:
                    found = self._keep.make(cursor, sql, parameters)
        return found or super().kept(sql, **parameters)

    def _answer(self, sql: str, parameters: dict[str, object]) -> Any:
        with self._connection.cursor() as cursor, shard_errors():
            return cursor.sql(sql, params=parameters).to_arrow_table()

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._connection.cursor() as cursor, disk_or_shard_errors(self._shown):
            cursor.execute("BEGIN")
            try:
                yield cursor
            except BaseException:
                with suppress(duckdb.Error):  # a full disk has already ended it
                    cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")

    def _open(self) -> duckdb.DuckDBPyConnection:
        """Connect and make sure the tables are those of this version; anything else is made again."""
        connection = _connect(self.path)
        if connection is None or not _is_ours(connection):
            if connection is not None:
                connection.close()
            for stale in (self.path, log_of(self.path)):
                stale.unlink(missing_ok=True)
            connection = _connect(self.path)
            if connection is None:
                raise WorkspaceError(f"{self.path} cannot be written; free space or make the folder writable.")
            _create_tables(connection)
        return connection


def rebuild_database(workspace: Workspace) -> dict[str, int]:
    """Write `facviz.duckdb` from scratch out of shards and events and swap it in; rows per table."""
    target = workspace.root / DATABASE_FILE
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    _refuse_if_open(target)
    try:
        with disk_errors(target), Database(workspace, temporary) as database:
            database.sync()
            if database.damaged:
                raise WorkspaceError(database.damaged[0])
            with database._connection.cursor() as cursor:
                counts = {name: _count(cursor, name) for name in (*TABLES, "review_event")}
                cursor.execute("CHECKPOINT")
        with disk_errors(target):
            log_of(target).unlink(missing_ok=True)  # a killed dashboard's log must not be replayed on the new file
            temporary.replace(target)
    finally:
        for stale in (temporary, log_of(temporary)):
            stale.unlink(missing_ok=True)
    return counts


def log_of(path: Path) -> Path:
    """DuckDB's write-ahead log of a file."""
    return path.with_name(f"{path.name}.wal")


@contextmanager
def disk_or_shard_errors(path: Path) -> Iterator[None]:
    """Says in one sentence that the file cannot be written or a shard not be read."""
    try:
        yield
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise WorkspaceError(f"Cannot write {path} ({reason}); free space, or mend the shard it names.") from error


def _state_of(workspace: Workspace) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    """Changes whenever a shard was listed or an event logged."""
    files = [workspace.root / "tables" / "manifest.jsonl", *sorted((workspace.root / "events").glob("*.jsonl"))]
    found = []
    for path in files:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found.append((path.name, (status.st_size, status.st_mtime_ns, status.st_ino)))
    return tuple(found)


def _connect(path: Path) -> duckdb.DuckDBPyConnection | None:
    """A connection; None when the file is damaged or of a newer DuckDB, which a fresh one replaces."""
    try:
        if not path.exists():
            _create_file(path)
        return duckdb.connect(str(path), config=SETTINGS)
    except duckdb.Error as error:
        if "lock" in str(error).lower():
            raise WorkspaceError(
                f"{path} is open in another dashboard; use that one, or close it and load this page again."
            ) from error
        return None


def _create_file(path: Path) -> None:
    with duckdb.connect(":memory:", config=SETTINGS) as connection:
        quoted = str(path).replace("'", "''")
        connection.execute(f"ATTACH '{quoted}' AS fresh (STORAGE_VERSION '{STORAGE_VERSION}')")
        connection.execute("DETACH fresh")


def _is_ours(connection: duckdb.DuckDBPyConnection) -> bool:
    try:
        [(version,)] = connection.execute("SELECT version FROM schema_version").fetchall()
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        is_materialised = all((name,) in tables for name in MATERIALISED)
        columns = {
            table: [name for name, *_ in connection.execute(f"DESCRIBE {table}").fetchall()] for table in _FOLDED
        }
    except (duckdb.Error, ValueError):
        return False
    return (
        bool(version == SCHEMA_VERSION)
        and is_materialised
        and all(columns[t] == s.names for t, (_, s) in _FOLDED.items())
    )


def _create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    for table, schema in TABLES.items():
        create_empty(connection, f"shard_{table}", schema.append(pa.field("shard_no", pa.int64())))
        connection.execute(f"CREATE VIEW {table} AS SELECT * EXCLUDE (shard_no) FROM shard_{table}")  # noqa: S608
    create_event_tables(connection, [])
    for name, sql in DERIVED_VIEWS.items():
        kind = "TABLE" if name in MATERIALISED else "VIEW"
        connection.execute(f"CREATE {kind} {name} AS {sql}")
    connection.execute("CREATE TABLE shard_taken (table_name VARCHAR, shard_no BIGINT)")
    connection.execute("CREATE TABLE schema_version AS SELECT ?::INTEGER AS version", [SCHEMA_VERSION])


def _take_in_shards(cursor: duckdb.DuckDBPyConnection, workspace: Workspace) -> tuple[bool, list[str]]:
    live = {(s.table, s.number): s for s in workspace.manifest.live() if s.table in TABLES}
    taken = set(cursor.execute("SELECT table_name, shard_no FROM shard_taken").fetchall())
    for table, number in sorted(taken - live.keys()):
        cursor.execute(f"DELETE FROM shard_{table} WHERE shard_no = ?", [number])  # noqa: S608
        cursor.execute("DELETE FROM shard_taken WHERE table_name = ? AND shard_no = ?", [table, number])
    new = sorted((s for key, s in live.items() if key not in taken), key=lambda s: s.number)
    damage = {shard.number: _damage_of(shard.path) for shard in new}
    sound = [shard for shard in new if not damage[shard.number]]
    for table in dict.fromkeys(shard.table for shard in sound):
        shards = [shard for shard in sound if shard.table == table]
        for start in range(0, len(shards), _SHARDS_AT_ONCE):
            _take_in(cursor, table, shards[start : start + _SHARDS_AT_ONCE])
    refresh(cursor, {table for table, _ in taken - live.keys()} | {shard.table for shard in sound})
    return bool(new) or bool(taken - live.keys()), [sentence for sentence in damage.values() if sentence]


def _damage_of(path: Path) -> str:
    """Why a shard cannot be read, in one sentence; "" for a sound one."""
    if not path.exists():
        return f"The shard {path} is gone; restore it or run the stage that wrote it again."
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        return f"The shard {path} cannot be read ({reason}); delete it and run the stage that wrote it again."
    return ""


def _take_in(cursor: duckdb.DuckDBPyConnection, table: str, shards: Sequence[Shard]) -> None:
    """Many shards in one statement, which costs more than the rows of a small one."""
    source = f"{numbered_parquet_source(shards)} {_ORDER.get(table, '')}"
    cursor.execute(f"INSERT INTO shard_{table} BY NAME SELECT * FROM {source}")  # noqa: S608
    cursor.execute("INSERT INTO shard_taken SELECT ?, unnest(?)", [table, [shard.number for shard in shards]])


def _take_in_events(cursor: duckdb.DuckDBPyConnection, workspace: Workspace) -> bool:
    events = read_events(workspace.root / "events")
    if len(events) == _count(cursor, "review_event"):
        return False
    cursor.execute("DELETE FROM review_event")
    _insert_events(cursor, events)
    for table, (fold, schema) in _FOLDED.items():
        cursor.execute(f"DELETE FROM {table}")  # noqa: S608
        _insert(cursor, table, table_of(fold(events), schema))
    return True


def _insert_events(cursor: duckdb.DuckDBPyConnection, events: list[dict[str, Any]]) -> None:
    _insert(cursor, "review_event", event_rows(events))


def _replace_states(cursor: duckdb.DuckDBPyConnection, keys: Sequence[str], events: Sequence[Event]) -> None:
    """What all events of these targets add up to, in place of what stood there."""
    parsed = [target for key in keys if (target := Target.parse(key)) is not None]
    names = [field.name for field in fields(Target)]
    cursor.register("_gone", pa.table({name: [getattr(target, name) for target in parsed] for name in names}))
    for table, (fold, schema) in _FOLDED.items():
        same = " AND ".join(f"d.{name} = g.{name}" for name in names if name in schema.names)
        cursor.execute(f"DELETE FROM {table} d USING _gone g WHERE {same}")  # noqa: S608
        rows = fold(events)
        if rows:
            _insert(cursor, table, table_of(rows, schema))
    cursor.unregister("_gone")


def _insert(cursor: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    cursor.register("_new_rows", rows)
    cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM _new_rows")  # noqa: S608
    cursor.unregister("_new_rows")


def _count(cursor: duckdb.DuckDBPyConnection, table: str) -> int:
    [(n_rows,)] = cursor.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608
    return int(n_rows)


def _refuse_if_open(path: Path) -> None:
    if not path.exists():
        return
    try:
        duckdb.connect(str(path)).close()
    except duckdb.Error as error:
        if "could not set lock" in str(error).lower():
            raise WorkspaceError(
                f"{path} is open in another program; close the dashboard and run this again."
            ) from error
        # A damaged or newer file is exactly what a rebuild replaces.
