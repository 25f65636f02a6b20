"""What may come in from a browser: paths only under allowed folders, uploads only under names made here."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from facviz.errors import InputError
from facviz.files import disk_errors, user_path, write_files

ROOTS_VARIABLE = "FACVIZ_IMPORT_ROOTS"
"""Folders, separated as in PATH, that paths typed into the browser may lie under beside the two usual ones."""
UPLOADS = "uploads"
_MAX_NAME = 80


def import_roots(root: Path) -> list[Path]:
    """The workspace, the folder the dashboard was started in, and what `FACVIZ_IMPORT_ROOTS` names."""
    named = [user_path(part) for part in os.environ.get(ROOTS_VARIABLE, "").split(os.pathsep) if part.strip()]
    started_in = Path.cwd().resolve()
    usual = [root.resolve(), *([started_in] if started_in != Path(started_in.anchor) else [])]
    return list(dict.fromkeys([*usual, *named]))


def allowed_path(text: str, root: Path) -> Path:
    """A path typed into the browser, links resolved; a relative one is taken from the start folder.

    Raises:
        InputError: it lies outside the allowed folders or there is nothing there.
    """
    try:
        path = user_path(text.strip())
        is_there = path.exists()
    except (ValueError, OSError) as error:  # a NUL, a name too long, a circle of links
        raise InputError("That is no path; type the path of a file or folder.") from error
    roots = import_roots(root)
    if not any(path.is_relative_to(allowed) for allowed in roots):
        folders = ", ".join(map(str, roots))
        raise InputError(f"{path} lies outside {folders}; move it there or name its folder in {ROOTS_VARIABLE}.")
    if not is_there:
        raise InputError(f"There is nothing at {path}; check the path.")
    return path


def save_upload(root: Path, client_name: str, content: bytes) -> Path:
    """Keep an upload in the workspace under its digest and a safe form of its name; the same bytes are kept once."""
    digest = hashlib.sha256(content).hexdigest()[:8]
    path = root / UPLOADS / f"{digest}-{safe_name(client_name)}"
    with disk_errors(path):
        is_kept = path.is_file() and path.stat().st_size == len(content)
    if not is_kept:
        write_files({path: lambda temporary: temporary.write_bytes(content)})
    return path


def safe_name(client_name: str) -> str:
    """The last part of a client's file name in plain letters, its ending kept: never a path, never hidden."""
    last = re.split(r"[/\\]", client_name)[-1]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", last).lstrip("._-")
    return plain[-_MAX_NAME:].lstrip("._-") or "upload"


def dataset_name(file_name: str, taken: list[str]) -> str:
    """A name to suggest for a dataset from this file: its stem, numbered when it is taken."""
    stem = re.sub(r"^[0-9a-f]{8}-", "", safe_name(file_name)).split(".")[0][:56] or "data"
    numbered = (stem if i == 1 else f"{stem}-{i}" for i in range(1, len(taken) + 2))
    return next(name for name in numbered if name not in taken)
