"""The review queue: which explanation comes next and why, how far the work is, and what this reader decided lately."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from facviz.store.events import UNDO, Target, active_events, event_of, look_of
from facviz.store.queries import Queries
from facviz.store.review_queue import STATES, STATUSES, Parts, Queue, found_by_text, read_review_queue, repeatable
from facviz.views.decisions import STATUS_WORDS
from facviz.views.format import UNKNOWN, ago, count, number, percent
from facviz.views.scope import Looked

ORDERS = {
    "value": "Most worth a look",
    "score": "Weakest explanation",
    "density": "Most frequent feature",
}
FILTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "waiting": ("To review", ("unreviewed", "skipped")),
    "accepted": ("Accepted", ("accepted",)),
    "edited": ("Corrected", ("edited",)),
    "rejected": ("Rejected", ("rejected",)),
    "unsure": ("Cannot tell", ("unsure",)),
    "flagged": ("Flagged", ("flagged",)),
    "skipped": ("Skipped", ("skipped",)),
    "second": ("Second look", ()),
    "mixed": ("To settle", ()),
    "all": ("All", STATUSES),
}
"""List → its name and the statuses it lets through; `second` and `mixed` depend on who decided instead."""
STATE_WORDS = {
    "": "Any coverage",
    "missing": "Missing",
    "exhausted": "Tried, not filled",
    "filled": "Filled",
    "covered": "Covered",
    "none": "Not counted",
}
WEAK = 0.7
"""Held-out scores up to this one are weak, for the filter of that name."""
TARGETS = ("explanation", "relevance")
"""Kinds of things that are decided on this page."""
REPEAT_EVERY, REPEAT_FROM, REPEAT_NOT_LAST = 20, 20, 10
"""One decision in 20 is asked again, once 20 were made, never one of the last 10."""

_DID = {
    "accept": "accepted",
    "edit": "corrected",
    "reject": "rejected",
    "unsure": "could not tell",
    "flag": "flagged",
    "skip": "skipped",
    "reopen": "reopened",
    "verdict": "judged",
}
_EFFECTS = {
    "missing": "missing from the seed set",
    "exhausted": "missing, synthesis gave up",
    "filled": "missing, filled by samples",
    "covered": "covered by the seed set",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reader wants to see, as it stands in the address; a saved queue is one of these with a name."""

    order: str = "value"
    show: str = "waiting"
    state: str = ""
    weak: str = ""  # "1": only weak scores
    words: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Asked:
        """From an address or a log; what does not exist falls back to the default."""
        found = {f.name: str(values.get(f.name) or "")[:200] for f in fields(cls)}
        return cls(
            order=found["order"] if found["order"] in ORDERS else "value",
            show=found["show"] if found["show"] in FILTERS else "waiting",
            state=found["state"] if found["state"] in STATE_WORDS else "",
            weak="1" if found["weak"] == "1" else "",
            words=found["words"].strip(),
        )

    @property
    def address(self) -> dict[str, str | None]:
        """For the address: defaults are left out."""
        plain = Asked()
        return {name: value if value != getattr(plain, name) else None for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class SavedQueue:
    """A named filter that everybody who opens the workspace finds again."""

    name: str
    asked: Asked
    by: str


@dataclass(frozen=True, slots=True)
class QueueView:
    """Where a reader stands: the feature to look at, its neighbours in the queue, and the counts of every list."""

    feature_id: int | None  # None: the queue is empty
    place: int | None  # from 1; None when the feature is not among those asked for
    n: int
    before: int | None
    after: int | None
    counts: Mapping[str, int]
    n_done: int
    n_all: int
    why: Sequence[tuple[str, str]] = ()  # parts of the value of the feature, in words


@dataclass(frozen=True, slots=True)
class MyDecision:
    """One of a reader's own decisions; `can_undo` while it holds."""

    target: Target
    event_id: str
    words: str
    when: str
    can_undo: bool


def read_queue(
    queries: Queries, looked: Looked, asked: Asked, feature_id: int | None, me: str, parts: Parts | None = None
) -> QueueView:
    """The queue around a feature; without one, or with one that is not explained, its first member."""
    queue, is_in, counts = _members(queries, looked, asked, me, parts)
    ids = queue.feature_id
    found = np.flatnonzero(ids == feature_id) if feature_id is not None else np.empty(0, np.int64)
    members = np.flatnonzero(is_in)
    waiting = [STATUSES.index(s) for s in FILTERS["waiting"][1]]
    n_done = int((~np.isin(queue.status, waiting)).sum())  # of all, whatever the filters let through
    if not len(found) and not len(members):
        return QueueView(None, None, 0, None, None, counts, n_done, len(ids))
    here = int(found[0]) if len(found) else int(members[0])
    earlier, later = members[members < here], members[members > here]
    around = int(ids[members[0]]) if len(members) and members[0] != here else None
    return QueueView(
        feature_id=int(ids[here]),
        place=len(earlier) + 1 if is_in[here] else None,
        n=len(members),
        before=int(ids[earlier[-1]]) if len(earlier) else None,
        after=int(ids[later[0]]) if len(later) else around,
        counts=counts,
        n_done=n_done,
        n_all=len(ids),
        why=_why(queue, here),
    )


def members_of(queries: Queries, looked: Looked, asked: Asked, me: str) -> tuple[Sequence[int], Sequence[float]]:
    """Every feature of a list in its order, with its held-out score."""
    queue, is_in, _ = _members(queries, looked, asked, me)
    return queue.feature_id[is_in].tolist(), queue.score[is_in].tolist()


def _members(
    queries: Queries, looked: Looked, asked: Asked, me: str, parts: Parts | None = None
) -> tuple[Queue, npt.NDArray[np.bool_], dict[str, int]]:
    """All features in the order asked for, which of them the list holds, and how many each list holds."""
    queue = read_review_queue(queries, looked.table, me, parts)
    if asked.order == "score":
        queue = _ordered(queue, np.where(np.isnan(queue.score), np.inf, queue.score))
    elif asked.order == "density":
        queue = _ordered(queue, -queue.density)
    fits = np.ones(len(queue.feature_id), np.bool_)
    if asked.state:
        fits &= queue.state == STATES.index(asked.state)
    if asked.weak:
        fits &= queue.score <= WEAK  # NaN is not
    if asked.words:
        fits &= np.isin(queue.feature_id, found_by_text(queries, looked.sae_id, asked.words))
    per_status = np.bincount(queue.status[fits], minlength=len(STATUSES))
    counts = {
        name: int(sum(per_status[STATUSES.index(s)] for s in statuses)) for name, (_, statuses) in FILTERS.items()
    }
    counts |= {"second": int((queue.is_second & fits).sum()), "mixed": int((queue.is_mixed & fits).sum())}
    if asked.show == "second":
        return queue, queue.is_second & fits, counts
    if asked.show == "mixed":
        return queue, queue.is_mixed & fits, counts
    wanted = [STATUSES.index(s) for s in FILTERS[asked.show][1]]
    return queue, np.isin(queue.status, wanted) & fits, counts


def _ordered(queue: Queue, by: npt.NDArray[np.float64]) -> Queue:
    """Re-ordered; of equal ones the more valuable stays in front."""
    order = np.argsort(by, kind="stable")
    return replace(queue, **{f.name: getattr(queue, f.name)[order] for f in fields(queue)})


def _why(queue: Queue, i: int) -> list[tuple[str, str]]:
    """The formula of `store.review_queue` for one feature, part by part."""
    state = STATES[queue.state[i]]
    effect = _EFFECTS.get(state) or ("one step below relevant" if queue.is_below[i] else "changes no coverage")
    effect += ", near δ" if queue.is_near[i] else ""
    unsure = [f"score {number(queue.score[i])}" if np.isfinite(queue.score[i]) else "not scored"]
    if queue.disagreement[i]:
        unsure.append("sources disagree on relevance" if queue.disagreement[i] == 1 else "two explainers share no word")
    if queue.near_level[i] >= 0.5:
        unsure.append("verdict near the level")
    return [
        ("Worth a look", f"{number(queue.value[i])} = effect × uncertainty"),
        ("Effect on coverage", f"{number(queue.effect[i])} · {effect}"),
        ("Uncertainty", f"{number(queue.uncertainty[i])} · {', '.join(unsure)}"),
    ]


def next_repeat(queries: Queries, sae_id: str, me: str, event_id: str) -> int | None:
    """The feature to be asked again, unmarked, after a decision; mostly None. The decision's own id is the lot."""
    if int(event_id[:8], 16) % REPEAT_EVERY:
        return None
    found = repeatable(queries, sae_id, me, REPEAT_NOT_LAST)
    if len(found) < REPEAT_FROM - REPEAT_NOT_LAST:
        return None
    return int(found[int(event_id[8:16], 16) % len(found)]["feature_id"])


def saved_queues(queries: Queries) -> list[SavedQueue]:
    """Queues that people saved in this workspace, by name; the newest of a name counts."""
    found: dict[str, SavedQueue] = {}
    for event in map(event_of, queries.rows("queue_events")):
        target = Target.parse(event["target"])
        if target is None:
            continue
        found.pop(target.task, None)
        if event["kind"] == "save":
            found[target.task] = SavedQueue(target.task, Asked.of(event["payload"].get("asked") or {}), event["actor"])
    return sorted(found.values(), key=lambda queue: queue.name.casefold())


def my_decisions(queries: Queries, actor: str, now: datetime, n: int = 10) -> list[MyDecision]:
    """What this reader decided lately, newest first; undos are not listed, only what they took back."""
    events = [event_of(row) for row in queries.rows("recent_decisions_by", actor=actor, n=n)]
    holding = {row["event_id"] for row in active_events(_with_undos(queries, events))}
    found = []
    for event in events:
        target = Target.parse(str(event["target"] or ""))
        if target is None or event["kind"] == UNDO:
            continue
        about = f" for {target.task}" if target.task else ""
        words = f"{_DID.get(event['kind'], event['kind'])} feature {target.feature_id}{about}"
        words += " · second look" if look_of(event) == "second" else ""
        words += f" · {_seconds(event['payload'].get('seconds'))}" if "seconds" in event["payload"] else ""
        is_holding = event["event_id"] in holding
        found.append(MyDecision(target, event["event_id"], words, ago(event["at"], now), is_holding))
    return found


def _with_undos(queries: Queries, events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The events of all targets touched, so that undos of undos are seen."""
    targets = list(dict.fromkeys(e["target"] for e in events))
    return [event_of(row) for row in queries.rows("events_of_many", among=targets)] if targets else []


def _seconds(value: object) -> str:
    return f"{number(value)} s" if isinstance(value, int | float) else UNKNOWN


def pace(times: Sequence[float], now: float) -> str:
    """Decisions a minute in this session, from their times in seconds; unknown below two."""
    if len(times) < 2 or now <= times[0]:
        return UNKNOWN
    return number(60 * len(times) / (now - times[0]))


def progress(view: QueueView) -> tuple[float, str]:
    """Share of explanations that were reviewed, and in words."""
    share = view.n_done / view.n_all if view.n_all else 0.0
    return share, f"{count(view.n_done)} of {count(view.n_all)} reviewed · {percent(share)}"


def describe(asked: Asked, n: int) -> str:
    """A filter in words, for the preview of what it lets through."""
    parts = [f"{count(n)} in “{FILTERS[asked.show][0]}”"]
    parts += [STATE_WORDS[asked.state].lower()] if asked.state else []
    parts += [f"score at most {WEAK}"] if asked.weak else []
    parts += [f"explanation has “{asked.words}”"] if asked.words else []
    return ", ".join(parts)


def asked_json(asked: Asked) -> dict[str, str]:
    """What a saved queue keeps in the log."""
    return {name: value for name, value in json.loads(json.dumps(asdict(asked))).items() if value}


def status_words(status: str) -> str:
    """A status as people read it."""
    return STATUS_WORDS.get(status, status)
