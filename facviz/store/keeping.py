"""Answers that only shards can change, kept in the dashboard's file so that a page does not work them out each time.

Kept rows lie in tables of the same file, named after the shards, the statement and its values: a restart finds them
again, and what other shards gave is never taken for an answer. The last state before the present one stays too, because
another session may be about to read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import duckdb

from facviz.store.derived import DERIVED_VIEWS

MATERIALISED = {"best_explanation": ("explanation",), "span_peak": ("span",)}
"""Derived views that the file holds as tables, each with the tables it follows from."""
MAX_KEPT = 48
"""Tables kept for one state of the shards; a statement beyond them is worked out each time."""
_PREFIX = "kept_"


def refresh(cursor: duckdb.DuckDBPyConnection, changed: Collection[str]) -> None:
    """Work out again what follows from these tables."""
    for name, sources in MATERIALISED.items():
        if not set(sources).isdisjoint(changed):
            cursor.execute(f"CREATE OR REPLACE TABLE {name} AS {DERIVED_VIEWS[name]}")


class Keep:
    """The kept tables of one open file; its caller makes sure that one thread at a time writes."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._state = self._before = _state_of(cursor)
        self._tables = self._sweep(cursor)

    def renew(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """The shards have changed: what followed from them counts no more."""
        self._before, self._state = self._state, _state_of(cursor)
        self._tables = self._sweep(cursor)

    def find(self, sql: str, parameters: Mapping[str, object]) -> str | None:
        """The table of this statement and these values, if it was made."""
        name = self._name(sql, _used(sql, parameters))
        return name if name in self._tables else None

    def make(self, cursor: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, object]) -> str | None:
        """Make that table; None when there are too many."""
        if len(self._tables) >= MAX_KEPT:
            return None
        values = _used(sql, parameters)
        name = self._name(sql, values)
        cursor.execute(f"CREATE OR REPLACE TABLE {name} AS {sql}", values)
        self._tables.add(name)
        return name

    def _name(self, sql: str, values: Mapping[str, object]) -> str:
        asked = hashlib.sha256(repr((sql, sorted(values.items()))).encode()).hexdigest()[:16]
        return f"{_PREFIX}{self._state}_{asked}"

    def _sweep(self, cursor: duckdb.DuckDBPyConnection) -> set[str]:
        """The tables of the present state; those of older ones than the last before it go."""
        names = [name for (name,) in cursor.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        kept = [name for name in names if name.startswith(_PREFIX)]
        for name in kept:
            if not name.startswith((f"{_PREFIX}{self._state}_", f"{_PREFIX}{self._before}_")):
                cursor.execute(f"DROP TABLE {name}")
        return {name for name in kept if name.startswith(f"{_PREFIX}{self._state}_")}


def _used(sql: str, parameters: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in parameters.items() if f"${name}" in sql}


def _state_of(cursor: duckdb.DuckDBPyConnection) -> str:
    """A name of the shards that the file has taken in."""
    shards = cursor.execute("SELECT table_name, shard_no FROM shard_taken ORDER BY ALL").fetchall()
    return hashlib.sha256(repr(shards).encode()).hexdigest()[:16]
