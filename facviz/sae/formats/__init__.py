"""File formats of SAEs: each module says what it recognises a path by and reads it; `load_sae` finds the right one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from facviz.errors import SaeError
from facviz.files import user_path
from facviz.sae.formats import (
    batchtopk_repo,
    dictionary_learning,
    fac,
    gemma_scope,
    hub,
    llamascopium,
    openai,
    qwen_scope,
    saelens,
    sparsify,
)
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
    "sparsify": Format("sparsify", sparsify.sniff, sparsify.load),
    "dictionary_learning": Format("dictionary_learning", dictionary_learning.sniff, dictionary_learning.load),
    "batchtopk_repo": Format("BatchTopK repository", batchtopk_repo.sniff, batchtopk_repo.load),
    "gemma_scope": Format("Gemma Scope", gemma_scope.sniff, gemma_scope.load),
    "llamascopium": Format("Llamascopium and Llama Scope", llamascopium.sniff, llamascopium.load),
    "qwen_scope": Format("Qwen-Scope", qwen_scope.sniff, qwen_scope.load),
    "fac": Format("FAC-Synthesis", fac.sniff, fac.load),
    "fac-dense": Format("FAC-Synthesis, top-k off", fac.never, fac.load_dense),
    "openai": Format("OpenAI sparse_autoencoder", openai.sniff, openai.load),
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


def _located(path: str | Path) -> Path:
    """Where `path` is, fetched from the hub if it is a name there and nothing of that name is here.

    A file keeps the name it was given by: the hub's cache links names to blobs, and some formats go by the name.
    """
    resolved = user_path(path)
    if not resolved.exists() and hub.is_hub_name(str(path)):
        return hub.fetch(str(path))
    return Path(path).expanduser().absolute() if resolved.is_file() else resolved


def identify(path: str | Path, format: str = "auto") -> tuple[Path, str, str]:
    """Where `path` is, the name of its format, and by what `auto` recognised it.

    Where nothing is at `path` and it reads as `owner/repo` or `owner/repo/folder`, it is fetched from the hub.

    Raises:
        SaeError: nothing is there, or no format fits.
    """
    path = _located(path)
    if format == "auto":
        return path, *recognise(path)
    if format not in FORMATS:
        raise SaeError(f"The SAE format {format!r} is unknown; use auto or one of {', '.join(sorted(FORMATS))}.")
    if not path.exists():
        raise SaeError(f"There is no SAE at {path}; check the path.")
    return path, format, "the format that was asked for"


def load_sae(path: str | Path, format: str = "auto") -> SAE:
    """The SAE stored at `path` (as `identify` finds it); its provenance says what its format was recognised by.

    Raises:
        SaeError: nothing is there, no format fits, or the SAE uses something facviz cannot express.
    """
    located, name, _ = identify(path, format)
    return FORMATS[name].load(located)
