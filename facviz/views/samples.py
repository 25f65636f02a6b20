"""Candidates as people read them: lists with counts, one candidate and its neighbours, and where its text fires."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from facviz.store.events import event_of, failed
from facviz.store.queries import Queries
from facviz.views.format import count, number
from facviz.views.heat import SpanRow
from facviz.views.missing import explanations
from facviz.views.palette import Mode, palette
from facviz.views.text import EncodedText

Row = Mapping[str, Any]

PAGE_SIZE = 8
MAX_SHOWN_CHARS = 4000
REASONS = {
    "step one": "Step 1, for the pair",
    "tuning": "Tried a strength",
    "target does not fire": "Does not fire",
    "target does not fire alone": "Fires only in a batch",
    "not needed": "Not needed any more",
    "no missing feature fires": "Fires nothing missing",
    "no missing feature fires alone": "Fires nothing alone",
    "copied": "Copied",
    "fires only on copied words": "Fires only on copies",
    "near duplicate": "Near duplicate",
    "near duplicate in meaning": "Says the same",
    "artefact": "Generator’s marks",
    "not fluent": "Not fluent",
    "degenerate": "Degenerate",
    "fires too broadly": "Fires too broadly",
    "judged off task": "Off task",
    "repetitive": "Repetitive",
    "length": "Too short or long",
    "duplicate": "Duplicate",
    "empty": "Empty",
    "withheld": "Withheld as unsafe",
    "refused": "Refused",
    "invalid": "Invalid reply",
    "invalid format": "Not in its form",
}
"""Reason of the machine → as people read it; what stands behind a colon is added, and one that is not here is shown."""
REVIEWS = {
    "unreviewed": "To review",
    "approved": "Approved",
    "edited": "Edited",
    "rejected": "Rejected by people",
}
REJECT_REASONS = ("off topic", "not fluent", "not what the feature means", "copied", "unsafe")


@dataclass(frozen=True, slots=True)
class Facet:
    """A kind of candidate, how many there are, and the values that select them."""

    key: str
    label: str
    n: int
    accepted: bool | None = None
    review: str | None = None
    reason: str | None = None
    feature_id: int | None = None

    @property
    def filters(self) -> dict[str, object]:
        """Parameters of the query."""
        return {
            "accepted": self.accepted,
            "review": self.review,
            "reason": self.reason,
            "feature_id": self.feature_id,
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """One candidate, ready to show; `act` and δ are of its target feature, `feature_max` the largest anywhere."""

    candidate_id: str
    synth_id: str
    feature_id: int
    explanation: str
    text: str
    messages: Sequence[Mapping[str, str]]
    measure: str
    share: str
    is_accepted: bool
    review: str
    verdict: str
    feature_max: float
    event_id: str
    row: Row = field(repr=False, default_factory=dict)

    @property
    def role(self) -> str:
        """Who speaks the text, for the model that reads it."""
        speakers = [m["role"] for m in self.messages if m["content"] == self.text]
        return speakers[-1] if speakers else self.messages[-1]["role"] if self.messages else "user"

    @property
    def fields(self) -> dict[str, Any] | None:
        """What the task's format holds beside the text; None where the text is all there is."""
        found = json.loads(self.row.get("fields") or "null")
        return found if isinstance(found, dict) else None

    @property
    def written_text(self) -> str:
        """What the generator wrote, where a person's text stands in its place; else ""."""
        return str(self.row.get("written_text") or "")

    def heat(self, encoded: EncodedText) -> SpanRow:
        """The text with its target feature's activation on every token."""
        acts = encoded.acts_of(self.feature_id)
        peak = max(range(len(acts)), key=acts.__getitem__, default=None)
        fires = peak is not None and acts[peak] > 0
        return SpanRow(encoded.tokens, acts, max(self.feature_max, *acts, 0.0), peak if fires else None)


@dataclass(frozen=True, slots=True)
class Place:
    """A candidate in its list: which comes before and after, and which of how many it is, 0 where it is not in it."""

    candidate_id: str
    place: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A candidate nobody decided on, and the event that a reader saw last, "" for none."""

    candidate_id: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Tried:
    """An edit that did not verify: kept in the log, and changing nothing."""

    text: str
    words: str


@dataclass(frozen=True, slots=True)
class Edit:
    """A text that a person put in place of a candidate's; `seen` is the decision that it was read with."""

    candidate_id: str
    sae_id: str
    text: str
    was: str
    seen: str


def plain_span(text: str, feature_max: float) -> SpanRow:
    """A text without heat."""
    tokens = re.findall(r"\s*\S{1,180}|\s+", text[:MAX_SHOWN_CHARS]) or [""]
    return SpanRow(tokens, [0.0] * len(tokens), feature_max, None)


def reason_words(reason: str) -> str:
    """Why the machine turned a text down, as people read it."""
    kind, colon, detail = reason.partition(": ")
    return f"{REASONS.get(kind, kind)}{colon}{detail}"


def facets(queries: Queries, coverage_id: str, feature_id: int | None = None) -> list[Facet]:
    """Verified texts by review first, then the reasons why others were turned down, most frequent first."""
    rows = queries.rows("candidate_counts", coverage_id=coverage_id)
    reviews, reasons = Counter[str](), Counter[str]()
    for row in rows:
        if feature_id in (None, row["feature_id"]):
            tally, name = (reviews, row["review"]) if row["accepted"] else (reasons, row["reason"])
            tally[name] += row["n"]
    found = [
        Facet(review, label, reviews[review], accepted=True, review=review, feature_id=feature_id)
        for review, label in REVIEWS.items()
    ]
    found.append(Facet("verified", "Verified", reviews.total(), accepted=True, feature_id=feature_id))
    for reason, n in reasons.most_common():
        key = re.sub(r"\W+", "_", reason)
        label = reason_words(reason)
        found.append(Facet(f"no_{key}", label, n, accepted=False, reason=reason, feature_id=feature_id))
    return [facet for facet in found if facet.n]


def tried_features(queries: Queries, coverage_id: str) -> list[int]:
    """Features that candidates were written for, in the order of their ids."""
    rows = queries.rows("candidate_counts", coverage_id=coverage_id)
    return sorted({row["feature_id"] for row in rows if row["feature_id"] >= 0})


def tally_html(found: Sequence[Facet], mode: Mode) -> str:
    """What became of all candidates as one thin bar: green those that verified, grey by reason the others."""
    colours = palette(mode)
    parts = [f for f in found if f.key == "verified" or f.reason is not None]
    total = sum(f.n for f in parts)
    if not total:
        return ""
    cells = []
    for i, facet in enumerate(parts):
        colour = colours.filled if facet.accepted else (colours.covered, colours.exhausted)[i % 2]
        title = escape(f"{facet.label}: {count(facet.n)} of {count(total)}")
        style = f"flex:{facet.n} 1 0;min-width:2px;background:{colour}"
        cells.append(f'<div style="{style}" title="{title}"></div>')
    bar = "display:flex;gap:1px;height:10px;border-radius:5px;overflow:hidden"
    return f'<div style="{bar}" role="img" aria-label="{escape(_spoken(parts))}">{"".join(cells)}</div>'


def _spoken(parts: Sequence[Facet]) -> str:
    return ", ".join(f"{facet.label} {count(facet.n)}" for facet in parts)


def find_place(queries: Queries, run: Row, facet: Facet, candidate_id: str) -> Place | None:
    """Where a candidate stands in a list, "" for its first; one that left the list has the first after it."""
    asked = {"coverage_id": run["coverage_id"], **facet.filters}
    for wanted in dict.fromkeys((candidate_id, "")):
        for row in queries.rows("candidate_place", candidate_id=wanted, **asked):
            if wanted == candidate_id:
                return Place(row["candidate_id"], row["place"], row["before"] or "", row["after"] or "")
            if read_sample(queries, run, candidate_id) is not None:
                return Place(candidate_id, 0, "", row["candidate_id"])
            return Place(row["candidate_id"], row["place"], "", row["after"] or "")
    known = candidate_id and read_sample(queries, run, candidate_id) is not None
    return Place(candidate_id, 0, "", "") if known else None


def read_sample(queries: Queries, run: Row, candidate_id: str) -> Sample | None:
    """One candidate of a run by its id."""
    rows = queries.rows("read_candidate", coverage_id=run["coverage_id"], candidate_id=candidate_id)
    return next(iter(samples_of(queries, run, rows)), None)


def sample_page(queries: Queries, run: Row, facet: Facet, page: int) -> list[Sample]:
    """One page of a facet, counted from 1, in the order the texts were planned."""
    offset = PAGE_SIZE * (page - 1)
    rows = queries.rows("candidate_page", coverage_id=run["coverage_id"], n=PAGE_SIZE, offset=offset, **facet.filters)
    return samples_of(queries, run, rows)


def accepted_of(queries: Queries, run: Row, feature_id: int) -> Sample | None:
    """The last verified text of a feature."""
    found = sample_page(queries, run, Facet("", "", 0, accepted=True, feature_id=feature_id), 1)
    return found[-1] if found else None


def samples_of(queries: Queries, run: Row, rows: Sequence[Row]) -> list[Sample]:
    """Candidate rows as cards, with their feature's words and the decision somebody would change."""
    if not rows:
        return []
    ids = sorted({row["feature_id"] for row in rows})
    words = explanations(queries, run["sae_id"], ids)
    anchor_id = queries.dataset(run["anchor"])["dataset_id"]
    spans = queries.rows("strongest_spans", sae_id=run["sae_id"], dataset_id=anchor_id, ids=ids)
    largest = {row["feature_id"]: row["act"] for row in spans}
    decided = {row["candidate_id"]: row["event_id"] for row in queries.rows("decisions", kind="candidate", sae_id=None)}
    return [
        Sample(
            candidate_id=row["candidate_id"],
            synth_id=row["synth_id"],
            feature_id=row["feature_id"],
            explanation=words[row["feature_id"]],
            text=row["text"],
            messages=row["messages"] or (),
            measure=_measure(row),
            share=share_words(row["act"], row["act_threshold"]),
            is_accepted=bool(row["accepted"]),
            review=row["review"],
            verdict=_verdict(row),
            feature_max=max(float(largest.get(row["feature_id"], 0.0)), float(row["act"])),
            event_id=decided.get(row["candidate_id"], ""),
            row=row,
        )
        for row in rows
    ]


def share_words(act: float | None, act_threshold: float | None) -> str:
    """An activation in proportion to δ: `1.12 × δ`; the activation itself where δ is 0."""
    if act is None or not act > 0:
        return "silent"
    return f"{number(act / act_threshold)} × δ" if act_threshold and act_threshold > 0 else number(act)


def _measure(row: Row) -> str:
    bar = f"δ {number(row['act_threshold'])}"
    if not row["act"] > 0:
        return f"does not fire, {bar}"
    how = "fires at" if row["accepted"] else "reaches"
    share = f" · {share_words(row['act'], row['act_threshold'])}" if row["act_threshold"] > 0 else ""
    return f"{how} {number(row['act'])}, {bar}{share}"


def _verdict(row: Row) -> str:
    """The machine's word, then a person's."""
    if not row["accepted"]:
        return reason_words(str(row["reject_reason"]))
    if row["review"] == "unreviewed":
        return "verified, not reviewed yet"
    reason = f": {row['review_reason']}" if row["review_reason"] else ""
    return f"{row['review']} by {row['reviewer']}{reason}"


def failed_edit(queries: Queries, candidate_id: str) -> Tried | None:
    """The newest thing done to a candidate, where that is an edit which did not verify."""
    events = [event_of(row) for row in queries.rows("events_of", target=f"candidate/{candidate_id}")]
    held = [e for e in events if e["kind"] != "undo"]
    void = {e["undoes"] for e in events if e["kind"] == "undo"}
    if not held or held[-1]["event_id"] in void or not failed(held[-1]):
        return None
    measured = held[-1]["payload"]["measured"]
    reason = str(measured.get("reject_reason") or "")
    why = reason_words(reason)
    share = share_words(measured.get("act"), measured.get("act_threshold"))
    return Tried(str(held[-1]["payload"].get("text", "")), f"{why.lower() or 'did not verify'}, {share}")


def unreviewed(queries: Queries, run: Row, feature_id: int | None = None) -> list[Waiting]:
    """Every verified text of a run, or of one feature of it, on which nobody decided."""
    rows = queries.rows("waiting_candidates", coverage_id=run["coverage_id"])
    return [Waiting(r["candidate_id"], r["event_id"]) for r in rows if feature_id in (None, r["feature_id"])]


def edit_of(sample: Sample, run: Row, text: str) -> Edit:
    """A person's text in place of the generator's, ready to be verified."""
    return Edit(sample.candidate_id, run["sae_id"], text, sample.text, sample.event_id)


def gates_of(row: Row) -> dict[str, Any]:
    """What the gates measured; nothing where it cannot be read."""
    try:
        found = json.loads(row.get("gates") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
