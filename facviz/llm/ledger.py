"""The money book of a workspace: every call is written down with its worst cost before it is sent.

`ledger.jsonl` is append-only. A `reserved` line precedes each call, an `ended` line follows it. A call without an end
counts at its worst cost: it is in flight, or a kill left its outcome unknown. Reserving is atomic across threads and
processes, so spent and reserved together never exceed a budget.
"""

from __future__ import annotations

import fcntl
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from facviz.files import append_line, disk_errors
from facviz.llm.adapter import Usage

UNKNOWN = "unknown"
LEDGER_FOLDER = "llm"
_FILE = "ledger.jsonl"
_ROUNDING_USD = 1e-9
_COLUMNS = (
    "call_id", "request_hash", "provider", "model", "prompt", "outcome", "input_tokens", "output_tokens",
    "cache_read_tokens", "cache_write_tokens", "usd", "price_version", "attempt", "at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quote:
    """A call about to be made; `worst_usd` None when nobody knows the price."""

    request_hash: str
    provider: str
    model: str
    prompt: str
    worst_usd: float | None
    price_version: str | None
    scope: str = ""


class Ledger:
    """Reads what other processes appended before every decision; one per workspace and process is enough."""

    def __init__(self, workspace_root: Path) -> None:
        self._folder = workspace_root / LEDGER_FOLDER
        self._path = self._folder / _FILE
        self._guard = threading.RLock()
        self._offset = 0
        self._calls: dict[str, dict[str, Any]] = {}
        self._of_request: dict[str, list[str]] = defaultdict(list)
        self._usd: dict[str, float] = defaultdict(float)
        self._seconds: list[float] = []
        self._open: set[str] = set()  # in flight in this process, so not unknown

    @property
    def folder(self) -> Path:
        """Where the workspace's books lie."""
        return self._folder

    def reserve(self, quote: Quote, budget_usd: float | None) -> tuple[str, int] | None:
        """Call id and attempt number, on disk before this returns; None when the call might exceed the budget."""
        with self._exclusive():
            if budget_usd is not None:
                committed = self._usd[quote.scope] + (quote.worst_usd or 0.0)
                if quote.worst_usd is None or committed > budget_usd + _ROUNDING_USD:
                    return None
            attempt = len(self._of_request[quote.request_hash]) + 1
            call_id = f"{quote.request_hash}-{attempt}"
            self._append({"event": "reserved", "call_id": call_id, "attempt": attempt} | asdict(quote))
            self._open.add(call_id)
            return call_id, attempt

    def end(
        self, call_id: str, outcome: str, usd: float | None, usage: Usage | None = None, *, seconds: float | None = None
    ) -> None:
        """Write down how a call ended and what it cost; a call ends once."""
        with self._exclusive():
            self._open.discard(call_id)
            if self._calls[call_id]["outcome"] is not None:
                return
            tokens = asdict(usage) if usage else {}
            entry = {"event": "ended", "call_id": call_id, "outcome": outcome, "usd": usd, "seconds": seconds}
            self._append(entry | tokens)

    def n_unknown(self, request_hash: str) -> int:
        """Calls of a request whose outcome nobody knows: timed out, or cut off by a kill."""
        with self._exclusive():
            calls = [self._calls[c] for c in self._of_request.get(request_hash, ()) if c not in self._open]
            return sum(call["outcome"] in (None, UNKNOWN) for call in calls)

    def is_ended(self, call_id: str) -> bool:
        """Whether the call's end is on record; True for a call this ledger never saw."""
        with self._exclusive():
            return call_id not in self._calls or self._calls[call_id]["outcome"] is not None

    def committed_usd(self, scope: str = "") -> float:
        """Dollars spent, plus the worst cost of calls without a known end; all scopes together for the empty one."""
        with self._exclusive():
            return max(0.0, self._usd[scope])

    def typical_seconds(self) -> float | None:
        """Median duration of the calls that were answered, or None before the first."""
        with self._exclusive():
            return median(self._seconds) if self._seconds else None

    def rows(self) -> list[dict[str, Any]]:
        """One row a call, in the columns of the `llm_call` table; a call without an end is `unknown` or in flight."""
        with self._guard:  # a reader takes no lock: the workspace may be one it cannot write to
            self._catch_up()
            return [self._row(call_id, call) for call_id, call in self._calls.items()]

    def _row(self, call_id: str, call: dict[str, Any]) -> dict[str, Any]:
        is_ended = call["outcome"] is not None
        outcome = call["outcome"] or ("in_flight" if call_id in self._open else UNKNOWN)
        usd = call["usd"] if is_ended else call["worst_usd"]
        return {name: call.get(name) for name in _COLUMNS} | {"outcome": outcome, "usd": usd}

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One thread of one process at a time, having read everything appended so far."""
        with self._guard:
            with disk_errors(self._path):
                self._folder.mkdir(parents=True, exist_ok=True)
                lock = (self._folder / "lock").open("a")
            with lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._catch_up()
                yield

    def _append(self, entry: dict[str, Any]) -> None:
        append_line(self._path, entry | {"at": datetime.now(UTC).isoformat(timespec="milliseconds")})
        self._catch_up()

    def _catch_up(self) -> None:
        """Take in complete lines only: what a kill tore is no entry, and what it says was not sent."""
        if not self._path.exists():
            return
        with disk_errors(self._path), self._path.open("rb") as file:
            file.seek(self._offset)
            raw = file.read()
        complete = raw[: raw.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        call_id = entry.get("call_id")
        if entry.get("event") == "reserved" and call_id not in self._calls:
            self._calls[str(call_id)] = entry | {"outcome": None, "usd": None}
            self._of_request[entry["request_hash"]].append(str(call_id))
            self._count(entry, entry["worst_usd"] or 0.0)
        elif entry.get("event") == "ended" and self._calls.get(str(call_id), {"outcome": ""})["outcome"] is None:
            call = self._calls[str(call_id)]
            self._count(call, (entry["usd"] or 0.0) - (call["worst_usd"] or 0.0))
            call.update({key: value for key, value in entry.items() if key not in ("event", "at")})
            if entry.get("seconds") is not None:
                self._seconds.append(entry["seconds"])

    def _count(self, call: dict[str, Any], usd: float) -> None:
        for scope in {"", call.get("scope", "")}:
            self._usd[scope] += usd


def call_rows(workspace_root: Path) -> list[dict[str, Any]]:
    """Every call of a workspace as rows of `llm_call`; empty when it never paid for one."""
    if not (workspace_root / LEDGER_FOLDER / _FILE).exists():
        return []
    return Ledger(workspace_root).rows()
