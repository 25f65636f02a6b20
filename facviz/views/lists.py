"""Lists of features that people keep: which there are, what is on them and why, and which ones a feature is on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from facviz.errors import InputError
from facviz.store.database import Database
from facviz.store.events import list_of, listed_of
from facviz.store.queries import Queries
from facviz.views.feature import NOT_EXPLAINED
from facviz.views.format import ago, count_of, short


@dataclass(frozen=True, slots=True)
class FeatureList:
    """A named list; `words` is its name with how many features of the SAE are on it."""

    list_id: str
    name: str
    words: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A feature's place on a list."""

    list_id: str
    name: str
    feature_id: int
    note: str
    who: str
    when: str
    explanation: str = ""


def read_lists(queries: Queries, sae_id: str | None) -> list[FeatureList]:
    """All lists by name; counts are of one SAE, or of all where none is given."""
    rows = queries.rows("feature_lists", sae_id=sae_id)
    return [
        FeatureList(row["list_id"], row["name"], f"{row['name']} · {count_of(row['n_features'], 'feature')}")
        for row in rows
    ]


def deleted_lists(queries: Queries) -> list[FeatureList]:
    """Lists that were deleted and can be brought back, the last one first."""
    rows = [row for row in queries.rows("decisions", kind="list", sae_id=None) if row["status"] == "deleted"]
    return [FeatureList(row["list_id"], row["text"] or "", row["text"] or "") for row in reversed(rows)]


def lists_of(queries: Queries, sae_id: str, feature_id: int, now: datetime) -> list[Listed]:
    """The lists a feature is on."""
    rows = queries.rows("lists_of_feature", sae_id=sae_id, feature_id=feature_id)
    return [_listed(row, now) for row in rows]


def read_listed(queries: Queries, list_id: str, sae_id: str, now: datetime) -> list[Listed]:
    """The features of one SAE on a list, in the order they were put there."""
    return [_listed(row, now) for row in queries.rows("listed_features", list_id=list_id, sae_id=sae_id)]


def add_to_list(database: Database, actor: str, sae_id: str, feature_id: int, chosen: str, note: str) -> str:
    """Put a feature on the list of this id or name; a name that no list has makes a new one. The list's id.

    Raises:
        InputError: there is no name, or it or the note is too long.
    """
    lists = read_lists(database, None)
    name = " ".join(chosen.split())
    known = [item.list_id for item in lists if chosen == item.list_id or item.name.casefold() == name.casefold()]
    list_id = known[0] if known else uuid4().hex
    if not known:
        database.record(actor, list_of(list_id), "create", {"text": chosen})
    database.record(actor, listed_of(sae_id, feature_id, list_id), "add", {"text": note})
    return list_id


def rename_list(database: Database, actor: str, list_id: str, name: str) -> None:
    """Give a list another name.

    Raises:
        InputError: the name is empty, too long, or that of another list.
    """
    wanted = " ".join(name.split())
    for other in read_lists(database, None):
        if other.list_id != list_id and other.name.casefold() == wanted.casefold():
            raise InputError(f"There is a list named {other.name} already; choose another name.")
    database.record(actor, list_of(list_id), "rename", {"text": name})


def _listed(row: dict[str, object], now: datetime) -> Listed:
    return Listed(
        list_id=str(row["list_id"]),
        name=str(row["name"]),
        feature_id=int(str(row["feature_id"])),
        note=str(row["note"] or ""),
        who=str(row["author"] or ""),
        when=ago(str(row["at"] or ""), now),
        explanation=short(str(row.get("explanation") or ""), 90) if row.get("explanation") else NOT_EXPLAINED,
    )
