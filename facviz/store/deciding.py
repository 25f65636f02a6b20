"""Deciding through an open database: one thing or many at once, undone and redone to any depth, refused when outdated.

Every decision is stamped and written while the one lock is held, so that the order of stamps is the order in the log.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from facviz.errors import InputError
from facviz.store.events import (
    LOOKS,
    UNDO,
    Event,
    Target,
    active_events,
    as_batch,
    decide,
    event_of,
    last_undo,
    new_event,
    redoable,
    undoable,
    without_looks,
)
from facviz.store.queries import Queries


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision to be recorded; `seen` is the id of the event that the person saw holding, "" for none."""

    target: Target
    kind: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    seen: str | None = None


class Deciding(Queries):
    """What people decide, on disk before it is in the tables."""

    _writing: threading.RLock

    @abstractmethod
    def sync(self) -> bool:
        """Take in what others wrote; whether anything changed."""

    @abstractmethod
    def _log(self, events: Sequence[dict[str, Any]]) -> None:
        """Append events to the log, then to the tables."""

    def record(
        self,
        actor: str,
        target: Target,
        kind: str,
        payload: Mapping[str, Any] | None = None,
        *,
        seen: str | None = None,
    ) -> dict[str, Any]:
        """Append a decision; the event.

        `seen` is the id of the last event that holds on this target as the person saw it, "" for none.

        Raises:
            InputError: the decision does not fit, or somebody decided on the same thing since it was read.
        """
        return self.record_many(actor, [Choice(target, kind, payload or {}, seen)])[0]

    def record_many(self, actor: str, choices: Iterable[Choice]) -> list[dict[str, Any]]:
        """Append decisions as one batch, all or none, which one undo takes back; the events.

        Raises:
            InputError: one does not fit, or somebody decided on the same thing since it was read.
        """
        choices = list(choices)
        with self._writing:
            self.sync()
            before = self._before([choice.target for choice in choices])
            events = []
            for choice in choices:
                held = active_events(before[choice.target.key])
                if choice.seen is not None and choice.payload.get("look") not in LOOKS:
                    _refuse_outdated(held, choice.seen)
                payload = {**_previous(choice.target, held), **choice.payload}
                events.append(new_event(actor, choice.target, choice.kind, payload))
            return self._append(as_batch(events))

    def undo(self, actor: str, target: Target) -> dict[str, Any]:
        """Void the last decision on a target that still holds; again, the one before it, to any depth.

        Raises:
            InputError: nothing is left to undo.
        """
        with self._writing:
            self.sync()
            held = active_events(without_looks(self._events_of(target.key)))
            if not held:
                raise InputError("There is nothing left to undo here.")
            return self._append([_undo(actor, held[-1])])[0]

    def redo(self, actor: str, target: Target) -> dict[str, Any]:
        """Void the last undo on a target, when no other decision came after it.

        Raises:
            InputError: the last event is no undo.
        """
        with self._writing:
            self.sync()
            undone = last_undo(without_looks(self._events_of(target.key)))
            if undone is None:
                raise InputError("There is no undo to take back here.")
            return self._append([_undo(actor, undone)])[0]

    def undo_mine(self, actor: str, event_id: str | None = None, *, kinds: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Void this person's newest decision that holds, on whatever it was, or a named one; with all of its batch.

        `kinds` are those of the targets that count, none for all. What others decided since stays as it is.

        Raises:
            InputError: nothing of theirs is left to undo.
        """
        return self.record_batch(
            lambda events: _undo_all(
                actor, undoable(_of(kinds, events), actor, event_id), "There is nothing of yours left to undo."
            )
        )

    def redo_mine(self, actor: str, *, kinds: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Bring back what this person's newest undo took back, when they decided on nothing since.

        Raises:
            InputError: there is no such undo.
        """
        return self.record_batch(
            lambda events: _undo_all(
                actor, redoable(_of(kinds, events), actor), "There is no undo of yours to take back."
            )
        )

    def record_batch(self, make: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Append what `make` derives from all events so far, as a whole: on disk before in the tables."""
        with self._writing:
            self.sync()
            rows = self.select('SELECT * FROM review_event ORDER BY "at", rowid').to_pylist()
            return self._append(make([event_of(row) for row in rows]))

    def last_target(self, actor: str, kind: str) -> Target | None:
        """What this person decided on last, among decisions that still hold."""
        rows = self.select(
            'SELECT * FROM decision WHERE kind = $kind AND author = $actor ORDER BY "at" DESC LIMIT 1',
            kind=kind,
            actor=actor,
        ).to_pylist()
        return Target(**{f.name: rows[0][f.name] for f in fields(Target)}) if rows else None

    def _append(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if events:
            self._log(events)
        return events

    def _events_of(self, *keys: str) -> list[dict[str, Any]]:
        found = self.select(
            'SELECT * FROM review_event WHERE target IN (SELECT unnest($keys::VARCHAR[])) ORDER BY "at", rowid',
            keys=list(keys),
        )
        return [event_of(row) for row in found.to_pylist()]

    def _before(self, targets: Sequence[Target]) -> dict[str, list[Event]]:
        """Per target the events that decided on it so far."""
        by_target: dict[str, list[Event]] = {target.key: [] for target in targets}
        for event in self._events_of(*by_target) if by_target else []:
            by_target[event["target"]].append(event)
        return {key: without_looks(events) for key, events in by_target.items()}


def _of(kinds: Sequence[str], events: Sequence[Event]) -> list[Event]:
    """Events on targets of these kinds, of any where none is named."""
    return [e for e in events if not kinds or str(e["target"]).partition("/")[0] in kinds]


def _undo_all(actor: str, events: Sequence[Event], nothing: str) -> list[dict[str, Any]]:
    if not events:
        raise InputError(nothing)
    return as_batch([_undo(actor, event) for event in events])


def _undo(actor: str, event: Event) -> dict[str, Any]:
    """The event that voids another; its target is only named, so one that this version does not know fits too."""
    return new_event(actor, Target.parse(event["target"]) or Target("explanation"), UNDO, undoes=event["event_id"]) | {
        "target": event["target"]
    }


def _previous(target: Target, held: Sequence[Event]) -> dict[str, Any]:
    """What a new decision replaces, for its payload; nothing where there was no decision."""
    row = decide(target, held)
    if row is None:
        return {}
    words = {name: row[name] for name in ("text", "verdict", "reason") if row[name]}
    return {"previous": {"status": row["status"], "actor": row["author"], **words}}


def _refuse_outdated(held: Sequence[Event], seen: str) -> None:
    if seen != (held[-1]["event_id"] if held else ""):
        raise InputError(
            f"{held[-1]['actor'] if held else 'Somebody'} changed this while you looked at it; "
            "look at the new state and decide again."
        )
