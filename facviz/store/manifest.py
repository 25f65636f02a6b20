"""The manifest: which shard files belong to which result, in the order they became true.

An entry follows its file: write under a temporary name, fsync, rename, then append the entry. So a kill at any moment
leaves either a complete shard or none. Of several results for one scope the latest wins; a finished stage is recorded
by a `done` entry that also carries its summary, which is what makes a second run return at once.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from facviz.files import append_line, read_lines, write_files
from facviz.store.schema import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose result a shard is part of: a stage, what it was about, and the fingerprint it follows from."""

    stage: str
    subject: str
    fingerprint: str

    @property
    def key(self) -> str:
        """Results with equal keys replace each other."""
        return f"{self.stage}/{self.subject}"


@dataclass(frozen=True, slots=True)
class Shard:
    """A listed file; `number` is its place in the manifest, which never changes."""

    table: str
    number: int
    path: Path


class Manifest:
    """Append-only list of shards and finished stages under one `tables/` folder."""

    def __init__(self, tables: Path) -> None:
        self._tables = tables
        self._path = tables / "manifest.jsonl"

    def entries(self) -> list[dict[str, Any]]:
        """All complete entries; a line torn by a kill is not an entry."""
        return [e for e in read_lines(self._path) if "scope" in e]

    def latest_fingerprint(self, key: str) -> str | None:
        """Fingerprint of the latest finished result of a scope key."""
        found = [e["fingerprint"] for e in self.entries() if e["scope"] == key and e["kind"] == "done"]
        return found[-1] if found else None

    def is_latest(self, scope: Scope) -> bool:
        """Whether no other result of this scope key came after this one."""
        found = [e["fingerprint"] for e in self.entries() if e["scope"] == scope.key]
        return bool(found) and found[-1] == scope.fingerprint

    def write_shard(self, scope: Scope, table: str, shard: str, rows: pa.Table) -> None:
        """One Parquet file, durable before it is listed; the same shard written twice is listed with its last rows."""
        relative = f"{table}/{_file_part(scope)}-{scope.fingerprint}-{shard}.parquet"
        path = self._tables / relative
        write_files({path: lambda temporary: pq.write_table(rows, temporary, compression="zstd")})
        self._append(
            {"kind": "shard", "scope": scope.key, "fingerprint": scope.fingerprint, "table": table, "shard": shard}
            | {"path": relative, "rows": rows.num_rows}
        )

    def mark_done(self, scope: Scope, summary: Mapping[str, Any]) -> None:
        """Record that every shard of this scope is there, with what the stage reported."""
        entry = {"kind": "done", "scope": scope.key, "fingerprint": scope.fingerprint, "summary": dict(summary)}
        self._append(entry)

    def has_shard(self, scope: Scope, table: str, shard: str) -> bool:
        """Whether this exact shard is complete."""
        return any(
            e["kind"] == "shard"
            and (e["scope"], e["fingerprint"], e["table"], e["shard"]) == (scope.key, scope.fingerprint, table, shard)
            and (self._tables / e["path"]).exists()
            for e in self.entries()
        )

    def done(self, scope: Scope) -> dict[str, Any] | None:
        """The summary of this finished result, or None; its shards must still be on disk."""
        found: dict[str, Any] | None = None
        for entry in self.entries():
            if (entry["scope"], entry["fingerprint"]) != (scope.key, scope.fingerprint):
                continue
            if entry["kind"] == "done":
                found = dict(entry["summary"])
            elif not (self._tables / entry["path"]).exists():
                return None
        return found

    def latest_done(self, stage: str) -> dict[str, dict[str, Any]]:
        """Subject to summary of every finished result of a stage, the latest per subject, oldest first."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self.entries():
            if entry["kind"] == "done" and entry["scope"].startswith(f"{stage}/"):
                subject = entry["scope"].split("/", 1)[1]
                found.pop(subject, None)
                found[subject] = dict(entry["summary"])
        return found

    def live(self, working: Scope | None = None) -> list[Shard]:
        """Files of the result that counts for every scope, in the order they were listed.

        That is the last finished one, or the one in the making where none was finished yet; for the scope a stage is
        `working` on, what it wrote so far.
        """
        entries = self.entries()
        current: dict[str, tuple[bool, str]] = {}
        for entry in entries:
            is_done = entry["kind"] == "done"
            if is_done or not current.get(entry["scope"], (False, ""))[0]:
                current[entry["scope"]] = (is_done, entry["fingerprint"])
        if working is not None:
            current[working.key] = (False, working.fingerprint)
        found: dict[tuple[str, str, str], Shard] = {}
        for number, entry in enumerate(entries):
            if entry["kind"] == "shard" and current[entry["scope"]][1] == entry["fingerprint"]:
                key = (entry["scope"], entry["table"], entry["shard"])
                found[key] = Shard(entry["table"], number, self._tables / entry["path"])
        return list(found.values())

    def live_shards(self, working: Scope | None = None) -> dict[str, list[Path]]:
        """Table to the files of `live`."""
        live: dict[str, list[Path]] = {}
        for shard in self.live(working):
            live.setdefault(shard.table, []).append(shard.path)
        return live

    def _append(self, entry: dict[str, Any]) -> None:
        append_line(
            self._path, entry | {"schema": SCHEMA_VERSION, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        )


def _file_part(scope: Scope) -> str:
    """The subject where a person can read it, and a digest because two subjects may read alike."""
    readable = re.sub(r"[^A-Za-z0-9_.-]", "_", scope.subject)[:80]
    return f"{readable}-{hashlib.sha256(scope.key.encode()).hexdigest()[:8]}"
