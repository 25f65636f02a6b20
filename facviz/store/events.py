"""Human decisions: an append-only log that is never rewritten, and the state it adds up to.

An event is on disk before anything shows it. Undo appends an event that voids an earlier one, so nothing is ever lost
and any depth can be taken back, or brought back by undoing the undo. The state of a target is what its events say in
order, the voided ones left out.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from facviz.errors import InputError
from facviz.files import append_line, read_lines

LOG_FILE = "review.jsonl"
UNDO = "undo"
STATUS_OF = {
    "explanation": {"accept": "accepted", "edit": "edited", "reject": "rejected", "flag": "flagged", "skip": "skipped"},
    "relevance": {"verdict": "judged"},
    "candidate": {"approve": "approved", "reject": "rejected"},
}
"""Status that an event of each kind gives its target, by what the target is."""
MAX_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Target:
    """What is decided on: an explanation, a relevance verdict or a candidate."""

    kind: str  # key of STATUS_OF
    sae_id: str = ""
    feature_id: int = -1
    task: str = ""
    candidate_id: str = ""

    @property
    def key(self) -> str:
        """Its name in the log."""
        if self.kind == "candidate":
            return f"candidate/{self.candidate_id}"
        rest = f"/{self.task}" if self.kind == "relevance" else ""
        return f"{self.kind}/{self.sae_id}/{self.feature_id}{rest}"

    @classmethod
    def parse(cls, key: str) -> Target | None:
        """The target of a logged name; None for one this version does not know."""
        kind, _, rest = key.partition("/")
        if kind == "candidate" and rest:
            return cls(kind, candidate_id=rest)
        parts = rest.split("/", 2 if kind == "relevance" else 1)
        if kind not in STATUS_OF or len(parts) != (3 if kind == "relevance" else 2) or not parts[1].isdigit():
            return None
        return cls(kind, parts[0], int(parts[1]), parts[2] if kind == "relevance" else "")


def explanation_of(sae_id: str, feature_id: int) -> Target:
    """The explanation of a feature."""
    return Target("explanation", sae_id, feature_id)


def relevance_of(sae_id: str, feature_id: int, task: str) -> Target:
    """Whether a feature matters to a task."""
    return Target("relevance", sae_id, feature_id, task)


def candidate_of(candidate_id: str) -> Target:
    """A synthetic sample."""
    return Target("candidate", candidate_id=candidate_id)


def new_event(
    actor: str, target: Target, kind: str, payload: Mapping[str, Any] | None = None, undoes: str | None = None
) -> dict[str, Any]:
    """One event, stamped now.

    Raises:
        InputError: the kind does not fit the target, or its text is empty or too long.
    """
    if kind != UNDO and kind not in STATUS_OF[target.kind]:
        raise InputError(f"A person cannot {kind} this; choose one of {', '.join(STATUS_OF[target.kind])}.")
    payload = dict(payload or {})
    if kind == "edit":
        payload["text"] = str(payload.get("text", "")).strip()
        if not payload["text"]:
            raise InputError("The explanation is empty; write a few words, or reject it instead.")
        if len(payload["text"]) > MAX_TEXT:
            raise InputError(f"The explanation has {len(payload['text']):,} characters; keep it below {MAX_TEXT:,}.")
    return {
        "event_id": uuid.uuid4().hex,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "actor": actor,
        "target": target.key,
        "kind": kind,
        "payload": payload,
        "undoes": undoes,
    }


def append_event(folder: Path, event: Mapping[str, Any]) -> None:
    """Write one event durably."""
    append_line(folder / LOG_FILE, event)


def append_batch(folder: Path, events: Sequence[Mapping[str, Any]]) -> None:
    """Write many events durably as one line: after a kill at any moment either all of them are logged or none."""
    append_line(folder / LOG_FILE, {"batch": list(events)})


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All complete events of all log files in the order they happened, those of a batch one by one."""
    entries = [e for path in sorted(folder.glob("*.jsonl")) for e in read_lines(path)]
    listed = (e["batch"] if isinstance(e.get("batch"), list) else [e] for e in entries)
    events = [e for part in listed for e in part if isinstance(e, dict) and "event_id" in e]
    return sorted(events, key=lambda e: str(e.get("at", "")))


def active_events(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Events of one target that hold, oldest first: not undone, or undone by an undo that was itself undone."""
    void: set[str] = set()
    held: list[Mapping[str, Any]] = []
    for event in reversed(events):
        if event["event_id"] in void:
            continue
        if event["kind"] == UNDO:
            void.add(str(event.get("undoes")))
        else:
            held.append(event)
    return held[::-1]


def last_undo(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The undo that a redo takes back: the newest one of a decision, unless a decision came after it; else None."""
    kinds = {e["event_id"]: e["kind"] for e in events}
    void = {e["undoes"] for e in events if e["kind"] == UNDO}
    standing = [e for e in events if e["event_id"] not in void]
    if not standing or standing[-1]["kind"] != UNDO:
        return None
    return next((e for e in reversed(standing) if e["kind"] == UNDO and kinds.get(e["undoes"], UNDO) != UNDO), None)


def decide(target: Target, events: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The row of `decision` that a target's events add up to; None when every one is undone."""
    held = active_events(events)
    statuses = STATUS_OF[target.kind]
    held = [e for e in held if e["kind"] in statuses]
    if not held:
        return None
    last = held[-1]
    texts = [e["payload"]["text"] for e in held if e["kind"] == "edit"]
    verdicts = [e["payload"].get("verdict") for e in held if e["kind"] == "verdict"]
    return {
        "kind": target.kind,
        "sae_id": target.sae_id,
        "feature_id": target.feature_id,
        "task": target.task,
        "candidate_id": target.candidate_id,
        "status": statuses[last["kind"]],
        "text": texts[-1] if texts else None,
        "verdict": verdicts[-1] if verdicts else None,
        "reason": last["payload"].get("reason"),
        "author": last["actor"],
        "at": last["at"],
        "event_id": last["event_id"],
        "n_events": len(held),
    }


def decisions(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The `decision` rows of a whole log; events of another kind of log are passed over."""
    by_target: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if isinstance(event.get("target"), str) and isinstance(event.get("payload"), dict):
            by_target[event["target"]].append(event)
    found = ((Target.parse(key), listed) for key, listed in by_target.items())
    rows = [decide(target, listed) for target, listed in found if target is not None]
    return [row for row in rows if row is not None]
