"""The demo workspace: where it ships, how it is installed, and how a person gets the original back.

What ships is a finished workspace without the SAE's weights, which lie once beside it. Installing copies both; nothing
here writes into the checkout.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import facviz
from facviz.errors import WorkspaceError
from facviz.files import disk_errors, sync_file, user_path
from facviz.store.workspace import META_FILE, Workspace, open_workspace

DEMO_FOLDER = Path(facviz.__file__).resolve().parents[1] / "data" / "demo"
MARK = "demo"
"""Key of `workspace.json` that names which demo this is; a workspace without it is somebody's own."""
_STAMP = "%Y%m%d-%H%M%S-%f"
_STAMP_PATTERN = r"\d{8}-\d{6}-\d{6}"


def default_target() -> Path:
    """`$XDG_DATA_HOME/facviz/demo`, else `~/.local/share/facviz/demo`."""
    base = os.environ.get("XDG_DATA_HOME")
    return user_path(Path(base) if base else "~/.local/share") / "facviz" / "demo"


def install_demo(target: str | os.PathLike[str] | None = None, source: Path | None = None) -> Path:
    """The folder of the demo workspace, copied there when there is no workspace yet.

    Raises:
        WorkspaceError: the folder holds something else, cannot be written, or nothing ships with this installation.
    """
    root = default_target() if target is None else user_path(target)
    if (root / META_FILE).exists():
        return open_workspace(root).root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise WorkspaceError(f"{root} is not empty and no facviz workspace; choose an empty or new folder.")
    with _fresh_copy(source, root) as copy:
        _move_in(copy, root)
    return root


def reset_demo(target: str | os.PathLike[str] | None = None, source: Path | None = None) -> tuple[Path, Path | None]:
    """The demo as it shipped, and where the one in use until now is kept until the next reset.

    Raises:
        WorkspaceError: the folder holds another workspace than the demo, or a stage is writing to it.
    """
    root = default_target() if target is None else user_path(target)
    if not (root / META_FILE).exists():
        return install_demo(root, source), None
    workspace = open_workspace(root)
    if not demo_id(workspace):
        raise WorkspaceError(f"{root} is not the demo but a workspace of your own; name the demo's with --workspace.")
    earlier = _kept_before(root)
    kept = root.with_name(f"{root.name}-{datetime.now(UTC).strftime(_STAMP)}")
    with workspace.lock(), _fresh_copy(source, root) as copy:
        root.rename(kept)
        copy.rename(root)
    for folder in earlier:
        shutil.rmtree(folder)
    return root, kept


def demo_id(workspace: Workspace) -> str:
    """Which shipped demo a workspace began as; empty for any other workspace."""
    return str(workspace.meta.get(MARK, ""))


def describe_demo(root: Path, source: Path | None = None) -> dict[str, Any]:
    """Its path, and whether it began as the demo that ships with this version."""
    found = demo_id(open_workspace(root))
    return {"workspace": str(root), "is_demo": bool(found), "is_current": found == demo_id(shipped_workspace(source))}


def shipped_workspace(source: Path | None = None) -> Workspace:
    """The packed workspace beside its sources."""
    source = source or DEMO_FOLDER
    if not (source / "workspace" / META_FILE).exists():
        raise WorkspaceError(
            f"No demo ships with this installation ({source} is not there); run facviz from a clone of its repository."
        )
    return open_workspace(source / "workspace")


@contextmanager
def _fresh_copy(source: Path | None, root: Path) -> Iterator[Path]:
    """A complete copy under a temporary name beside `root`, which a kill may leave but nobody takes for a workspace."""
    shipped = shipped_workspace(source)
    copy = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    with disk_errors(root):
        shutil.rmtree(copy, ignore_errors=True)
        try:
            _copy_files(shipped.root, copy)
            for sae_id in shipped.manifest.latest_done("sae"):
                _copy_files(shipped.root.with_name("sae"), Workspace(copy).sae_folder(sae_id) / "weights")
            yield copy
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def _copy_files(source: Path, target: Path) -> None:
    """Contents without permissions: a checkout may be read-only, its copy must not be."""
    for file in sorted(source.rglob("*")):
        if file.is_file():
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            sync_file(copy)


def _move_in(copy: Path, root: Path) -> None:
    try:
        copy.rename(root)
    except OSError:
        if not (root / META_FILE).exists():  # otherwise another process installed it first
            raise


def _kept_before(root: Path) -> list[Path]:
    """Demos put aside by earlier resets; a folder that only looks like one is left alone."""
    if not root.parent.is_dir():
        return []
    pattern = re.compile(re.escape(root.name) + "-" + _STAMP_PATTERN)
    named = [p for p in root.parent.iterdir() if pattern.fullmatch(p.name) and (p / META_FILE).exists()]
    return [p for p in named if demo_id(Workspace(p))]
