"""A workspace: its folders, its lock, and the read-only front door `open_workspace`."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from facviz.errors import WorkspaceError
from facviz.files import disk_errors, user_path, write_text_atomically
from facviz.prompts import use_tasks
from facviz.store.manifest import Manifest, Scope
from facviz.store.reader import Reader
from facviz.store.schema import SCHEMA_VERSION

META_FILE = "workspace.json"
TASKS_FOLDER = "tasks"
"""Tasks that somebody wrote for this workspace."""
POLL_SECONDS = 0.5


class Workspace:
    """One project's files; queries read through an in-memory DuckDB and return Arrow tables."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = Manifest(root / "tables")

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Workspace:
        """Open a workspace, making the folder when it is new or empty."""
        root = user_path(path)
        if root.exists() and not root.is_dir():
            raise WorkspaceError(f"{root} is a file; give a folder for --workspace.")
        if not (root / META_FILE).exists():
            if root.exists() and any(not p.name.startswith(f".{META_FILE}.") for p in root.iterdir()):
                raise WorkspaceError(f"{root} is not empty and no facviz workspace; choose an empty or new folder.")
            with disk_errors(root):
                root.mkdir(parents=True, exist_ok=True)
            write_text_atomically(root / META_FILE, json.dumps({"schema": SCHEMA_VERSION}) + "\n")
        return open_workspace(root)

    @property
    def meta(self) -> dict[str, Any]:
        """What is fixed once per workspace: schema version, chosen dtype."""
        path = self.root / META_FILE
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise WorkspaceError(
                f"{path} cannot be read ({error}); restore it or choose another --workspace."
            ) from error

    def remember(self, **values: object) -> None:
        """Add facts to `meta`."""
        write_text_atomically(self.root / META_FILE, json.dumps({**self.meta, **values}) + "\n")

    @contextmanager
    def lock(self, wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the only writer's lock; the system frees it even after a kill.

        While another process has it, `wait` is called every half second; without `wait`, WorkspaceError is raised.
        """
        path = self.root / ".lock"
        with disk_errors(path):
            file = path.open("a+")
        try:
            while not _take(file):
                if wait is None:
                    file.seek(0)
                    holder = file.read().strip() or "unknown"
                    raise WorkspaceError(
                        f"Another facviz (process {holder}) is writing to {self.root}; wait for it or stop it."
                    )
                wait()
                time.sleep(POLL_SECONDS)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            _sweep(self.root)
            yield
        finally:
            file.close()

    def reader(self, working: Scope | None = None) -> Reader:
        """A fresh view of every finished result; safe beside a running dashboard or stage.

        A stage that reads back what it wrote itself names the scope it is `working` on.
        """
        return Reader(self.manifest.live_shards(working), self.root / "events")

    def sae_folder(self, sae_id: str) -> Path:
        """Where an SAE's weights live."""
        return self.root / "sae" / sae_id

    def activations_folder(self, capture_id: str) -> Path:
        """Where captured activations live."""
        return self.root / "activations" / capture_id

    def features(self, sae_id: str | None = None) -> Any:
        """Features with statistics per dataset, as an Arrow table."""
        return self._query("features", sae_id=sae_id)

    def spans(self, feature_id: int, sae_id: str | None = None) -> Any:
        """Spans of one feature, strongest first, as an Arrow table."""
        return self._query("spans", feature_id=feature_id, sae_id=sae_id)

    def explanations(self, sae_id: str | None = None) -> Any:
        """Latest explanation of every feature, as an Arrow table."""
        return self._query("explanations", sae_id=sae_id)

    def coverage(self) -> Any:
        """Coverage runs, newest last, as an Arrow table."""
        return self._query("coverage")

    def samples(self) -> Any:
        """Accepted samples with target feature, activation and threshold, as an Arrow table."""
        return self._query("samples")

    def evaluations(self, eval_id: str | None = None) -> Any:
        """Measurements of whether samples help a head, per arm and seed and averaged, as an Arrow table."""
        return self._query("evaluations", eval_id=eval_id)

    def _query(self, name: str, **parameters: object) -> Any:
        with self.reader() as reader:
            return reader.named(name, **parameters)


def _take(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(root: Path) -> None:
    """Remove every `NAME.PID.tmp` that a kill in the middle of a write left; waiting jobs and the app write too."""
    for folder, _, names in os.walk(root):  # skips a folder that goes away meanwhile
        for name in names:
            if name.endswith(".tmp") and _is_gone(name.split(".")[-2]):
                (Path(folder) / name).unlink(missing_ok=True)


def _is_gone(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError, PermissionError):  # no process number: DuckDB's own; or somebody else's process
        return False
    return False


def open_workspace(path: str | os.PathLike[str]) -> Workspace:
    """An existing workspace, read-only by its methods; raises WorkspaceError when missing or newer than this facviz."""
    root = user_path(path)
    if not (root / META_FILE).exists():
        raise WorkspaceError(f"{root} is no facviz workspace; give the folder of an earlier run, or run a stage first.")
    workspace = Workspace(root)
    version = workspace.meta.get("schema", 0)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise WorkspaceError(
            f"{root} was written by a newer facviz (schema {version}, this one knows {SCHEMA_VERSION}); update facviz."
        )
    use_tasks(workspace.root / TASKS_FOLDER)
    return workspace
