"""What people and machines say of one feature: the words that hold, verdicts on tasks, and how it came to that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from facviz.store.events import (
    UNDO,
    Target,
    active_events,
    decide,
    event_of,
    explanation_of,
    last_undo,
    look_of,
    without_looks,
)
from facviz.store.queries import Queries
from facviz.views.format import UNKNOWN, ago, number
from facviz.views.heat import word_diff_html
from facviz.views.scope import Looked

Row = Mapping[str, Any]

REJECT_REASONS = ("too broad", "too narrow", "wrong", "token only", "polysemantic", "unsafe")
VERDICTS = ("yes", "probably", "maybe", "no")
STATUS_WORDS = {
    "unreviewed": "not reviewed",
    "accepted": "accepted",
    "edited": "edited",
    "rejected": "rejected",
    "unsure": "cannot tell",
    "flagged": "flagged",
    "skipped": "skipped",
}
"""Status of an explanation → as people read it."""

_DID = {
    "accept": "accepted it",
    "edit": "wrote",
    "reject": "rejected it",
    "unsure": "could not tell",
    "reopen": "reopened it",
    "flag": "flagged it",
    "skip": "skipped it",
    "verdict": "judged it",
}


@dataclass(frozen=True, slots=True)
class Said:
    """The explanation that holds, and what can be done with it; `seen` is the decision it was read with."""

    text: str
    written: str  # what the machine wrote, "" for nothing
    by: str
    written_by: str
    status: str
    reason: str
    note: str
    score: str
    written_score: str
    seen: str
    can_undo: bool
    can_redo: bool

    @property
    def is_explained(self) -> bool:
        """Whether there are words at all."""
        return bool(self.text)


@dataclass(frozen=True, slots=True)
class Judged:
    """What was said about a task: the machine's verdict in words, and the person's, "" for none."""

    task: str
    by_machine: str
    why: str
    by_person: str
    person: str
    seen: str


@dataclass(frozen=True, slots=True)
class Happened:
    """One decision as it stands in the log."""

    who: str
    when: str
    at: str
    what: str
    diff_html: str  # escaped
    is_void: bool


def read_said(queries: Queries, sae_id: str, feature_id: int) -> Said:
    """The explanation of a feature as it stands now."""
    rows = queries.rows("feature_explanation", sae_id=sae_id, feature_id=feature_id)
    row: Row = rows[0] if rows else {}
    events = without_looks(_events(queries, explanation_of(sae_id, feature_id)))
    holding = active_events(events)
    machine = next(iter(queries.rows("written_explanation", sae_id=sae_id, feature_id=feature_id)), {})
    return Said(
        text=row.get("text") or "",
        written=row.get("written") or "",
        by=_by(row),
        written_by=_by(machine),
        status=row.get("status") or "unreviewed",
        reason=row.get("reason") or "",
        note=str(holding[-1]["payload"].get("note") or "") if holding else "",
        score=_score(row),
        written_score=_score(machine),
        seen=str(holding[-1]["event_id"]) if holding else "",
        can_undo=bool(holding),
        can_redo=last_undo(events) is not None,
    )


def _by(row: Row) -> str:
    how = {"lexical": "by counting words", "llm": "by a language model", "human": "by a person"}
    return " · ".join(part for part in (str(row.get("author") or ""), how.get(row.get("author_kind") or "")) if part)


def _score(row: Row) -> str:
    return number(json.loads(row.get("scores") or "{}").get("embedding_auroc"))


def _events(queries: Queries, target: Target) -> list[dict[str, Any]]:
    return [event_of(row) for row in queries.rows("events_of", target=target.key)]


def read_judged(queries: Queries, looked: Looked, feature_id: int) -> list[Judged]:
    """Verdicts on every task that was ever judged with this SAE."""
    decisions = queries.rows("feature_decisions", sae_id=looked.sae_id, feature_id=feature_id)
    rows = queries.rows("feature_relevance", sae_id=looked.sae_id, feature_id=feature_id)
    mine = {d["task"]: d for d in decisions if d["kind"] == "relevance"}
    found = []
    for task in looked.tasks:
        machine = [r for r in rows if r["task"] == task and r["source"] != "human"]
        machine.sort(key=lambda r: r["source"] != looked.source)
        first = machine[0] if machine else None
        said = f"{first['verdict']} by {first['source']}" if first else UNKNOWN
        person = mine.get(task)
        found.append(
            Judged(
                task=task,
                by_machine=said,
                why=str(first["rationale"] or "") if first else "",
                by_person=str(person["verdict"] or "") if person else "",
                person=str(person["author"] or "") if person else "",
                seen=str(person["event_id"]) if person else "",
            )
        )
    return found


def read_history(queries: Queries, target: Target, now: datetime) -> list[Happened]:
    """Every event on an explanation, newest first, with what it changed in the words."""
    events = _events(queries, target)
    rows = queries.rows("feature_explanation", sae_id=target.sae_id, feature_id=target.feature_id)
    written = str(rows[0]["written"]) if rows else ""
    holding = {e["event_id"] for e in active_events(events)}
    texts = [written, *(_text_after(target, events[: i + 1], written) for i in range(len(events)))]
    happened = [
        Happened(
            who=str(event["actor"] or UNKNOWN),
            when=ago(event["at"], now),
            at=str(event["at"] or UNKNOWN),
            what=_what(event, events),
            diff_html=word_diff_html(before, after) if before != after else "",
            is_void=event["kind"] != UNDO and event["event_id"] not in holding,
        )
        for event, before, after in zip(events, texts, texts[1:])
    ]
    return happened[::-1]


def _text_after(target: Target, events: Sequence[Row], written: str) -> str:
    row = decide(target, events)
    return str(row["text"] or written) if row else written


def _what(event: Row, events: Sequence[Row]) -> str:
    if event["kind"] != UNDO:
        more = [str(event["payload"][name]) for name in ("reason", "note") if event["payload"].get(name)]
        look = " in a second look" if look_of(event) == "second" else " when asked again" if look_of(event) else ""
        return _DID.get(event["kind"], str(event["kind"])) + look + (f": {' · '.join(more)}" if more else "")
    undone = next((e for e in events if e["event_id"] == event["undoes"]), None)
    if undone is None:
        return "took something back"
    verb = "brought back" if undone["kind"] == UNDO else "took back"
    if undone["kind"] == UNDO:
        undone = next((e for e in events if e["event_id"] == undone["undoes"]), undone)
    return f"{verb} what {undone['actor']} did"
