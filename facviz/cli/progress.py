"""Progress for people on stderr: rate and time left, one line rewritten on a terminal, sparse lines in a log."""

from __future__ import annotations

import sys
import time

from facviz.protocols import ProgressSink

LOG_SECONDS = 15.0


class StderrProgress:
    """Writes `stage  done/total note  rate  time left`."""

    def __init__(self) -> None:
        self._stage = ""
        self._started = (0.0, 0.0)  # seconds and units when the stage was first heard of
        self._written = 0.0

    def update(self, stage: str, done: float, total: float | None, note: str = "") -> None:
        """Report a stage; a new stage starts a new line."""
        now = time.monotonic()
        if stage != self._stage:
            if self._stage and sys.stderr.isatty():
                sys.stderr.write("\n")
            self._stage, self._started, self._written = stage, (now, done), 0.0
        finished = total is not None and done >= total
        if now - self._written < (0.2 if sys.stderr.isatty() else LOG_SECONDS) and not finished:
            return
        self._written = now
        line = f"{stage:<12} {self._amount(done, total)} {note}{self._pace(now, done, total)}"
        sys.stderr.write(f"\r\033[K{line}" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()

    @staticmethod
    def _amount(done: float, total: float | None) -> str:
        return f"{done:,.0f}" if total is None else f"{done:,.0f}/{total:,.0f}"

    def _pace(self, now: float, done: float, total: float | None) -> str:
        seconds, units = now - self._started[0], done - self._started[1]
        if seconds < 1 or units <= 0:
            return ""
        rate = units / seconds
        left = "" if total is None or done >= total else f", {_clock((total - done) / rate)} left"
        return f"  {rate:,.1f}/s{left}"


class NoProgress:
    """Says nothing."""

    def update(self, stage: str, done: float, total: float | None, note: str = "") -> None:
        """Nothing."""


def choose_progress(quiet: bool) -> ProgressSink:
    """Stderr, or nothing for `--quiet`."""
    return NoProgress() if quiet else StderrProgress()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
