"""`facviz db rebuild`: the dashboard's DuckDB file, made anew from shards and event files, which stay the truth."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb

from facviz.errors import WorkspaceError
from facviz.files import disk_errors
from facviz.store.reader import create_event_source, create_source
from facviz.store.schema import SCHEMA_VERSION, TABLES
from facviz.store.workspace import Workspace

_ORDER = {
    "doc_activation": "ORDER BY sae_id, dataset_id, feature_id, max_act DESC",
    "span": "ORDER BY feature_id, rank",
}


def rebuild_database(workspace: Workspace) -> dict[str, int]:
    """Write `facviz.duckdb` from scratch and swap it in; rows per table."""
    target = workspace.root / "facviz.duckdb"
    temporary = target.with_suffix(f".{os.getpid()}.tmp")
    _refuse_if_open(target)
    try:
        with disk_errors(target):
            counts = _build(temporary, workspace)
            _log_of(target).unlink(missing_ok=True)  # a killed dashboard's log must not be replayed on the new file
            temporary.replace(target)
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise WorkspaceError(f"Cannot write {target} ({reason}); free space, or mend the shard it names.") from error
    finally:
        temporary.unlink(missing_ok=True)
        _log_of(temporary).unlink(missing_ok=True)
    return counts


def _build(path: Path, workspace: Workspace) -> dict[str, int]:
    shards = workspace.manifest.live_shards()
    counts: dict[str, int] = {}
    with duckdb.connect(str(path)) as connection:
        for table, schema in TABLES.items():
            create_source(connection, f"source_{table}", shards.get(table, ()), schema)
            connection.execute(f"CREATE TABLE {table} AS SELECT * FROM source_{table} {_ORDER.get(table, '')}")  # noqa: S608
            connection.execute(f"DROP {'VIEW' if shards.get(table) else 'TABLE'} source_{table}")
            counts[table] = _count(connection, table)
        create_event_source(connection, workspace.root / "events")
        counts["review_event"] = _count(connection, "review_event")
        connection.execute("CREATE TABLE schema_version AS SELECT ?::INTEGER AS version", [SCHEMA_VERSION])
        connection.execute("CHECKPOINT")
    return counts


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    [(n_rows,)] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608
    return int(n_rows)


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


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
