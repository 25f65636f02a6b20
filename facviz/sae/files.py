"""Writing a file so that a reader sees the old one or the whole new one, never half of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from facviz.errors import SaeError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary neighbour of `path`, flush it to disk and rename it over `path`.

    Raises:
        SaeError: the disk is full or the folder cannot be written; the old file is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        temporary.unlink(missing_ok=True)
        raise SaeError(f"Cannot write {path} ({error}); free disk space or choose another folder.") from error
