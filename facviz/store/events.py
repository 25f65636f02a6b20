"""Human decisions: an append-only log that is never rewritten, and the state it adds up to.

An event is on disk before anything shows it. Undo appends an event that voids an earlier one, so nothing is ever lost
and any depth can be taken back, or brought back by undoing the undo. The state of a target is what its events say in
order, the voided ones left out.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from facviz.errors import InputError
from facviz.files import append_line, read_lines

Event = Mapping[str, Any]

LOG_FILE = "review.jsonl"
UNDO = "undo"
STATUS_OF = {
    "explanation": {
        "accept": "accepted",
        "edit": "edited",
        "reject": "rejected",
        "unsure": "unsure",
        "flag": "flagged",
        "skip": "skipped",
        "reopen": "unreviewed",
    },
    "relevance": {"verdict": "judged"},
    "candidate": {"approve": "approved", "edit": "edited", "reject": "rejected"},
    "queue": {"save": "saved", "remove": "removed"},
    "list": {"create": "kept", "rename": "kept", "delete": "deleted"},
    "listed": {"add": "listed", "note": "listed", "remove": "removed"},
}
"""Status that an event of each kind gives its target, by what the target is."""
LOOKS = ("second", "repeat")
"""Decisions that measure and change nothing: of a second reviewer, or again of the same one, on a thing decided before.

Such an event says which in its payload, under `look`.
"""
_WRITES = ("edit", "create", "rename", "add", "note")
"""Kinds of event that carry a text: an explanation, the name of a list, a note."""
MAX_TEXT, MAX_NOTE, MAX_SAMPLE = 2000, 500, 8000
MAX_LIST_NAME = 60


@dataclass(frozen=True, slots=True)
class Target:
    """What is decided on: an explanation, verdict, candidate, saved queue, list of features or a place on one."""

    kind: str  # key of STATUS_OF
    sae_id: str = ""
    feature_id: int = -1
    task: str = ""  # or the name of a queue
    candidate_id: str = ""
    list_id: str = ""

    @property
    def key(self) -> str:
        """Its name in the log."""
        if self.kind == "queue":
            return f"queue/{self.task}"
        if self.kind in ("candidate", "list"):
            return f"{self.kind}/{self.candidate_id or self.list_id}"
        rest = f"/{self.task or self.list_id}" if self.kind in ("relevance", "listed") else ""
        return f"{self.kind}/{self.sae_id}/{self.feature_id}{rest}"

    @classmethod
    def parse(cls, key: str) -> Target | None:
        """The target of a logged name; None for one this version does not know."""
        kind, _, rest = key.partition("/")
        if kind == "candidate" and rest:
            return cls(kind, candidate_id=rest)
        if kind == "queue" and rest:
            return cls(kind, task=rest)
        if kind == "list" and rest:
            return cls(kind, list_id=rest)
        n_parts = 3 if kind in ("relevance", "listed") else 2
        parts = rest.split("/", n_parts - 1)
        if kind not in STATUS_OF or kind == "list" or len(parts) != n_parts or not parts[1].isdigit():
            return None
        last = parts[2] if n_parts == 3 else ""
        name = "list_id" if kind == "listed" else "task"
        return cls(kind, parts[0], int(parts[1]), **{name: last})


def explanation_of(sae_id: str, feature_id: int) -> Target:
    """The explanation of a feature."""
    return Target("explanation", sae_id, feature_id)


def relevance_of(sae_id: str, feature_id: int, task: str) -> Target:
    """Whether a feature matters to a task."""
    return Target("relevance", sae_id, feature_id, task)


def candidate_of(candidate_id: str) -> Target:
    """A synthetic sample."""
    return Target("candidate", candidate_id=candidate_id)


def queue_of(name: str) -> Target:
    """A named filter of the review page."""
    return Target("queue", task=name)


def list_of(list_id: str) -> Target:
    """A named list of features."""
    return Target("list", list_id=list_id)


def listed_of(sae_id: str, feature_id: int, list_id: str) -> Target:
    """The place of a feature on a list, with its note."""
    return Target("listed", sae_id, feature_id, list_id=list_id)


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
        payload["text"] = _whole_text(target, str(payload.get("text", "")))
        if target.kind == "candidate" and "accepted" not in payload.get("measured", {}):
            raise InputError("An edited text is kept with what was measured of it; verify it first.")
        if "was" in payload:
            payload["diff"] = words_changed(str(payload["was"]), payload["text"])
    elif kind in _WRITES:
        payload["text"] = _short_text(kind, str(payload.get("text", "")))
    if len(str(payload.get("note", ""))) > MAX_NOTE:
        raise InputError(f"The note has {len(payload['note']):,} characters; keep it below {MAX_NOTE:,}.")
    if not actor.strip():
        raise InputError("A decision carries a name; log in, or give yours in the reader settings.")
    return {
        "event_id": uuid.uuid4().hex,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "actor": actor,
        "target": target.key,
        "kind": kind,
        "payload": payload,
        "undoes": undoes,
    }


def words_changed(before: str, after: str) -> list[list[str]]:
    """A correction word by word: what was kept (`=`), left out (`-`) and added (`+`), in order."""
    old, new = before.split(), after.split()
    steps: list[list[str]] = []
    for operation, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            steps.append(["=", " ".join(old[i:j])])
            continue
        steps += [["-", " ".join(old[i:j])]] if j > i else []
        steps += [["+", " ".join(new[k:m])]] if m > k else []
    return steps


def as_batch(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events that one action made and one undo takes back: each says in its payload which batch it belongs to."""
    name = uuid.uuid4().hex
    return (
        [event | {"payload": {**event["payload"], "batch": name}} for event in events] if len(events) > 1 else [*events]
    )


def _whole_text(target: Target, text: str) -> str:
    """The words of a correction.

    Raises:
        InputError: they are none, or too many.
    """
    noun, most = ("text", MAX_SAMPLE) if target.kind == "candidate" else ("explanation", MAX_TEXT)
    text = text.strip()
    if not text:
        raise InputError(f"The {noun} is empty; write a few words, or reject it instead.")
    if len(text) > most:
        raise InputError(f"The {noun} has {len(text):,} characters; keep it below {most:,}.")
    return text


def failed(event: Event) -> bool:
    """Whether an event is an edited sample that did not verify: kept, and changing nothing."""
    measured = event["payload"].get("measured")
    return event["kind"] == "edit" and isinstance(measured, Mapping) and not measured.get("accepted")


def _short_text(kind: str, text: str) -> str:
    """The name of a list, on one line, or a note.

    Raises:
        InputError: the name is empty, or the text is too long.
    """
    if kind in ("create", "rename"):
        name = " ".join(text.split())
        if not name:
            raise InputError("The list has no name yet; write one.")
        if len(name) > MAX_LIST_NAME:
            raise InputError(f"The name has {len(name)} characters; keep it below {MAX_LIST_NAME}.")
        return name
    if len(text) > MAX_TEXT:
        raise InputError(f"The note has {len(text):,} characters; keep it below {MAX_TEXT:,}.")
    return text.strip()


def append_event(folder: Path, event: Mapping[str, Any]) -> None:
    """Write one event durably."""
    append_events(folder, [event])


def append_events(folder: Path, events: Sequence[Mapping[str, Any]]) -> int:
    """Write events durably, many as one line, so that a kill leaves all or none; the bytes that the log grew by."""
    return append_line(folder / LOG_FILE, events[0] if len(events) == 1 else {"batch": list(events)})


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All complete events of all log files in the order they happened, those of a batch one by one."""
    entries = [e for path in sorted(folder.glob("*.jsonl")) for e in read_lines(path)]
    listed = (e["batch"] if isinstance(e.get("batch"), list) else [e] for e in entries)
    events = [e for part in listed for e in part if isinstance(e, dict) and "event_id" in e]
    return sorted(events, key=lambda e: str(e.get("at", "")))


def event_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """An event as logged, from a row of `review_event`, whose payload is JSON text."""
    raw = row.get("payload")
    payload = json.loads(raw) if isinstance(raw, str) else raw
    return {**row, "payload": payload if isinstance(payload, dict) else {}}


def look_of(event: Mapping[str, Any]) -> str:
    """`second` or `repeat` where an event only measures, "" where it decides."""
    look = event["payload"].get("look")
    return str(look) if look in LOOKS else ""


def without_looks(events: Sequence[Event]) -> list[Event]:
    """Events that decide, without those that measure and whatever took those back."""
    left_out = {e["event_id"] for e in events if e["kind"] != UNDO and look_of(e)}
    for event in events:  # in order: an undo stands behind what it undoes
        if event["kind"] == UNDO and event.get("undoes") in left_out:
            left_out.add(event["event_id"])
    return [event for event in events if event["event_id"] not in left_out]


def active_events(events: Sequence[Event]) -> list[Event]:
    """Events that hold, oldest first: not undone, or undone by an undo that was itself undone."""
    void: set[str] = set()
    held: list[Event] = []
    for event in reversed(events):
        if event["event_id"] in void:
            continue
        if event["kind"] == UNDO:
            void.add(str(event.get("undoes")))
        else:
            held.append(event)
    return held[::-1]


def last_undo(events: Sequence[Event]) -> Event | None:
    """The undo that a redo takes back: the newest one of a decision, unless a decision came after it; else None."""
    kinds = {e["event_id"]: e["kind"] for e in events}
    void = {e["undoes"] for e in events if e["kind"] == UNDO}
    standing = [e for e in events if e["event_id"] not in void]
    if not standing or standing[-1]["kind"] != UNDO:
        return None
    return next((e for e in reversed(standing) if e["kind"] == UNDO and kinds.get(e["undoes"], UNDO) != UNDO), None)


def undoable(events: Sequence[Event], actor: str, event_id: str | None = None) -> list[Event]:
    """What a person's next undo takes back, out of many targets' events: their newest decision that holds, or batch.

    A named decision takes the place of the newest.
    """
    mine = [e for e in active_events(events) if e["actor"] == actor]
    chosen = [e for e in mine if event_id in (None, e["event_id"])]
    return _with_batch(chosen[-1], mine, events) if chosen else []


def redoable(events: Sequence[Event], actor: str) -> list[Event]:
    """The undos that a person's next redo takes back, unless they decided on something since."""
    mine = [e for e in events if e["actor"] == actor]
    undo = last_undo(mine)
    if undo is None:
        return []
    taken_back = {e["undoes"] for e in events if e["kind"] == UNDO}
    return [e for e in _with_batch(undo, mine, events) if e["kind"] == UNDO and e["event_id"] not in taken_back]


def _with_batch(event: Event, among: Sequence[Event], events: Sequence[Event]) -> list[Event]:
    """An event with those of its batch, oldest first; an undo is of the batch that it takes back."""
    by_id = {e["event_id"]: e for e in events}

    def batch_of(one: Event) -> str | None:
        undone = by_id.get(one["undoes"]) if one["kind"] == UNDO else None
        batch = (undone or one)["payload"].get("batch")
        return str(batch) if batch else None

    batch = batch_of(event)
    return [e for e in among if e["kind"] == event["kind"] and batch_of(e) == batch] if batch else [event]


def decide(target: Target, events: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The row of `decision` that a target's events add up to; None when every one is undone."""
    held = active_events(without_looks(events))
    statuses = STATUS_OF[target.kind]
    held = [e for e in held if e["kind"] in statuses]
    if not held:
        return None
    counted = [e for e in held if not failed(e)]
    last = counted[-1] if counted else held[-1]
    text, measured = None, None
    for event in counted:
        if event["kind"] in _WRITES:
            text, measured = event["payload"]["text"], event["payload"].get("measured")
        elif event["kind"] == "accept" and event["payload"].get("written"):
            # The machine's words were accepted in place of a person's.
            text = None
    verdicts = [e["payload"].get("verdict") for e in held if e["kind"] == "verdict"]
    return {
        "kind": target.kind,
        "sae_id": target.sae_id,
        "feature_id": target.feature_id,
        "task": target.task,
        "candidate_id": target.candidate_id,
        "list_id": target.list_id,
        "status": statuses[last["kind"]] if counted else "unreviewed",
        "text": text,
        "measured": json.dumps(measured) if measured else None,
        "verdict": verdicts[-1] if verdicts else None,
        "reason": last["payload"].get("reason"),
        "author": last["actor"],
        "at": last["at"],
        "event_id": held[-1]["event_id"],
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
