"""Many decisions as one: recorded as a whole, taken back as a whole; what somebody already decided is left alone."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facviz.errors import InputError
from facviz.store.database import Database
from facviz.store.events import UNDO, Target, active_events, new_event
from facviz.store.queries import Queries

MAX_BATCH = 20_000
"""As many features as one decision may cover; more at a time nobody has looked at."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One decision on many targets: who made it, when, what, and on how many it still holds."""

    batch_id: str
    actor: str
    at: str
    kind: str
    payload: Mapping[str, Any]
    n_decisions: int


def decide_all(
    database: Database, actor: str, targets: Sequence[Target], kind: str, payload: Mapping[str, Any] | None = None
) -> Batch:
    """Decide the same on every target on which no decision holds, whoever made it; the rest stays as it is.

    Raises:
        InputError: there are too many targets, or somebody has decided on every one.
    """
    if len(targets) > MAX_BATCH:
        raise InputError(f"These are {len(targets):,} features; narrow them to {MAX_BATCH:,} before deciding on all.")
    batch_id = uuid.uuid4().hex
    marked = {**(payload or {}), "batch": batch_id}

    def make(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        decided = {key for key, listed in _by_target(events).items() if active_events(listed)}
        return [new_event(actor, t, kind, marked) for t in targets if t.key not in decided]

    events = database.record_batch(make)
    if not events:
        raise InputError("Somebody has decided on every one of these already; nothing was changed.")
    return Batch(batch_id, actor, events[0]["at"], kind, marked, len(events))


def undo_batch(database: Database, actor: str, batch_id: str) -> int:
    """Take back every decision of a batch that still holds, later ones on the same targets staying; how many.

    Raises:
        InputError: none of them holds any more.
    """

    def make(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        undone: list[dict[str, Any]] = []
        for key, listed in _by_target(events).items():
            target = Target.parse(key)
            held = [e for e in active_events(listed) if _batch_of(e) == batch_id]
            if target is not None:
                undone += [new_event(actor, target, UNDO, undoes=e["event_id"]) for e in held]
        return undone

    events = database.record_batch(make)
    if not events:
        raise InputError("This was taken back already; nothing is left to undo.")
    return len(events)


def last_batch(queries: Queries, actor: str) -> Batch | None:
    """The newest batch of this person of which anything still holds."""
    for row in queries.rows("batches_by", actor=actor):
        logged = queries.rows("events_of_batch", batch=row["batch"])
        held = [
            e
            for listed in _by_target(logged).values()
            for e in active_events(listed)
            if json.loads(e["payload"]).get("batch") == row["batch"]
        ]
        if held:
            payload = json.loads(held[0]["payload"])
            return Batch(row["batch"], actor, str(held[0]["at"]), str(held[0]["kind"]), payload, len(held))
    return None


def _by_target(events: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    listed: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if isinstance(event.get("target"), str):
            listed[event["target"]].append(event)
    return listed


def _batch_of(event: Mapping[str, Any]) -> str:
    payload = event.get("payload")
    return str(payload.get("batch", "")) if isinstance(payload, dict) else ""
