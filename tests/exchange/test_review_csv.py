"""A CSV for review: what differs from what it was written with is a change, and what both changed is a conflict."""

from __future__ import annotations

import csv
import io

import pytest

from facviz.errors import InputError
from facviz.exchange.review_csv import COLUMNS, Fate, changes_of, read_review_csv, review_csv_text

ROW = {
    "sae_id": "s1", "feature_id": 3, "explanation": "=SUM(A1)\nsecond line", "explained_by": "@ann", "status": "edited",
    "task": "toxicity", "verdict": "maybe", "judged_by": None, "previous_explanation": "=SUM(A1)\nsecond line",
    "previous_verdict": "maybe",
}  # fmt: skip


def saved(folder, rows, **changes):
    """A file as a person saves it after changing cells of its first row."""
    cells = list(csv.DictReader(io.StringIO(review_csv_text(rows).removeprefix("\ufeff"), newline="")))
    cells[0].update(changes)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    writer.writerows(cells)
    path = folder / "review.csv"
    path.write_text(stream.getvalue(), encoding="utf-8", newline="")
    return path


def test_formulas_do_not_run_and_come_back_as_they_were(tmp_path):
    text = review_csv_text([ROW])
    assert text.startswith("\ufeffsae_id,feature_id,")
    assert "\"'=SUM(A1)" in text
    assert ",'@ann," in text
    [row] = read_review_csv(saved(tmp_path, [ROW])).rows
    assert row.explanation == row.previous_explanation == ROW["explanation"]
    assert changes_of(row, row.explanation, "maybe") == []


def test_a_change_is_applied_done_or_in_conflict_by_what_the_workspace_says_now(tmp_path):
    [row] = read_review_csv(saved(tmp_path, [ROW], explanation="new words", verdict=" Yes ")).rows

    def fates(*now):
        return [change.fate for change in changes_of(row, *now)]

    assert fates(ROW["explanation"], "maybe") == [Fate.APPLY, Fate.APPLY]
    assert fates("new words", "yes") == [Fate.DONE, Fate.DONE]
    assert fates("other words", "no") == [Fate.CONFLICT, Fate.CONFLICT]


def test_every_record_that_cannot_be_used_is_reported_with_its_line(tmp_path):
    good = {**ROW, "explanation": "a", "previous_explanation": "a"}
    bad = [
        good | {"feature_id": "three"},
        good | {"verdict": "perhaps"},
        good | {"task": "", "verdict": "yes"},
        good | {"explanation": ""},
    ]
    path = tmp_path / "review.csv"
    path.write_text(review_csv_text([good, *bad]) + 's1,4,"open quote\r\n', encoding="utf-8", newline="")
    table = read_review_csv(path)
    assert [(row.feature_id, row.line) for row in table.rows] == [(3, 2)]
    reasons = [(d.row, d.reason) for d in table.malformed]
    assert [line for line, _ in reasons] == [3, 4, 5, 6, 7]
    for part, (_, reason) in zip(["no feature id", "none of yes", "no task", "was emptied", "quote"], reasons):
        assert part in reason


def test_a_spreadsheet_may_separate_cells_by_semicolons(tmp_path):
    path = tmp_path / "review.csv"
    row = ROW | {"explanation": "plain", "previous_explanation": "plain"}
    path.write_text(review_csv_text([row]).replace(",", ";"), encoding="utf-8", newline="")
    assert read_review_csv(path).rows[0].explanation == "plain"


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("feature_id,explanation\n1,a\n", encoding="utf-8")
    with pytest.raises(InputError, match="previous_explanation"):
        read_review_csv(path)
    path.write_bytes("sae_id,grün\n".encode("latin-1"))
    with pytest.raises(InputError, match="CSV UTF-8"):
        read_review_csv(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_review_csv(tmp_path / "none.csv")
