"""Pace, time left and what a job's status shows: counted on a clock that the test moves by hand."""

from __future__ import annotations

import pytest

from facviz.cli import progress
from facviz.cli.progress import JobProgress, LockWait, Pace, StderrProgress, choose_progress
from facviz.protocols import NoProgress


class Clock:
    """Stands still between steps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Report:
    """Remembers what a job would have written."""

    def __init__(self) -> None:
        self.told: list[dict] = []
        self.waits = 0

    def progress(self, values) -> None:
        self.told.append(dict(values))

    def waiting(self) -> None:
        self.waits += 1


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def report():
    return Report()


@pytest.fixture
def job(report, clock):
    return JobProgress(report, NoProgress())


def test_a_rate_counts_from_the_first_update_of_its_stage_and_needs_a_second(clock):
    pace = Pace()
    assert pace.rate("spans", 40) is None
    clock.now += 0.9
    assert pace.rate("spans", 60) is None
    clock.now += 1.1
    assert pace.rate("spans", 80) == 20.0  # 40 documents in two seconds; the 40 of an earlier life do not count
    assert pace.rate("spans", 80) == 20.0
    assert pace.rate("explain", 5) is None


def test_a_stage_keeps_its_pace_while_another_one_takes_turns_with_it(clock):
    pace = Pace()
    for feature in range(1, 4):
        pace.rate("synthesize", 8 * feature)
        rate = pace.rate("synthesize features", feature)
        clock.now += 4
    assert rate == 2 / 8


def test_a_stage_that_counts_from_the_start_again_gets_a_new_pace(clock):
    pace = Pace()
    pace.rate("spans", 0)
    clock.now += 10
    assert pace.rate("spans", 100) == 10.0
    assert pace.rate("spans", 20) is None  # the next dataset
    clock.now += 2
    assert pace.rate("spans", 100) == 40.0


def test_lines_in_a_log_show_amount_rate_and_time_left(clock, capsys):
    shown = StderrProgress()
    shown.update("spans", 1000, 5000, "documents")
    clock.now += 1
    shown.update("spans", 1010, 5000, "documents")  # too soon for another line
    clock.now += 19
    shown.update("spans", 2000, 5000, "documents")
    shown.update("spans", 5000, 5000, "documents")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ", 1)[1].strip() for line in lines] == [
        "1,000/5,000 documents",
        "2,000/5,000 documents  50.0/s, 1:00 left",
        "5,000/5,000 documents  200.0/s",
    ]


def test_a_job_tells_stage_share_rate_and_time_left(job, report, clock):
    job.update("spans", 0, 400, "documents")
    clock.now += 10
    job.update("spans", 100, 400, "documents")
    first = {"stage": "spans", "done": 0, "total": 400, "note": "documents", "rate": None, "eta_seconds": None}
    assert report.told == [first, first | {"done": 100, "rate": 10.0, "eta_seconds": 30.0}]


def test_a_job_writes_twice_a_second_at_most_but_every_new_stage_and_every_end(job, report, clock):
    for done in range(80):  # ten seconds
        job.update("spans", done, 100)
        clock.now += 0.125
    assert len(report.told) == 20
    n_written = len(report.told)
    job.update("spans", 100, 100)
    job.update("explain", 0, None)
    job.update("explain", 1, None)  # within the half second
    assert [(t["stage"], t["done"]) for t in report.told[n_written:]] == [("spans", 100), ("explain", 0)]


def test_a_count_without_an_end_becomes_the_note_of_the_stage_whose_length_is_known(job, report, clock):
    job.update("synthesize", 8, None, "candidates, feature 3")
    clock.now += 1
    job.update("synthesize features", 1, 20, "features, filled")
    clock.now += 1
    job.update("synthesize", 1016, None, "candidates, feature 5")
    shown = [(t["stage"], t["done"], t["total"], t["note"]) for t in report.told]
    assert shown == [
        ("synthesize", 8, None, "candidates, feature 3"),
        ("synthesize features", 1, 20, "features, filled"),
        ("synthesize features", 1, 20, "1,016 candidates, feature 5"),
    ]
    clock.now += 1
    job.update("synthesize features", 20, 20, "features, filled")
    job.update("backbone", 0, None, "default")
    assert report.told[-1]["stage"] == "backbone"


def test_a_taken_lock_is_said_once_on_stderr_and_all_the_time_in_the_status(report, capsys):
    wait = LockWait(report, quiet=False)
    for _ in range(3):
        wait()
    assert report.waits == 3
    assert capsys.readouterr().err.count("Waiting for another facviz") == 1
    LockWait(report, quiet=True)()
    assert capsys.readouterr().err == ""


def test_progress_goes_to_a_jobs_folder_only_inside_a_job(monkeypatch, tmp_path):
    monkeypatch.delenv("FACVIZ_JOB", raising=False)
    assert isinstance(choose_progress(quiet=True), NoProgress)
    assert isinstance(choose_progress(quiet=False), StderrProgress)
    (tmp_path / "job.json").write_text("{}")
    monkeypatch.setenv("FACVIZ_JOB", str(tmp_path))
    choose_progress(quiet=True).update("spans", 1, 4, "documents")
    assert '"stage": "spans"' in (tmp_path / "status.json").read_text()
