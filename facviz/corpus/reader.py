"""A dataset as a stream of distinct documents, with an account of every row that did not become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from facviz.config import DatasetConfig
from facviz.corpus.fields import FieldMapping
from facviz.corpus.files import TEXT_COLUMN, Row
from facviz.corpus.mapping import check_fit, check_mapping, list_fields, map_fields, map_lines
from facviz.corpus.shapes import RowError, build_documents
from facviz.corpus.sources import Source, SourceFile, hash_source, open_source
from facviz.corpus.wording import excerpt_of, quote_name, quote_names
from facviz.errors import InputError
from facviz.records import Document, DroppedRow

MAX_STORED_DROPS = 10_000
OTHER_REASONS = "other reasons"

_MAX_REASONS = 100
_GUESS_ROWS = 100


@dataclass(slots=True)
class CorpusReport:
    """What became of the rows.

    Except where `limit` stopped the reading, rows × documents a row = documents + duplicates + dropped × the same.
    """

    n_rows: int = 0
    n_documents: int = 0
    n_duplicates: int = 0
    n_label_conflicts: int = 0
    """Duplicates whose label differs from that of the document kept, the first."""
    dropped: list[DroppedRow] = field(default_factory=list)
    """The first 10,000 dropped rows; `dropped_by_reason` counts all."""
    dropped_by_reason: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    """Documents by label; those without one are not in it."""
    roles: dict[str, int] = field(default_factory=dict)
    """Messages by role."""
    n_files: int = 0
    """Files read."""
    skipped_files: dict[str, int] = field(default_factory=dict)
    """What a folder holds and is not read, by reason."""
    sha256: str = ""
    """Of the bytes on disk, and of the file names in a folder; empty until the iteration has finished."""

    @property
    def n_dropped(self) -> int:
        """Rows that became no document."""
        return sum(self.dropped_by_reason.values())

    def _add_drop(self, row: DroppedRow) -> None:
        is_known = row.reason in self.dropped_by_reason or len(self.dropped_by_reason) < _MAX_REASONS
        reason = row.reason if is_known else OTHER_REASONS
        self.dropped_by_reason[reason] = self.dropped_by_reason.get(reason, 0) + 1
        if len(self.dropped) < MAX_STORED_DROPS:
            self.dropped.append(row)

    def _add_document(self, document: Document) -> None:
        self.n_documents += 1
        if document.label is not None:
            self.labels[document.label] = self.labels.get(document.label, 0) + 1
        for message in document.messages:
            self.roles[message.role] = self.roles.get(message.role, 0) + 1


class CorpusReader:
    """Streams the documents of a file or folder; `report` tells the whole story once an iteration has finished.

    Raises:
        InputError: on construction for a missing file or contradictory settings, while iterating for a file that
            cannot be read, does not fit the first one of its folder, or yields no document.
    """

    def __init__(self, config: DatasetConfig, source: Source | None = None) -> None:
        if not config.path:
            raise InputError(f"Dataset {config.name} is drawn from another one and has no file; give it a `path`.")
        self.config = config
        self.report = CorpusReport()
        self.source = source or open_source(Path(config.path))
        self._has_label = False
        check_mapping(config, self.source.files[0].format)

    @cached_property
    def mapping(self) -> FieldMapping:
        """How rows become documents, guessed from the first file with rows; the first access reads some of them."""
        file, rows = self._first
        return map_lines(self.config, TEXT_COLUMN) if _is_lines(file) else map_fields(self.config, rows, file.name)

    @property
    def fields(self) -> list[str]:
        """Names of the fields in the first rows; none for plain text."""
        file, rows = self._first
        return [] if _is_lines(file) else list_fields(rows)

    @cached_property
    def _first(self) -> tuple[SourceFile, list[Mapping[str, Any]]]:
        """The first file with rows, and the rows to guess from."""
        reasons: Counter[str] = Counter()
        for file in self.source.files:
            rows: list[Mapping[str, Any]] = []
            for row in self.source.read(file):
                if isinstance(row, DroppedRow):
                    reasons[row.reason] += 1
                    continue
                rows.append(row[1])
                if len(rows) == _GUESS_ROWS:
                    break
            if rows:
                return file, rows
        raise self._no_documents(reasons, fields=[])

    def __iter__(self) -> Iterator[Document]:
        """Distinct documents in file order; starts a new `report`."""
        yield from self.stream()
        self._check_outcome(self.report)
        self.report.sha256 = hash_source(self.source.path)

    def stream(self) -> Iterator[Document]:
        """The same without the checks and the hash at the end, for a look at a part."""
        mapping = self.mapping
        report = self.report = CorpusReport(skipped_files=self.source.skipped)
        first_labels: dict[int, str | None] = {}
        for document in self._read_documents(mapping, report):
            key = int(document.doc_id, 16)  # half the memory of the string
            if key in first_labels:
                report.n_duplicates += 1
                report.n_label_conflicts += document.label != first_labels[key]
                continue
            first_labels[key] = document.label
            report._add_document(document)
            yield document
            if report.n_documents == self.config.limit:
                break

    def _read_documents(self, mapping: FieldMapping, report: CorpusReport) -> Iterator[Document]:
        self._has_label = False
        for file in self.source.files:
            report.n_files += 1
            place = file.name if self.source.is_folder else ""
            for row in self._read_rows(file, mapping):
                report.n_rows += 1
                if isinstance(row, DroppedRow):
                    report._add_drop(replace(row, file=place))
                    continue
                number, fields = row
                self._has_label = self._has_label or mapping.label_field in fields
                try:
                    documents = build_documents(fields, mapping)
                except RowError as error:
                    report._add_drop(DroppedRow(number, str(error), excerpt_of(fields), place))
                else:
                    yield from documents

    def _read_rows(self, file: SourceFile, mapping: FieldMapping) -> Iterator[Row]:
        """The rows of one file, which must fit the mapping unless it was taken from there."""
        rows = self.source.read(file)
        if file is self._first[0]:
            return rows
        head = list(islice(rows, _GUESS_ROWS))
        if objects := [row[1] for row in head if not isinstance(row, DroppedRow)]:
            check_fit(mapping, file.name, None if _is_lines(file) else objects, self._first[0].name)
        return chain(head, rows)

    def _check_outcome(self, report: CorpusReport) -> None:
        if not report.n_documents:
            raise self._no_documents(report.dropped_by_reason, self.fields)
        self.check_label_field()

    def check_label_field(self) -> None:
        """Raise `InputError` when none of the rows read so far had the label's field."""
        label_field = self.mapping.label_field
        if label_field and not self._has_label:
            raise InputError(
                f"{self.source.name} has no field {quote_name(label_field)} for the label;"
                f" set `label_field` to one of {quote_names(self.fields)}, or to the empty string for none."
            )

    def _no_documents(self, reasons: Mapping[str, int], fields: list[str]) -> InputError:
        name, n_rows = self.source.name, sum(reasons.values())
        if not n_rows:
            return InputError(f"{name} holds no rows; give a file with at least one document.")
        counts = ", ".join(f"{reason}: {n:,}" for reason, n in Counter(reasons).most_common(3))
        advice = f"set `text_field` or `shape` to fit its fields {quote_names(fields)}" if fields else "repair the file"
        return InputError(f"None of the rows of {name} became a document ({counts}); {advice}.")


def _is_lines(file: SourceFile) -> bool:
    return file.format == "txt"
