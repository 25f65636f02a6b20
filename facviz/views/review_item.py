"""One item of the review queue as it may be shown: blind, or as if nobody had decided on it yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from facviz.store.queries import Queries
from facviz.views.decisions import Judged
from facviz.views.feature import FeatureView
from facviz.views.format import UNKNOWN, number

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A feature as drawn: `look` measures only, `is_hidden` keeps the machine's words away until the reader decided."""

    view: FeatureView
    judged: Judged | None
    look: str  # "", second or repeat
    of: str  # the decision that a repeat repeats
    is_blind: bool
    is_hidden: bool
    written_instead: str  # the machine's words, beside the reader's own that were written blind
    others: Sequence[tuple[str, str]] = ()  # who decided what, while people differ

    @property
    def payload(self) -> dict[str, Any]:
        """What a decision on it says of the circumstances."""
        found: dict[str, Any] = {"blind": self.is_blind, "saw": not self.is_hidden}
        if self.look:
            found["look"] = self.look
        if self.of:
            found["of"] = self.of
        return found


def show_item(
    queries: Queries, view: FeatureView, sae_id: str, task: str, me: str, *, look: str, blind: bool, revealed: bool
) -> Item:
    """What of a feature may be seen now."""
    rows = queries.rows("opinions_of", sae_id=sae_id, feature_id=view.feature_id)
    mine = [row for row in rows if row["actor"] == me]
    own = next((r for r in mine if r["kind"] == "explanation" and _counts(r, look)), None)
    verdict = next((r for r in mine if r["kind"] == "relevance" and r["task"] == task and _counts(r, look)), None)
    said, judged = view.said, next((j for j in view.judged if j.task == task), None)
    if look:
        said = replace(
            said, text=said.written, by=said.written_by, status="unreviewed", reason="", score=said.written_score
        )
    is_hidden = blind and not revealed and own is None
    if judged is not None:
        judged = _judged(judged, look, verdict, is_hidden=blind and not revealed and verdict is None)
    wrote_blind = own is not None and not look and not own["saw_machine"] and said.status == "edited"
    if is_hidden:
        said = replace(said, text="", by="", score=UNKNOWN)
    first = next((r["event_id"] for r in mine if r["kind"] == "explanation" and r["look"] != "repeat"), "")
    return Item(
        view=replace(view, said=said, state="" if is_hidden else view.state, theme="" if is_hidden else view.theme),
        judged=judged,
        look=look,
        of=str(first) if look == "repeat" else "",
        is_blind=blind,
        is_hidden=is_hidden,
        written_instead=view.said.written if wrote_blind else "",
        others=[] if look or is_hidden else _others(rows),
    )


def _counts(row: Row, look: str) -> bool:
    """Whether a reader's opinion is about the item as it is looked at: a repeat starts afresh."""
    return bool(row["look"] == look) if look else row["look"] != "repeat"


def _judged(judged: Judged, look: str, verdict: Row | None, *, is_hidden: bool) -> Judged:
    if look:  # one's own verdict alone, with the event that an undo takes back
        own = (str(verdict["label"]), str(verdict["actor"]), str(verdict["event_id"])) if verdict else ("", "", "")
        judged = replace(judged, by_person=own[0], person=own[1], seen=own[2])
    return replace(judged, by_machine="", why="", by_person="", person="") if is_hidden else judged


def _others(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Who decided what, where not everybody decided the same."""
    said = [row for row in rows if row["kind"] == "explanation"]
    if len({row["label"] for row in said}) < 2:
        return []
    return [(_who(row), _what(row)) for row in said]


def _who(row: Row) -> str:
    return f"{row['actor']}, asked again" if row["look"] == "repeat" else str(row["actor"])


def _what(row: Row) -> str:
    words = {"edited": "wrote", "unsure": "cannot tell"}.get(row["label"], str(row["label"]))
    words += f": {row['text']}" if row["text"] else f": {row['reason']}" if row["reason"] else ""
    return words + (f" · {number(row['seconds'])} s" if row["seconds"] is not None else "")
