"""What file names, hook names and header shapes tell about a checkpoint; shared by the format modules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facviz.errors import SaeError
from facviz.sae.formats.saelens import layer_of


def metadata_of(hook_name: str | None, **known: Any) -> dict[str, Any]:
    """`known` without what is None, plus the hook in SAELens' words and, in the residual stream, its hidden state."""
    layer = None if hook_name is None else layer_of(hook_name)
    found = known | {"hook_name": hook_name, "layer": layer}
    return {key: value for key, value in found.items() if value is not None}


def named_file(path: Path, pattern: str) -> Path | None:
    """`path` if its name matches `pattern` (case ignored), or the only such file in the folder `path`; never raises."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        matching = [file for file in files if re.fullmatch(pattern, file.name, re.IGNORECASE) and file.is_file()]
    except OSError:
        return None
    return matching[0] if len(matching) == 1 else None


def last_match(pattern: str, path: Path) -> re.Match[str] | None:
    """Match of `pattern` (case ignored) in the innermost part of `path` that has one."""
    matches = (re.search(pattern, part, re.IGNORECASE) for part in reversed(path.parts))
    return next((match for match in matches if match), None)


def matrix_shape(shapes: Mapping[str, tuple[int, ...]], name: str, path: Path) -> tuple[int, int]:
    """Shape of the matrix `name`.

    Raises:
        SaeError: it is missing, no matrix, or empty.
    """
    shape = tuple(shapes.get(name, ()))
    if len(shape) != 2 or 0 in shape:
        raise SaeError(f"{path} has no matrix {name}; fetch it again or name its format.")
    return shape[0], shape[1]
