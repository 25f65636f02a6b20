"""Progress: on stderr one line rewritten on a terminal, or sparse lines in a log; of a job also in its folder."""

from __future__ import annotations

import sys
import time

from facviz.jobs import JobReport
from facviz.protocols import NoProgress, ProgressSink

LOG_SECONDS = 15.0
JOB_SECONDS = 0.5


def say(sentence: str) -> None:
    """A sentence that belongs to no result, on stderr; nothing where there is none."""
    if sentence:
        sys.stderr.write(f"facviz: {sentence}\n")


class Pace:
    """How fast each stage is, since it was first heard of."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float, float, float]] = {}  # when, units then, units last

    def rate(self, stage: str, done: float) -> float | None:
        """Units per second; None in a stage's first second. Fewer units than before: the stage began anew."""
        now = time.monotonic()
        started, first, last = self._heard.get(stage, (now, done, done))
        if done < last:
            started, first = now, done
        self._heard[stage] = started, first, done
        return (done - first) / (now - started) if now - started >= 1 and done > first else None


class StderrProgress:
    """Writes `stage  done/total note  rate  time left`."""

    def __init__(self) -> None:
        self._stage = ""
        self._pace = Pace()
        self._written = 0.0

    def update(self, stage: str, done: float, total: float | None, note: str = "") -> None:
        """Report a stage; a new stage starts a new line."""
        now, rate = time.monotonic(), self._pace.rate(stage, done)
        if stage != self._stage:
            if self._stage and sys.stderr.isatty():
                sys.stderr.write("\n")
            self._stage, self._written = stage, 0.0
        if now - self._written < (0.2 if sys.stderr.isatty() else LOG_SECONDS) and not _is_whole(done, total):
            return
        self._written = now
        line = f"{stage:<12} {_amount(done, total)} {note}{_pace(done, total, rate)}"
        sys.stderr.write(f"\r\033[K{line}" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()


class JobProgress:
    """Keeps a job's status fresh, at most twice a second within a stage, beside what goes to its log."""

    def __init__(self, report: JobReport, log: ProgressSink) -> None:
        self._report, self._log = report, log
        self._pace = Pace()
        self._shown: dict[str, object] = {}
        self._bar = ""  # the unfinished stage of known length on display
        self._written = 0.0

    def update(self, stage: str, done: float, total: float | None, note: str = "") -> None:
        """Report a stage; inside one of known length, a count without an end becomes its note."""
        self._log.update(stage, done, total, note)
        whole, rate = _is_whole(done, total), self._pace.rate(stage, done)
        if total is None and self._bar:
            stage, self._shown["note"] = self._bar, f"{done:,.0f} {note}"
        else:
            self._bar = "" if total is None or whole else stage
            values = {"done": done, "total": total, "note": note, "rate": rate}
            self._shown |= values | {"eta_seconds": _seconds_left(done, total, rate)}
        now = time.monotonic()
        if stage != self._shown.get("stage") or whole or now - self._written >= JOB_SECONDS:
            self._shown["stage"], self._written = stage, now
            self._report.progress(self._shown)


class LockWait:
    """Says that the workspace is busy: once on stderr, all the time in a job's status."""

    def __init__(self, report: JobReport, quiet: bool) -> None:
        self._report, self._silent = report, quiet

    def __call__(self) -> None:
        """Called again and again while the lock is taken."""
        self._report.waiting()
        if not self._silent:
            sys.stderr.write("Waiting for another facviz that is writing to this workspace.\n")
            sys.stderr.flush()
        self._silent = True


def choose_progress(quiet: bool) -> ProgressSink:
    """Stderr, or nothing for `--quiet`; a job's status as well when this process is one."""
    log: ProgressSink = NoProgress() if quiet else StderrProgress()
    report = JobReport.from_environment()
    return JobProgress(report, log) if report.is_job else log


def _is_whole(done: float, total: float | None) -> bool:
    return total is not None and done >= total


def _amount(done: float, total: float | None) -> str:
    return f"{done:,.0f}" if total is None else f"{done:,.0f}/{total:,.0f}"


def _seconds_left(done: float, total: float | None, rate: float | None) -> float | None:
    return None if total is None or rate is None else max(0.0, (total - done) / rate)


def _pace(done: float, total: float | None, rate: float | None) -> str:
    left = _seconds_left(done, total, rate)
    until = f", {_clock(left)} left" if left else ""
    return "" if rate is None else f"  {rate:,.1f}/s{until}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
