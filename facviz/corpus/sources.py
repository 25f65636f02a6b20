"""What a path stands for: one file, or all readable files of a folder in a fixed order.

A folder is read as deep as it goes and never beyond: a link that leads out of it is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from facviz.corpus.files import FORMATS, Row, check_file, format_of, hash_file, read_rows
from facviz.corpus.wording import one_line, quote_name
from facviz.errors import InputError

MAX_ENTRIES = 100_000
"""A folder with more in it is taken for a mistake, such as a home folder."""

ABOUT_NAMES = {
    "license", "licence", "copying", "notice", "readme", "citation", "changelog", "dataset_info", "dataset_infos",
}  # fmt: skip
"""Names, without endings, of files that stand beside data and are none; given by their own path they are read."""

_NAME_CHARS = 300


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read; `name` is its path inside the folder, safe to print on one line."""

    path: Path
    name: str
    format: str


@dataclass(frozen=True)
class Source:
    """The files of one dataset, in reading order."""

    path: Path
    files: tuple[SourceFile, ...]
    is_folder: bool = False
    skipped: dict[str, int] = field(default_factory=dict)
    """Entries of the folder that are not read, by reason; a hidden folder counts once."""

    @property
    def name(self) -> str:
        """Last part of the path, for messages."""
        return one_line(self.path.name, _NAME_CHARS)

    def read(self, file: SourceFile) -> Iterator[Row]:
        """All rows of one of the files."""
        return read_rows(file.path, file.name)


def open_source(path: Path) -> Source:
    """The file at `path`, or the files below it sorted by relative path.

    Raises:
        InputError: nothing there can be read, or a link leads out of the folder.
    """
    if path.is_dir():
        return _list_folder(Path(os.path.realpath(path)))
    return Source(path, (SourceFile(path, one_line(path.name, _NAME_CHARS), check_file(path)),))


def hash_source(path: Path) -> str:
    """SHA-256, in hex, of a file's bytes, or of the names and contents of all files read in a folder."""
    try:
        if not path.is_dir():
            return hash_file(path)
        root = Path(os.path.realpath(path))
        contents = [[_relative(file.path, root), hash_file(file.path)] for file in _list_folder(root).files]
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{error.filename or path} cannot be read ({reason}); give the path of a data file or a folder of them."
        ) from error
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def _list_folder(root: Path) -> Source:
    skipped: Counter[str] = Counter()
    found: list[Path] = []
    for path in _walk(root):
        if reason := _reason_to_skip(path, root):
            skipped[reason] += 1
        else:
            found.append(path)
    if not found:
        left_out = "".join(f", {reason}: {n:,}" for reason, n in skipped.items())
        raise InputError(f"{root} is a folder without a file to read ({', '.join(FORMATS)}{left_out}); give another.")
    names = sorted((_relative(path, root), path) for path in found)
    files = tuple(SourceFile(path, one_line(name, _NAME_CHARS), format_of(path) or "") for name, path in names)
    return Source(root, files, is_folder=True, skipped=dict(skipped))


def _walk(root: Path) -> Iterator[Path]:
    """Everything below the folder except what hidden folders hold; links are named, not followed."""
    n_entries = 0
    for folder, subfolders, names in os.walk(root, onerror=_refuse_folder):
        n_entries += len(subfolders) + len(names)
        if n_entries > MAX_ENTRIES:
            raise InputError(f"{root} holds more than {MAX_ENTRIES:,} files; give a folder nearer to the data.")
        here = Path(folder)
        yield from (here / name for name in subfolders if _is_hidden(name) or (here / name).is_symlink())
        yield from (here / name for name in names)
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]


def _reason_to_skip(path: Path, root: Path) -> str:
    """Why a file or linked folder is not read; empty for one that is."""
    if _is_hidden(path.name):
        return "hidden"
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
        link = quote_name(_relative(path, root))
        raise InputError(f"The link {link} leads out of the folder {root}; put a copy of the file in its place.")
    if path.is_dir():
        return "a link to a folder"
    if format_of(path) is None:
        return "unknown ending"
    if path.name.lower().partition(".")[0] in ABOUT_NAMES:
        return "about the data"
    return "" if path.is_file() else "not a file"


def _refuse_folder(error: OSError) -> None:
    raise InputError(f"The folder {error.filename} cannot be read ({error.strerror}); check its permissions.")


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
