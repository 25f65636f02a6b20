"""File formats of SAEs: each module says what it recognises a path by and reads it; `load_sae` finds the right one."""

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
    """One format: its name for people, how it is recognised, and how it is read.

    `sniff` gives what it recognised a path by, in a few words, or an empty string; it never raises.
    """

    title: str
    sniff: Callable[[Path], str]
    load: Callable[[Path], SAE]


FORMATS: dict[str, Format] = {
    "saelens": Format("SAELens", saelens.sniff, saelens.load),
}
"""In the order they are tried: what is recognised by more comes first."""


def recognise(path: Path) -> tuple[str, str]:
    """Name of the format of `path`, and what it was recognised by.

    Raises:
        SaeError: nothing is there, or no format fits.
    """
    if not path.exists():
        raise SaeError(f"There is no SAE at {path}; check the path.")
    for name, candidate in FORMATS.items():
        if why := candidate.sniff(path):
            return name, why
    raise SaeError(f"{path} is in no known SAE format; known: {', '.join(sorted(FORMATS))}.")


def load_sae(path: str | Path, format: str = "auto") -> SAE:
    """The SAE stored at `path`; `auto` recognises the format by its files, and the SAE's provenance says by what.

    Raises:
        SaeError: nothing is there, no format fits, or the SAE uses something facviz cannot express.
    """
    path = user_path(path)
    if format == "auto":
        format, _ = recognise(path)
    elif format not in FORMATS:
        raise SaeError(f"The SAE format {format!r} is unknown; use auto or one of {', '.join(sorted(FORMATS))}.")
    elif not path.exists():
        raise SaeError(f"There is no SAE at {path}; check the path.")
    return FORMATS[format].load(path)
