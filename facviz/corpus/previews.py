"""What importing a file or folder would give, seen from its beginning, at a cost that does not grow with its size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from facviz.config import DatasetConfig
from facviz.corpus.budget import BudgetSpentError, ByteBudget
from facviz.corpus.files import Row, read_rows
from facviz.corpus.reader import CorpusReader
from facviz.corpus.sources import Source, SourceFile, open_source
from facviz.errors import InputError
from facviz.records import Document, DroppedRow

MAX_ROWS = 2_000
MAX_BYTES = 20_000_000


@dataclass(frozen=True, slots=True)
class CorpusPreview:
    """The beginning of a corpus as documents; counts are of the rows read, which are all when `is_complete`."""

    mapping: str
    """How the fields are understood, on one line."""
    shape: str
    fields: tuple[str, ...]
    """Names of the fields in the first rows, to choose others from; none for plain text."""
    n_rows: int
    n_documents: int
    n_duplicates: int
    documents: tuple[Document, ...]
    """The first ones."""
    dropped: tuple[DroppedRow, ...]
    """The first ones."""
    dropped_by_reason: dict[str, int]
    labels: dict[str, int]
    """Documents by label."""
    n_files: int
    """Files there are to read, also those not reached."""
    skipped_files: dict[str, int]
    """What a folder holds and is not read, by reason."""
    is_complete: bool


@dataclass(frozen=True)
class _Excerpt(Source):
    """The first rows of a source, held in memory so that guessing and reading see the same ones."""

    rows: dict[Path, list[Row]] = field(default_factory=dict)

    def read(self, file: SourceFile) -> Iterator[Row]:
        return iter(self.rows[file.path])


def preview(path: Path, config: DatasetConfig, n: int = 20) -> CorpusPreview:
    """The first `n` documents and dropped rows under these settings, from at most 2,000 rows and 20 MB.

    `config.path` and `config.limit` are not looked at. Bytes count after decompression.

    Raises:
        InputError: the file cannot be read, or its fields do not fit the settings; a file whose rows are all dropped
            gives a preview that says why.
    """
    source = open_source(path)
    excerpt, is_complete = _read_excerpt(source)
    reader = CorpusReader(replace(config, path=str(path), sample=None, limit=None), excerpt)
    documents = [document for i, document in enumerate(reader.stream()) if i < n]
    report = reader.report
    if is_complete and documents:
        reader.check_label_field()
    return CorpusPreview(
        mapping=reader.mapping.describe(),
        shape=reader.mapping.shape,
        fields=tuple(reader.fields),
        n_rows=report.n_rows,
        n_documents=report.n_documents,
        n_duplicates=report.n_duplicates,
        documents=tuple(documents),
        dropped=tuple(report.dropped[:n]),
        dropped_by_reason=report.dropped_by_reason,
        labels=report.labels,
        n_files=len(source.files),
        skipped_files=source.skipped,
        is_complete=is_complete,
    )


def _read_excerpt(source: Source) -> tuple[_Excerpt, bool]:
    """The first rows, and whether these are all."""
    budget = ByteBudget(MAX_BYTES)
    rows: dict[Path, list[Row]] = {}
    n_rows = 0
    is_complete = True
    try:
        for file in source.files:
            kept = rows.setdefault(file.path, [])
            for row in read_rows(file.path, file.name, budget):
                if n_rows == MAX_ROWS:
                    raise BudgetSpentError
                kept.append(row)
                n_rows += 1
    except BudgetSpentError:
        if not n_rows:
            raise InputError(
                f"The first {MAX_BYTES // 10**6} MB of {source.name} hold no whole row; import it without a preview."
            ) from None
        is_complete = False
    reached = tuple(file for file in source.files if file.path in rows)
    return _Excerpt(source.path, reached, source.is_folder, source.skipped, rows), is_complete
