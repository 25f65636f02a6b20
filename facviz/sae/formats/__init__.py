"""File formats of SAEs: each module offers `sniff` and `load`; `load_sae` finds the one that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from facviz.errors import SaeError
from facviz.files import user_path
from facviz.sae.formats import saelens
from facviz.sae.model import SAE


@dataclass(frozen=True, slots=True)
class Format:
    """One format: whether a path looks like it, and how to read it."""

    sniff: Callable[[Path], bool]
    load: Callable[[Path], SAE]


FORMATS: dict[str, Format] = {"saelens": Format(saelens.sniff, saelens.load)}


def load_sae(path: str | Path, format: str = "auto") -> SAE:
    """The SAE stored at `path`; `auto` recognises the format by its files.

    Raises:
        SaeError: nothing is there, no format fits, or the SAE uses something facviz cannot express.
    """
    path = user_path(path)
    if not path.exists():
        raise SaeError(f"There is no SAE at {path}; check the path.")
    if format != "auto":
        return _format(format).load(path)
    for candidate in FORMATS.values():
        if candidate.sniff(path):
            return candidate.load(path)
    raise SaeError(f"{path} is in no known SAE format; known: {', '.join(sorted(FORMATS))}.")


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise SaeError(f"The SAE format {name!r} is unknown; use auto or one of {', '.join(sorted(FORMATS))}.")
    return FORMATS[name]
