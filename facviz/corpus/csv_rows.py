"""CSV and TSV records in which a stray quote costs at most the line it stands on, and never in silence.

Default CSV reading lets a lone quote swallow the rows after it (known defect 28). Here a record that breaks the quoting
rules, or never ends, is given up at its first line, and reading resumes at the next.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from facviz.corpus.wording import one_line, quote_names
from facviz.errors import InputError
from facviz.records import DroppedRow

MAX_FIELD_CHARS = 8_000_000
"""A longer quoted field is taken for a quote that was never closed; this also bounds what is re-read after one."""

BAD_QUOTE = "a quote is opened and not closed as CSV asks"


class _Lines:
    """Physical lines of a file, with those of the current record kept for a second reading."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._stream = iter(stream)
        self._returned: deque[str] = deque()
        self._taken: list[str] = []
        self.number = 1  # line at which the current record starts

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._stream)
        self._taken.append(line)
        return line

    def begin_record(self) -> None:
        self.number += len(self._taken)
        self._taken = []

    def give_up_record(self) -> str:
        """Return all but the first line of the record to the stream, and that first line to the caller."""
        first, *rest = self._taken
        self._returned.extendleft(reversed(rest))
        self._taken = [first]
        return first


def read_csv(
    stream: Iterable[str], delimiter: str, file_name: str
) -> Iterator[tuple[int, dict[str, Any]] | DroppedRow]:
    """Rows with the line each starts at; the first record names the fields."""
    records = _read_records(stream, delimiter)
    header = next(records, None)
    if header is None:
        return
    if isinstance(header, DroppedRow):
        raise InputError(f"{file_name}: the header line has {BAD_QUOTE.removeprefix('a ')}; repair the first line.")
    names = header[1]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f"{file_name}: the column {quote_names(twice[:1])} stands twice in the header; rename one.")
    for record in records:
        if isinstance(record, DroppedRow):
            yield record
        elif len(record[1]) != len(names):
            reason = f"{len(record[1])} columns where the header has {len(names)}"
            yield DroppedRow(record[0], reason, one_line(delimiter.join(record[1])))
        else:
            yield record[0], dict(zip(names, record[1]))


def _read_records(stream: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]] | DroppedRow]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARS))
    lines = _Lines(stream)
    while True:
        lines.begin_record()
        try:
            # A reader per record: after an error the old one may still be inside the quotes.
            record = next(csv.reader(lines, delimiter=delimiter, strict=True))
        except StopIteration:
            return
        except csv.Error:
            yield DroppedRow(lines.number, BAD_QUOTE, one_line(lines.give_up_record()))
            continue
        if record:
            yield lines.number, record
