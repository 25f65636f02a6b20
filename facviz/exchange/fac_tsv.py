"""The TSV files of the published FAC code, read by column name and written so that its scripts can read them.

One line is one feature. Inside a cell a line break is the two characters backslash and n, a tab backslash and t; quotes
mean nothing. `Verify` is a verdict, `Task` a verdict, `|||` and the judge's analysis. The published readers take
columns by position, skip what they cannot parse and let any other verdict count as no (known defects 24, 26 and 28):
here each such line is reported, and "cannot tell", "not judged" and "unreadable" are outcomes of their own.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from facviz.corpus.wording import clean_text, one_line, quote_names
from facviz.errors import InputError
from facviz.exchange.cells import guard, unguard
from facviz.records import DroppedRow, ExplanationOutcome, Verdict

ID, TASK, VERIFY, SUMMARY, WORDS = "FeatureID", "Task", "Verify", "Summary", "Words"
SEPARATOR = "|||"
NOTHING = "-"
CANNOT_TELL = "Cannot Tell."
MAX_LINE_CHARS = 8_000_000


class Decision(StrEnum):
    """What a verdict cell says; only the first four are verdicts."""

    YES = "yes"
    PROBABLY = "probably"
    MAYBE = "maybe"
    NO = "no"
    CANNOT_TELL = "cannot_tell"
    NOT_JUDGED = "not_judged"
    UNREADABLE = "unreadable"

    @property
    def verdict(self) -> Verdict | None:
        """The verdict, where it is one."""
        return Verdict(self.value) if self.value in set(Verdict) else None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict cell: the decision, the words it was read from, and the analysis, None where the cell has none."""

    decision: Decision
    words: str
    analysis: str | None = None

    @classmethod
    def parse(cls, cell: str) -> Judgement:
        """`decision|||analysis`, or the decision alone, in any case."""
        words, separator, analysis = cell.partition(SEPARATOR)
        said = re.sub(r"[\s_]+", "_", words.strip(" \n[].'\"").lower())
        if said in ("", NOTHING):
            decision = Decision.NOT_JUDGED
        else:
            decision = Decision(said) if said in _SPOKEN else Decision.UNREADABLE
        return cls(decision, words, analysis if separator else None)

    @classmethod
    def of(cls, verdict: Verdict | None, analysis: str | None = None) -> Judgement:
        """The cell for a verdict; None is not judged."""
        if verdict is None:
            return cls(Decision.NOT_JUDGED, NOTHING)
        return cls(Decision(verdict.value), verdict.value, analysis)

    @property
    def cell(self) -> str:
        """As it stands in the file."""
        return self.words if self.analysis is None else f"{self.words}{SEPARATOR}{self.analysis}"


_SPOKEN = {*Verdict, Decision.CANNOT_TELL.value}


@dataclass(frozen=True, slots=True)
class FacRow:
    """One feature of a file; what its file has no column for is None."""

    feature_id: int
    words: str | None = None
    summary: str | None = None
    verify: Judgement | None = None
    task: Judgement | None = None
    line: int = 0

    @property
    def has_spans(self) -> bool:
        """Whether the feature fired: published files have a line for every feature, with spans only for those."""
        return self.words is None or "span" in self.words.lower()

    @property
    def outcome(self) -> ExplanationOutcome | None:
        """What came of explaining it; None where nobody tried."""
        said = (self.summary or "").strip(" .\n").lower()
        if said in ("", NOTHING):
            return None
        return ExplanationOutcome.CANNOT_TELL if said == "cannot tell" else ExplanationOutcome.EXPLAINED


@dataclass(frozen=True, slots=True)
class FacTable:
    """A file as read: `malformed` lines gave no row; those with an `unreadable` verdict gave one that says so."""

    columns: tuple[str, ...]
    rows: tuple[FacRow, ...]
    malformed: tuple[DroppedRow, ...]
    unreadable: tuple[DroppedRow, ...]


def read_fac_tsv(path: Path, *, task_column: str = TASK) -> FacTable:
    """Every line of a file as a row or as a reported problem.

    Raises:
        InputError: the file cannot be read, is empty, or its header has no FeatureID or names a column twice.
    """
    lines = _numbered_lines(path)
    header = next(lines, None)
    if header is None or not isinstance(header[1], str):
        raise InputError(f"{path.name} has no readable header line; give a FAC TSV file in UTF-8.")
    columns = tuple(name.strip() for name in header[1].split("\t"))
    _check_header(path, columns)
    rows: dict[int, FacRow] = {}
    malformed: list[DroppedRow] = []
    unreadable: list[DroppedRow] = []
    for number, line in lines:
        cells, reason = _cells(line, len(columns))
        row = None if reason else _row(number, dict(zip(columns, cells)), task_column)
        if isinstance(row, FacRow) and row.feature_id in rows:
            row = f"feature {row.feature_id} stands already on line {rows[row.feature_id].line}"
        if not isinstance(row, FacRow):
            malformed.append(DroppedRow(number, reason or str(row), _excerpt(line), path.name))
            continue
        rows[row.feature_id] = row
        unreadable += [
            DroppedRow(number, f"the verdict {one_line(j.words, 60)!r} is none of yes, probably, maybe, no", name)
            for name, j in ((task_column, row.task), (VERIFY, row.verify))
            if j is not None and j.decision is Decision.UNREADABLE
        ]
    return FacTable(columns, tuple(rows.values()), tuple(malformed), tuple(unreadable))


def fac_tsv_text(rows: Iterable[FacRow], columns: Sequence[str]) -> str:
    """The text of a file with these of the five columns; carriage returns are left out, as the published code does."""
    lines = ["\t".join(columns), *("\t".join(_cell(row, name) for name in columns) for row in rows)]
    return "\n".join(lines) + "\n"


def words_of(spans: Iterable[str]) -> str:
    r"""A `Words` cell: numbered spans, one a line.

    >>> words_of(["drop table", "drop it"])
    'Span 1: drop table\nSpan 2: drop it'
    """
    return "\n".join(f"Span {n}: {text}" for n, text in enumerate(spans, start=1))


def _cell(row: FacRow, column: str) -> str:
    value = {
        ID: str(row.feature_id),
        TASK: (row.task or Judgement.of(None)).cell,
        VERIFY: (row.verify or Judgement.of(None)).cell,
        SUMMARY: NOTHING if row.summary is None else row.summary,
        WORDS: row.words or "",
    }[column]
    safe = value if value == NOTHING else guard(clean_text(value).replace("\r", ""))
    return safe.replace("\n", "\\n").replace("\t", "\\t")


def _check_header(path: Path, columns: Sequence[str]) -> None:
    if ID not in columns:
        raise InputError(f"{path.name} has no column {ID}, only {quote_names(columns)}; give a FAC TSV file.")
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise InputError(f"The column {quote_names(twice[:1])} stands twice in {path.name}; rename one.")


def _row(number: int, cells: dict[str, str], task_column: str) -> FacRow | str:
    """The row of a line, or why there is none."""
    name = cells[ID].strip()
    if not (name.isascii() and name.isdigit() and len(name) < 10):
        return f"{one_line(name, 60)!r} is no feature id"
    texts = {n: unguard(c.replace("\\n", "\n").replace("\\t", "\t")) for n, c in cells.items() if n != ID}
    return FacRow(
        int(name),
        words=texts.get(WORDS),
        summary=texts.get(SUMMARY),
        verify=Judgement.parse(texts[VERIFY]) if VERIFY in texts else None,
        task=Judgement.parse(texts[task_column]) if task_column in texts else None,
        line=number,
    )


def _cells(line: str | bytes, n_columns: int) -> tuple[list[str], str]:
    """The cells of a line, or why it has none: as published, else as a CSV writer would have quoted them."""
    if isinstance(line, bytes):
        return [], "it is not UTF-8"
    if not line.strip():
        return [], "it is empty"
    if len(line) > MAX_LINE_CHARS:
        return [], f"it is longer than {MAX_LINE_CHARS:,} characters"
    cells = line.split("\t")
    if len(cells) == n_columns:
        return [_unquoted(cell) for cell in cells], ""
    reason = f"{len(cells)} columns where the header has {n_columns}"
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_CHARS))
    try:
        quoted = next(csv.reader([line], delimiter="\t", strict=True))
    except csv.Error:
        return [], reason
    return (quoted, "") if len(quoted) == n_columns else ([], reason)


def _unquoted(cell: str) -> str:
    """A cell as it was before a CSV writer quoted it for the quotes in it; a published one has no reason to look so."""
    inner = cell[1:-1]
    is_quoted = len(cell) > 2 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else cell


def _numbered_lines(path: Path) -> Iterator[tuple[int, str | bytes]]:
    """Lines with their numbers from 1; bytes where they do not decode. Empty lines at the end are no lines."""
    pending: list[tuple[int, str | bytes]] = []
    for number, line in enumerate(_raw_lines(path), start=1):
        if not line.strip():
            pending.append((number, line))
            continue
        yield from pending
        pending.clear()
        yield number, line


def _raw_lines(path: Path) -> Iterator[str | bytes]:
    try:
        with path.open("rb") as file:
            if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                with path.open(encoding="utf-16", newline="\n") as text:
                    yield from (line.rstrip("\r\n") for line in text)
                return
            file.seek(0)
            for number, raw in enumerate(file):
                line = raw.rstrip(b"\r\n")
                try:
                    yield line.decode("utf-8-sig" if number == 0 else "utf-8")
                except UnicodeDecodeError:
                    yield line
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except UnicodeError as error:
        raise InputError(f"{path.name} breaks off in the middle of a UTF-16 character; save it as UTF-8.") from error


def _excerpt(line: str | bytes) -> str:
    return one_line(line if isinstance(line, str) else line[:400].decode("utf-8", "replace"))
