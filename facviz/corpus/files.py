"""From a file on disk to rows: formats, compression and encodings. What the fields mean is decided elsewhere.

A row comes with its number, counted from 1: the line it starts at, or the item of a JSON list or Parquet file. A row
that cannot be decoded comes as a `DroppedRow`; a file that cannot be read raises `InputError`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from facviz.corpus.budget import ByteBudget, meter
from facviz.corpus.csv_rows import read_csv
from facviz.corpus.json_stream import read_json_items
from facviz.corpus.wording import one_line
from facviz.errors import InputError
from facviz.records import DroppedRow

Row: TypeAlias = tuple[int, dict[str, Any]] | DroppedRow

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "txt",
}
MAX_LINE_CHARS = 32_000_000
TEXT_COLUMN = "text"
"""Field under which the lines of a plain-text file appear."""

_PARQUET_BATCH_ROWS = 256
_BUDGETED_BATCH_ROWS = 32
_PARQUET_BUFFER_BYTES = 1 << 16
"""Column chunks are read page by page; without a buffer, or with `pre_buffer`, each would be in memory as a whole."""


def format_of(path: Path) -> str | None:
    """Format by the file's ending; None for an unknown one."""
    return FORMATS.get(Path(path.name.lower().removesuffix(".gz")).suffix)


def check_file(path: Path) -> str:
    """Format of an existing file, by its ending.

    Raises:
        InputError: there is no such file, it is a folder, or the ending is unknown.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the path of one file in it.")
    if not path.is_file():
        raise InputError(f"There is no file {path}; check the path.")
    file_format = format_of(path)
    if file_format is None:
        raise InputError(f"{path.name} has an unknown ending; known are {', '.join(FORMATS)}, each also with .gz.")
    return file_format


def hash_file(path: Path) -> str:
    """SHA-256 of the bytes on disk, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_rows(path: Path, name: str = "", budget: ByteBudget | None = None) -> Iterator[Row]:
    """All rows of the file in order, one in memory at a time (Parquet: 256); messages call the file by `name`.

    Raises:
        InputError: the file cannot be read in its format.
        BudgetSpentError: the budget ends before the file; every row before that has been given.
    """
    file_format = check_file(path)
    name = name or path.name
    with _explain_errors(path, name):
        if file_format == "parquet":
            yield from _read_parquet(path, name, budget)
        else:
            with _open_text(path, "" if file_format in ("csv", "tsv") else None, budget) as stream:
                yield from _read_text_format(stream, file_format, name)


def _read_text_format(stream: TextIO, file_format: str, file_name: str) -> Iterator[Row]:
    if file_format == "jsonl":
        return _read_jsonl(stream)
    if file_format == "json":
        return (_as_row(no, item) for no, item in enumerate(read_json_items(stream, file_name), start=1))
    if file_format == "txt":
        return _read_txt(stream)
    return read_csv(stream, "\t" if file_format == "tsv" else ",", file_name)


def _as_row(number: int, value: object) -> Row:
    if isinstance(value, dict):
        return number, value
    return DroppedRow(number, "not an object", one_line(repr(value)))


def _read_jsonl(stream: TextIO) -> Iterator[Row]:
    for number, line in _read_lines(stream):
        if line is None:
            yield _too_long(number)
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield DroppedRow(number, "invalid JSON", one_line(line))
        else:
            yield _as_row(number, value)


def _read_txt(stream: TextIO) -> Iterator[Row]:
    for number, line in _read_lines(stream):
        yield _too_long(number) if line is None else (number, {TEXT_COLUMN: line})


def _too_long(number: int) -> DroppedRow:
    return DroppedRow(number, "too long", f"a line of more than {MAX_LINE_CHARS:,} characters")


def _read_lines(stream: TextIO) -> Iterator[tuple[int, str | None]]:
    """Numbered lines that are not blank; None for one longer than `MAX_LINE_CHARS`, which is never held whole."""
    number = 0
    while line := stream.readline(MAX_LINE_CHARS):
        number += 1
        if line.endswith("\n") or len(line) < MAX_LINE_CHARS:
            if line.strip():
                yield number, line.removesuffix("\n")
            continue
        while line and not line.endswith("\n"):
            line = stream.readline(MAX_LINE_CHARS)
        yield number, None


def _read_parquet(path: Path, name: str, budget: ByteBudget | None) -> Iterator[Row]:
    import pyarrow  # noqa: ICN001  heavy, and only this format needs it
    from pyarrow.parquet import ParquetFile

    with tempfile.TemporaryFile() as unpacked:
        if _is_gzip(path):  # Parquet is read from its end, which gzip cannot seek to
            with _open_bytes(path, budget) as packed:
                shutil.copyfileobj(packed, unpacked)
        try:
            number = 0
            source = unpacked if _is_gzip(path) else path
            with ParquetFile(source, buffer_size=_PARQUET_BUFFER_BYTES, pre_buffer=False) as table:
                for batch in table.iter_batches(_BUDGETED_BATCH_ROWS if budget else _PARQUET_BATCH_ROWS):
                    if budget:
                        budget.check()
                        budget.spend(batch.nbytes)
                    for row in batch.to_pylist():
                        number += 1
                        yield number, row
        except (pyarrow.ArrowException, ValueError, OSError) as error:
            raise InputError(
                f"{name} cannot be read as Parquet ({one_line(str(error), 120).rstrip('.')}); write it again."
            ) from error


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _open_bytes(path: Path, budget: ByteBudget | None = None) -> BufferedReader:
    if budget:
        return meter(gzip.open(path, "rb") if _is_gzip(path) else path.open("rb", buffering=0), budget)
    return BufferedReader(gzip.open(path, "rb")) if _is_gzip(path) else path.open("rb")


@contextmanager
def _open_text(path: Path, newline: str | None, budget: ByteBudget | None) -> Iterator[TextIO]:
    with _open_bytes(path, budget) as binary, TextIOWrapper(binary, _encoding_of(binary), newline=newline) as stream:
        yield stream


def _encoding_of(binary: BufferedReader) -> str:
    return "utf-16" if binary.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


@contextmanager
def _explain_errors(path: Path, name: str) -> Iterator[None]:
    """Turn what decoding raises into one sentence that says what to do."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(_describe_bad_bytes(path, name)) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{name} is not a whole gzip file; compress it again or give it uncompressed.") from error
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror or error}); check its permissions.") from error


def _describe_bad_bytes(path: Path, name: str) -> str:
    """Where the first undecodable byte stands; read again line by line, since decoders only know their chunk."""
    offset = 0
    with _open_bytes(path) as binary:
        if _encoding_of(binary) == "utf-16":
            return f"{name} begins like UTF-16 and is not; convert it to UTF-8."
        for number, line in enumerate(iter(lambda: binary.readline(MAX_LINE_CHARS), b""), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = offset + error.start + 1
                return f"{name} is not UTF-8 at line {number:,}, byte {byte:,} of the file; convert it to UTF-8."
            offset += len(line)
    return f"{name} is not UTF-8; convert it to UTF-8."
