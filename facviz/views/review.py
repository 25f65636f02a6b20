"""The review queue: which explanation comes next, how far it is, and what this reader decided lately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from facviz.store.events import UNDO, Target
from facviz.store.feature_table import review_queue
from facviz.store.queries import Queries
from facviz.views.decisions import STATUS_WORDS
from facviz.views.format import UNKNOWN, ago, count, number, percent
from facviz.views.scope import Looked

ORDERS = {
    "gap": "Largest effect on coverage",
    "score": "Weakest explanation",
    "density": "Most frequent feature",
}
FILTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "waiting": ("To review", ("unreviewed", "skipped")),
    "accepted": ("Accepted", ("accepted",)),
    "edited": ("Edited", ("edited",)),
    "rejected": ("Rejected", ("rejected",)),
    "flagged": ("Flagged", ("flagged",)),
    "skipped": ("Skipped", ("skipped",)),
    "all": ("All", tuple(STATUS_WORDS)),
}
"""Filter → its name and the statuses it lets through."""

_DID = {
    "accept": "accepted",
    "edit": "edited",
    "reject": "rejected",
    "flag": "flagged",
    "skip": "skipped",
    "verdict": "judged",
    "approve": "approved",
}


@dataclass(frozen=True, slots=True)
class QueueView:
    """Where a reader stands: the feature to look at, its neighbours in the queue, and the counts of every filter."""

    feature_id: int | None  # None: the queue is empty
    place: int | None  # from 1; None when the feature is not among those asked for
    n: int
    before: int | None
    after: int | None
    counts: Mapping[str, int]
    n_done: int
    n_all: int


@dataclass(frozen=True, slots=True)
class MyDecision:
    """One of a reader's own decisions; `can_undo` while it is the last one that holds on its target."""

    target: Target
    event_id: str
    words: str
    when: str
    can_undo: bool


def read_queue(queries: Queries, looked: Looked, order: str, wanted: str, feature_id: int | None) -> QueueView:
    """The queue around a feature; without one, or with one that is not explained, its first member."""
    queue = review_queue(queries, looked.table, order if order in ORDERS else "gap")
    ids, status = queue.feature_ids, queue.status
    counts = {name: int(np.isin(status, statuses).sum()) for name, (_, statuses) in FILTERS.items()}
    is_in = np.isin(status, FILTERS.get(wanted, FILTERS["waiting"])[1])
    found = np.flatnonzero(ids == feature_id) if feature_id is not None else np.empty(0, np.int64)
    members = np.flatnonzero(is_in)
    if not len(found) and not len(members):
        return QueueView(None, None, 0, None, None, counts, len(ids) - counts["waiting"], len(ids))
    here = int(found[0]) if len(found) else int(members[0])
    earlier, later = members[members < here], members[members > here]
    return QueueView(
        feature_id=int(ids[here]),
        place=len(earlier) + 1 if is_in[here] else None,
        n=len(members),
        before=int(ids[earlier[-1]]) if len(earlier) else None,
        after=int(ids[later[0]])
        if len(later)
        else int(ids[members[0]])
        if len(members) and members[0] != here
        else None,
        counts=counts,
        n_done=len(ids) - counts["waiting"],
        n_all=len(ids),
    )


def my_decisions(queries: Queries, actor: str, now: datetime, n: int = 10) -> list[MyDecision]:
    """What this reader decided lately, newest first; undos are not listed, only what they took back."""
    found = []
    for event in queries.rows("events_by", actor=actor, n=n):
        target = Target.parse(str(event["target"] or ""))
        if target is None or event["kind"] == UNDO:
            continue
        what = f"feature {target.feature_id}" if target.feature_id >= 0 else f"sample {target.candidate_id[:6]}"
        about = f" for {target.task}" if target.task else ""
        words = f"{_DID.get(event['kind'], event['kind'])} {what}{about}"
        found.append(MyDecision(target, event["event_id"], words, ago(event["at"], now), bool(event["is_latest"])))
    return found


def pace(times: Sequence[float], now: float) -> str:
    """Decisions a minute in this session, from their times in seconds; unknown below two."""
    if len(times) < 2 or now <= times[0]:
        return UNKNOWN
    return number(60 * len(times) / (now - times[0]))


def progress(view: QueueView) -> tuple[float, str]:
    """Share of explanations that were reviewed, and in words."""
    share = view.n_done / view.n_all if view.n_all else 0.0
    return share, f"{count(view.n_done)} of {count(view.n_all)} reviewed · {percent(share)}"
