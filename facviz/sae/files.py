"""Writing files so that a reader sees the old ones or the whole new ones, never half of one or a mixture."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from facviz.errors import SaeError


def write_atomically(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Fill a temporary neighbour of every path, flush all to disk, then rename them into place in order.

    Of several files the last is the one readers look for: the old one goes away before any other is replaced.

    Raises:
        SaeError: the disk is full or the folder cannot be written; the old files are still there.
    """
    temporaries = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in writers}
    try:
        for path, write in writers.items():
            write(temporaries[path])
            _flush(temporaries[path])
        if len(writers) > 1:
            list(writers)[-1].unlink(missing_ok=True)
        for path, temporary in temporaries.items():
            temporary.replace(path)
    except Exception as error:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        where = next(iter(writers)).parent
        raise SaeError(f"Cannot write to {where} ({error}); free disk space or choose another folder.") from error


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
