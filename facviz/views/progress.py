"""A synthesis while it writes: candidates, verified ones and the best activation of each feature, and the dollars.

The stage keeps every finished batch as a line of `synthesis/<id>.jsonl`; this reads on where it stopped reading.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from facviz.views.explain_jobs import money
from facviz.views.format import UNKNOWN, count, visible
from facviz.views.remaining import near_bar_html
from facviz.views.samples import share_words

MOST_ROWS = 10


@dataclass(slots=True)
class Tally:
    """One feature so far."""

    n_tried: int = 0
    n_accepted: int = 0
    best_act: float = 0.0


@dataclass(slots=True)
class Tail:
    """What the running synthesis wrote down since it began, read line by line as it grows."""

    folder: Path
    since: float
    tallies: dict[int, Tally] = field(default_factory=dict)
    _offsets: dict[str, int] = field(default_factory=dict)

    def read_on(self) -> None:
        """Take in the batches that were finished since the last call."""
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                if path.stat().st_mtime < self.since:
                    continue
                with path.open("rb") as file:
                    file.seek(self._offsets.get(path.name, 0))
                    raw = file.read()
            except OSError:
                continue
            complete = raw[: raw.rfind(b"\n") + 1]
            self._offsets[path.name] = self._offsets.get(path.name, 0) + len(complete)
            for line in complete.splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if not isinstance(entry, dict) or not isinstance(entry.get("candidates"), list):
            return
        for candidate in entry["candidates"]:
            own, is_accepted = int(candidate.get("feature_id", -1)), bool(candidate.get("accepted"))
            tally = self._tally(own)
            tally.n_tried += 1
            tally.n_accepted += is_accepted
            tally.best_act = max(tally.best_act, float(candidate.get("act") or 0.0))
            credited = (candidate.get("gates") or {}).get("credited") if is_accepted else ()
            for other in credited or ():
                self._tally(int(other)).n_accepted += int(other) != own

    def _tally(self, feature_id: int) -> Tally:
        return self.tallies.setdefault(feature_id, Tally())


@dataclass(frozen=True, slots=True)
class Line:
    """One feature of the live list."""

    feature_id: int
    words: str
    state: str
    n_tried: int
    n_accepted: int
    share: float | None
    best: str


def live_lines(
    tallies: Mapping[int, Tally],
    asked: Sequence[int],
    ended: Mapping[int, str],
    words: Mapping[int, str],
    bars: Mapping[int, float],
) -> list[Line]:
    """What is being written first, then what ended last, then what waits; at most ten."""
    writing = [f for f in asked if f in tallies and f not in ended]
    done = [f for f in ended if f in set(asked)][::-1]
    waiting = [f for f in asked if f not in tallies and f not in ended]
    return [_line(f, tallies, ended, words, bars) for f in [*writing, *done, *waiting][:MOST_ROWS]]


def _line(
    f: int,
    tallies: Mapping[int, Tally],
    ended: Mapping[int, str],
    words: Mapping[int, str],
    bars: Mapping[int, float],
) -> Line:
    tally, bar = tallies.get(f, Tally()), bars.get(f, 0.0)
    state = ended.get(f) or ("writing" if tally.n_tried else "waiting")
    share = tally.best_act / bar if bar > 0 and tally.n_tried else None
    best = share_words(tally.best_act, bar) if tally.n_tried else UNKNOWN
    return Line(f, words.get(f, ""), state, tally.n_tried, tally.n_accepted, share, best)


def lines_html(lines: Iterable[Line]) -> str:
    """The live list as an escaped table."""
    head = "".join(f"<th>{name}</th>" for name in ("Feature", "State", "Written", "Verified", "Best so far"))
    body = "".join(
        f'<tr><td dir="auto">{escape(visible(line.words))} <span class="fv-quiet">{line.feature_id}</span></td>'
        f'<td class="fv-{escape(line.state)}">{escape(line.state)}</td><td>{count(line.n_tried)}</td>'
        f"<td>{count(line.n_accepted)}</td><td>{_best(line)}</td></tr>"
        for line in lines
    )
    return f'<table class="fv-table"><tr>{head}</tr>{body}</table>'


def _best(line: Line) -> str:
    return UNKNOWN if line.share is None else near_bar_html(line.share, line.best, is_verified=line.n_accepted > 0)


def spent_words(calls: Iterable[Mapping[str, Any]], since: float, share_done: float) -> str:
    """What was spent since a moment, and what it comes to at this pace; "" where nothing was asked for money."""
    start = datetime.fromtimestamp(since, UTC).isoformat(timespec="milliseconds")
    usd = [call["usd"] for call in calls if str(call.get("at", "")) >= start]
    if not usd:
        return ""
    spent = sum(value or 0.0 for value in usd)
    unknown = "" if all(value is not None for value in usd) else ", and calls that nobody has priced"
    projected = f" · about {money(spent / share_done)} in all at this pace" if share_done > 0.02 else ""
    return f"{money(spent)} spent{unknown}{projected}"
