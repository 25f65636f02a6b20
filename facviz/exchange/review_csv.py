"""Explanations and verdicts as a CSV for a spreadsheet, and what came back changed.

A file carries beside each text and verdict what it was when it was written (`previous_…`): what differs from that is a
change, and a change of something the workspace has changed since is a conflict.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from facviz.corpus.csv_rows import read_csv
from facviz.corpus.wording import clean_text, excerpt_of, quote_names
from facviz.errors import InputError
from facviz.exchange.cells import guard, unguard
from facviz.records import DroppedRow, Verdict

COLUMNS = (
    "sae_id", "feature_id", "explanation", "explained_by", "status", "task", "verdict", "judged_by",
    "previous_explanation", "previous_verdict",
)  # fmt: skip
NEEDED = ("sae_id", "feature_id", "task", "explanation", "verdict", "previous_explanation", "previous_verdict")
_TEXTS = ("explanation", "explained_by", "task", "judged_by", "previous_explanation")


class Fate(StrEnum):
    """What becomes of a change."""

    APPLY = "apply"
    DONE = "done"
    """The workspace says so already."""
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """What a line says of one feature, and what both were when the file was written; a verdict is "" for none."""

    sae_id: str
    feature_id: int
    explanation: str
    task: str
    verdict: str
    previous_explanation: str
    previous_verdict: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class ReviewTable:
    """A file as read: every line is a row or among the malformed ones."""

    rows: tuple[ReviewRow, ...]
    malformed: tuple[DroppedRow, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One wish of a file: the value it gives to a feature's explanation or verdict, and what the workspace has now."""

    line: int
    feature_id: int
    task: str  # "": the explanation
    value: str
    previous: str
    current: str

    @property
    def fate(self) -> Fate:
        """Conflict when the workspace has neither what the file was written from nor what it asks for."""
        if _same(self.value, self.current):
            return Fate.DONE
        return Fate.APPLY if _same(self.previous, self.current) else Fate.CONFLICT


def review_csv_text(rows: Iterable[Mapping[str, object]]) -> str:
    """The text of a file with a byte order mark, without which spreadsheets misread UTF-8; cells cannot run."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        found = {name: "" if row[name] is None else clean_text(str(row[name])) for name in COLUMNS}
        writer.writerow(found | {name: guard(found[name]) for name in _TEXTS})
    return "\ufeff" + stream.getvalue()


def read_review_csv(path: Path) -> ReviewTable:
    """Every record of a file, whichever of comma, semicolon and tab a spreadsheet put between its cells.

    Raises:
        InputError: the file cannot be read as UTF-8, or lacks a column that a comparison needs.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8; save it in the spreadsheet as “CSV UTF-8”.") from error
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    missing = set(NEEDED) - {name.strip('"\r') for name in header.split(delimiter)}
    if missing:
        raise InputError(f"{path.name} has no column {quote_names(sorted(missing))}; import a file exported for it.")
    rows: list[ReviewRow] = []
    malformed: list[DroppedRow] = []
    for record in read_csv(io.StringIO(text, newline=""), delimiter, path.name):
        if isinstance(record, DroppedRow):
            malformed.append(record)
            continue
        row = _row(*record)
        if isinstance(row, ReviewRow):
            rows.append(row)
        else:
            malformed.append(DroppedRow(record[0], row, excerpt_of(record[1]), path.name))
    return ReviewTable(tuple(rows), tuple(malformed))


def changes_of(row: ReviewRow, current_explanation: str, current_verdict: str) -> list[Change]:
    """What a row asks for beyond what its file was written with."""
    asked = [
        Change(row.line, row.feature_id, "", row.explanation, row.previous_explanation, current_explanation),
        Change(row.line, row.feature_id, row.task, row.verdict, row.previous_verdict, current_verdict),
    ]
    return [change for change in asked if not _same(change.value, change.previous)]


def _row(line: int, cells: Mapping[str, str]) -> ReviewRow | str:
    """The row of a record, or why there is none."""
    found = {name: cells[name].strip() for name in NEEDED}
    found |= {name: unguard(found[name]) for name in _TEXTS if name in found}
    name, verdict = found["feature_id"], found["verdict"].lower()
    if not (name.isascii() and name.isdigit() and len(name) < 10):
        return f"{name[:60]!r} is no feature id"
    if verdict and verdict not in set(Verdict):
        return f"the verdict {verdict[:60]!r} is none of yes, probably, maybe, no"
    if verdict and not found["task"]:
        return "it has a verdict but no task"
    for what in ("explanation", "verdict"):
        if found[f"previous_{what}"] and not found[what]:
            return f"its {what} was emptied, which a file cannot ask for; undo or reject it in the dashboard"
    del found["feature_id"]
    return ReviewRow(feature_id=int(name), line=line, **(found | {"verdict": verdict}))


def _same(one: str, other: str) -> bool:
    return clean_text(one).strip() == clean_text(other).strip()
