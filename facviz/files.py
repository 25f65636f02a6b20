"""Durable small writes: what a kill at any moment may leave behind is decided here, once, for every stage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from facviz.errors import InputError, WorkspaceError


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


def append_line(path: Path, entry: Mapping[str, Any]) -> int:
    """Append one JSON line and fsync; the bytes that the file grew by.

    A line torn by an earlier kill is closed first so it cannot swallow this one.
    """
    line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    return len(line)


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path as a person typed it, absolute, `~` resolved."""
    try:
        return Path(text).expanduser().resolve()
    except RuntimeError as error:
        raise InputError(f"The home folder in {os.fspath(text)} does not exist; write the path without `~`.") from error


def write_files(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Write files of one folder so that a reader sees the old ones or the whole new ones, durably.

    Each writer fills a temporary neighbour; all are flushed, then renamed in order. Of several files the last is the
    one readers look for: the old one goes away before any other is replaced.

    Raises:
        WorkspaceError: the disk is full or the folder cannot be written; nothing half-written stays behind.
    """
    paths = list(writers)
    temporaries = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths}
    with disk_errors(paths[0]):
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        try:
            for path, write in writers.items():
                write(temporaries[path])
                sync_file(temporaries[path])
            if len(paths) > 1:
                paths[-1].unlink(missing_ok=True)
            for path, temporary in temporaries.items():
                temporary.replace(path)
        finally:
            for temporary in temporaries.values():
                temporary.unlink(missing_ok=True)  # after a full disk, what was written must not stay and fill it
        sync_file(paths[0].parent)


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a small file as a whole, durably."""
    write_files({path: lambda temporary: temporary.write_text(text, encoding="utf-8")})


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
        if isinstance(error, OSError | SafetensorError):
            reason = getattr(error, "strerror", None) or str(error)
            raise WorkspaceError(
                f"Cannot write {self._path} ({reason}); free space or change --workspace; finished work is kept."
            ) from error
