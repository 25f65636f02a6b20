"""Addresses that people gave a name, kept as events: saving and removing is durable, and nothing is rewritten."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from facviz.errors import InputError
from facviz.store.database import Database
from facviz.store.queries import Queries

MAX_NAME, MAX_VIEWS = 60, 200
_SAVE, _REMOVE = "save_view", "remove_view"


@dataclass(frozen=True, slots=True)
class SavedView:
    """A name for what a page shows: its address, who saved it and when."""

    name: str
    query: Mapping[str, str]
    actor: str
    at: str


def saved_views(queries: Queries, page: str) -> list[SavedView]:
    """The views of a page that were saved and not removed, by name."""
    found: dict[str, SavedView] = {}
    for row in queries.rows("saved_view_events", prefix=f"view/{page}/"):
        name, payload = str(row["target"]).split("/", 2)[2], json.loads(row["payload"])
        found.pop(name, None)
        if row["kind"] == _SAVE and isinstance(payload.get("query"), dict):
            query = {str(k): str(v) for k, v in payload["query"].items()}
            found[name] = SavedView(name, query, str(row["actor"]), str(row["at"]))
    return sorted(found.values(), key=lambda view: view.name.casefold())


def save_view(database: Database, actor: str, page: str, name: str, query: Mapping[str, str]) -> None:
    """Keep an address under a name; a view of the same name is replaced.

    Raises:
        InputError: the name is empty or too long, or there are too many views.
    """
    name = " ".join(name.split())
    if not name:
        raise InputError("The view has no name; write a few words that say what it shows.")
    if len(name) > MAX_NAME:
        raise InputError(f"The name has {len(name)} characters; keep it to {MAX_NAME}.")
    if len(saved_views(database, page)) >= MAX_VIEWS:
        raise InputError(f"There are {MAX_VIEWS} views already; remove one first.")
    _log(database, actor, page, name, _SAVE, {"query": dict(query)})


def remove_view(database: Database, actor: str, page: str, name: str) -> None:
    """Forget a view."""
    _log(database, actor, page, name, _REMOVE, {})


def _log(database: Database, actor: str, page: str, name: str, kind: str, payload: Mapping[str, Any]) -> None:
    event = {
        "event_id": uuid.uuid4().hex,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "actor": actor,
        "target": f"view/{page}/{name}",
        "kind": kind,
        "payload": dict(payload),
        "undoes": None,
    }
    database.record_batch(lambda _: [event])
