"""Durable small writes: what a kill at any moment may leave behind is decided here, once, for every stage."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facviz.errors import WorkspaceError


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of an append-only file; a missing file is empty and a line torn by a kill is not an entry."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    entries = []
    for line in raw.split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Append one JSON line and fsync; a line torn by an earlier kill is closed first so it cannot swallow this one."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(entry, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
            file.flush()
            os.fsync(file.fileno())


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a small file as a whole, durably."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8")
        sync_file(temporary)
        temporary.replace(path)


def sync_file(path: Path) -> None:
    """Force a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class disk_errors:  # noqa: N801
    """Context that turns disk failures into one sentence naming the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise WorkspaceError(
                f"Cannot write {self._path} ({reason}); free space or change --workspace; finished work is kept."
            ) from error
