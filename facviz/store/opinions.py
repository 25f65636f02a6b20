"""What each person thinks of each thing: one row a person and target, from the same log as the state of the target.

`decision` says what holds for everybody. An `opinion` is a person's own newest decision that holds, made on their own:
on something undecided, or decided by themselves before, or as a second look with the first one hidden. Whoever
decides on what another person's decision shows them agrees or not, but is no second witness.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from facviz.store.events import Event, Target, active_events, failed, look_of

LABELS = {"accept": "accepted", "edit": "edited", "reject": "rejected", "unsure": "unsure", "approve": "approved"}
"""Kinds of event that are an opinion, and what it is called; a verdict is called by its name."""


def opinions(events: Iterable[Event]) -> list[dict[str, Any]]:
    """The `opinion` rows of a whole log: per person and target the newest, and the newest of their hidden repeats."""
    log = [e for e in events if isinstance(e.get("target"), str) and isinstance(e.get("payload"), dict)]
    by_target: dict[str, list[Event]] = defaultdict(list)
    for event in log:
        by_target[event["target"]].append(event)
    rows: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for key, listed in by_target.items():
        target = Target.parse(key)
        if target is None:
            continue
        labels = {e["event_id"]: label_of(e) for e in listed}
        for event in active_events(listed):
            if labels[event["event_id"]] and _is_own(event):
                is_repeat = look_of(event) == "repeat"
                rows[key, event["actor"], is_repeat] = _row(target, event, labels)
    return list(rows.values())


def label_of(event: Event) -> str:
    """What a decision says, "" where it says nothing about the thing, as a skip."""
    if event["kind"] == "verdict":
        return str(event["payload"].get("verdict") or "")
    return "" if failed(event) else LABELS.get(event["kind"], "")


def _is_own(event: Event) -> bool:
    previous = event["payload"].get("previous")
    before = previous.get("actor") if isinstance(previous, Mapping) else None
    return bool(look_of(event)) or before in (None, event["actor"])


def _row(target: Target, event: Event, labels: Mapping[str, str]) -> dict[str, Any]:
    payload = event["payload"]
    seconds = payload.get("seconds")
    return {
        "kind": target.kind,
        "sae_id": target.sae_id,
        "feature_id": target.feature_id,
        "task": target.task,
        "candidate_id": target.candidate_id,
        "actor": event["actor"],
        "look": look_of(event),
        "label": labels[event["event_id"]],
        "text": str(payload["text"]) if payload.get("text") else None,
        "reason": str(payload["reason"]) if payload.get("reason") else None,
        "first_label": labels.get(str(payload.get("of")), ""),
        "is_blind": bool(payload.get("blind")),
        "saw_machine": bool(payload.get("saw", True)),
        "seconds": float(seconds) if isinstance(seconds, int | float) else None,
        "at": event["at"],
        "event_id": event["event_id"],
    }
