"""Candidates as people read them: facets with counts, a page of cards, where each text fires, and the file to take."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facviz.store.queries import Queries
from facviz.synthesis.plan import VERIFICATION_MARGIN
from facviz.views.format import count, number, percent
from facviz.views.heat import SpanRow
from facviz.views.missing import explanations
from facviz.views.text import EncodedText

PAGE_SIZE = 5
MAX_SHOWN_CHARS = 4000
REASONS = {
    "step one": "Step 1, for the pair",
    "target does not fire": "Does not fire",
    "target does not fire alone": "Fires only in a batch",
    "not needed": "Not needed any more",
    "copied": "Copied",
    "repetitive": "Repetitive",
    "length": "Too short or long",
    "duplicate": "Duplicate",
    "empty": "Empty",
    "withheld": "Withheld as unsafe",
    "refused": "Refused",
    "invalid": "Invalid reply",
}
PAIR_STATES = {
    "paired": "A strong and a weak text were found.",
    "no_contrast": "No pair: all texts of step 1 fired about equally.",
    "none_active": "No pair: no text of step 1 made the feature fire.",
}


@dataclass(frozen=True, slots=True)
class Facet:
    """A kind of candidate, how many there are, and the values that select them."""

    key: str
    label: str
    n: int
    accepted: bool | None = None
    review: str | None = None
    reason: str | None = None

    @property
    def filters(self) -> dict[str, object]:
        """Parameters of the query."""
        return {"accepted": self.accepted, "review": self.review, "reason": self.reason, "feature_id": None}


@dataclass(frozen=True, slots=True)
class Sample:
    """One candidate, ready to show; `act` and δ are of its target feature, `feature_max` the largest anywhere."""

    candidate_id: str
    synth_id: str
    feature_id: int
    explanation: str
    text: str
    measure: str
    is_accepted: bool
    review: str
    verdict: str
    origin: str
    feature_max: float
    event_id: str

    @property
    def row(self) -> SpanRow:
        """The text without heat."""
        tokens = re.findall(r"\s*\S{1,180}|\s+", self.text[:MAX_SHOWN_CHARS]) or [""]
        return SpanRow(tokens, [0.0] * len(tokens), self.feature_max, None)

    def heat(self, encoded: EncodedText) -> SpanRow:
        """The text with its target feature's activation on every token."""
        acts = encoded.acts_of(self.feature_id)
        peak = max(range(len(acts)), key=acts.__getitem__, default=None)
        fires = peak is not None and acts[peak] > 0
        return SpanRow(encoded.tokens, acts, max(self.feature_max, *acts, 0.0), peak if fires else None)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A candidate nobody decided on, and the event that a reader saw last, "" for none."""

    candidate_id: str
    event_id: str


@dataclass(frozen=True, slots=True)
class Pair:
    """What step 1 found for a feature: its strongest and weakest text."""

    words: str
    strong: str
    weak: str
    strong_act: str
    weak_act: str
    margin: str


def facets(queries: Queries, coverage_id: str) -> list[Facet]:
    """Verified texts by review first, then the reasons why others were turned down, most frequent first."""
    rows = queries.rows("candidate_counts", coverage_id=coverage_id)
    reviews, reasons = Counter[str](), Counter[str]()
    for row in rows:
        tally, name = (reviews, row["review"]) if row["accepted"] else (reasons, row["reason"])
        tally[name] += row["n"]
    found = [Facet("verified", "Verified", reviews.total(), accepted=True)]
    for review, label in (("unreviewed", "To review"), ("approved", "Approved"), ("rejected", "Rejected by people")):
        if reviews[review]:
            found.append(Facet(review, label, reviews[review], accepted=True, review=review))
    for reason, n in reasons.most_common():
        key = re.sub(r"\W+", "_", reason)
        found.append(Facet(f"no_{key}", REASONS.get(reason, reason), n, accepted=False, reason=reason))
    return [facet for facet in found if facet.n]


def sample_page(queries: Queries, run: Mapping[str, Any], facet: Facet, page: int) -> list[Sample]:
    """One page of a facet, counted from 1, in the order the texts were planned."""
    offset = PAGE_SIZE * (page - 1)
    rows = queries.rows("candidate_page", coverage_id=run["coverage_id"], n=PAGE_SIZE, offset=offset, **facet.filters)
    return samples_of(queries, run, rows)


def accepted_of(queries: Queries, run: Mapping[str, Any], feature_id: int) -> Sample | None:
    """The last verified text of a feature."""
    wanted = Facet("", "", 0, accepted=True).filters | {"feature_id": feature_id}
    rows = queries.rows("candidate_page", coverage_id=run["coverage_id"], n=PAGE_SIZE, offset=0, **wanted)
    found = samples_of(queries, run, rows)
    return found[-1] if found else None


def samples_of(queries: Queries, run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """Candidate rows as cards, with their feature's words and the decision somebody would change."""
    ids = sorted({row["feature_id"] for row in rows})
    words = explanations(queries, run["sae_id"], ids)
    anchor_id = queries.dataset(run["anchor"])["dataset_id"]
    spans = queries.rows("strongest_spans", sae_id=run["sae_id"], dataset_id=anchor_id, ids=ids) if ids else []
    largest = {row["feature_id"]: row["act"] for row in spans}
    decided = {row["candidate_id"]: row["event_id"] for row in queries.rows("decisions", kind="candidate", sae_id=None)}
    return [
        Sample(
            candidate_id=row["candidate_id"],
            synth_id=row["synth_id"],
            feature_id=row["feature_id"],
            explanation=words[row["feature_id"]],
            text=row["text"],
            measure=_measure(row),
            is_accepted=bool(row["accepted"]),
            review=row["review"],
            verdict=_verdict(row),
            origin=_origin(row),
            feature_max=max(float(largest.get(row["feature_id"], 0.0)), float(row["act"])),
            event_id=decided.get(row["candidate_id"], ""),
        )
        for row in rows
    ]


def _measure(row: Mapping[str, Any]) -> str:
    bar = f"δ {number(row['act_threshold'])}"
    if not row["act"] > 0:
        return f"does not fire, {bar}"
    how = "fires at" if row["accepted"] else "reaches"
    share = f" · {number(row['act'] / row['act_threshold'])} × δ" if row["act_threshold"] > 0 else ""
    return f"{how} {number(row['act'])}, {bar}{share}"


def _verdict(row: Mapping[str, Any]) -> str:
    """The machine's word, then a person's."""
    if not row["accepted"]:
        return REASONS.get(row["reject_reason"], str(row["reject_reason"]))
    if row["review"] == "unreviewed":
        return "verified, not reviewed yet"
    reason = f": {row['review_reason']}" if row["review_reason"] else ""
    return f"{row['review']} by {row['reviewer']}{reason}"


def _origin(row: Mapping[str, Any]) -> str:
    gates = json.loads(row["gates"] or "{}")
    step = {"pairs": "step 1", "guided": "step 2"}.get(row["step"], row["step"])
    parts = [f"{step}, batch {row['round']}, slot {row['slot']}", f"written by {row['generator']}"]
    parts += [f"prompt {row['prompt']}", f"seed {row['rng_seed']}"]
    if "copied_words" in gates:
        parts.append(f"{count(gates['n_words'])} words, longest copied run {count(gates['copied_words'])}")
    if "distinct_trigrams" in gates:
        parts.append(f"{percent(gates['distinct_trigrams'])} distinct trigrams")
    if row["accepted"]:
        parts.append(f"verified alone above {VERIFICATION_MARGIN} δ")
    return " · ".join(parts)


def pair_of(queries: Queries, sample: Sample) -> Pair | None:
    """Step 1 of the sample's feature."""
    rows = queries.rows("pair_texts", synth_id=sample.synth_id, feature_id=sample.feature_id)
    if not rows:
        return None
    row = rows[0]
    return Pair(
        words=PAIR_STATES.get(row["state"], row["state"]),
        strong=row["strong_text"] or "",
        weak=row["weak_text"] or "",
        strong_act=number(row["strong_act"]),
        weak_act=number(row["weak_act"]),
        margin=number(row["margin"]),
    )


def unreviewed(queries: Queries, run: Mapping[str, Any]) -> list[Waiting]:
    """Every verified text of a run on which nobody decided."""
    rows = queries.rows("waiting_candidates", coverage_id=run["coverage_id"])
    return [Waiting(row["candidate_id"], row["event_id"]) for row in rows]
