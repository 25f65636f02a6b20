"""One feature as a person reads it: what it is said to mean and by whom, where it fires, what it resembles."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facviz.errors import InputError
from facviz.records import Split
from facviz.store.feature_table import feature_row
from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.views.decisions import Judged, Said, read_judged, read_said
from facviz.views.format import UNKNOWN, count, number, percent, short
from facviz.views.heat import SpanRow
from facviz.views.histogram import Histogram
from facviz.views.scope import Looked
from facviz.views.text import EncodedText

Row = Mapping[str, Any]

NOT_EXPLAINED = "Not explained yet"
MAX_SPANS = 50
N_BINS = 32
N_NEIGHBOURS = 8
PROMOTED_STDS = 6.0
"""Standard deviations above the mean from which an output token stands out of what noise ranks first."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The feature on one dataset, formatted."""

    dataset: str
    role: str
    density: str
    documents: str
    of_documents: str
    max_act: str
    p95_act: str
    share: float | None = None  # of its texts, on which it is active


@dataclass(frozen=True, slots=True)
class OutputToken:
    """A token of the model's output, and how far from the mean of all tokens the feature moves it."""

    token: str
    stds: float

    @property
    def stands_out(self) -> bool:
        """Whether it is more than what chance puts first in a vocabulary."""
        return abs(self.stds) > PROMOTED_STDS


@dataclass(frozen=True, slots=True)
class Linked:
    """A feature to go on to: its explanation and why it is here."""

    feature_id: int
    words: str
    why: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A verified text that was written for this feature."""

    text: str
    note: str
    candidate_id: str
    act: float

    @property
    def row(self) -> SpanRow:
        """The text without heat: where in it the feature fires is not stored."""
        words = re.findall(r"\s*\S+", self.text) or [self.text]
        return SpanRow(words, [math.nan] * len(words), 1.0, None, note=self.note, act=self.act, can_try=True)


@dataclass(frozen=True, slots=True)
class FeatureView:
    """All of the page but spans, histogram and history."""

    feature_id: int
    said: Said
    state: str
    theme: str
    marks: Sequence[str]  # dead, always on
    judged: Sequence[Judged]
    measured: Sequence[Measured]
    neighbours: Sequence[Linked]
    output_tokens: Sequence[OutputToken]  # promoted, strongest first
    low_tokens: Sequence[OutputToken]  # suppressed, strongest first
    samples: Sequence[Sample]
    feature_max: float  # over all datasets: the scale of the heat
    act_threshold: float | None
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of one dataset, those the explanation was written from apart from those that score it."""

    shown: Sequence[SpanRow]
    held_out: Sequence[SpanRow]

    @property
    def texts(self) -> list[str]:
        """The windows as they stand in the texts."""
        return ["".join(row.tokens).strip() for row in (*self.shown, *self.held_out)]


@dataclass(frozen=True, slots=True)
class Tested:
    """A reader's own text under the feature."""

    row: SpanRow
    max_act: float
    verdict: str
    is_active: bool
    others: Sequence[Linked]


def read_feature(queries: Queries, looked: Looked, feature_id: int) -> FeatureView:
    """Everything about a feature in one SAE.

    Raises:
        InputError: this SAE has no such feature.
    """
    stats = queries.rows("feature_stats_of", sae_id=looked.sae_id, mode=MODE, feature_id=feature_id)
    if not stats:
        raise InputError(
            f"SAE {looked.sae_id[:6]} has no feature {feature_id}; choose one on the Features page, or another SAE."
        )
    row = feature_row(queries, looked.table, feature_id)
    live = queries.named("live_features", **looked.table.parameters)["feature_id"].to_numpy()
    p95 = {r["name"]: r["p95_act"] for r in stats}
    delta = looked.act_threshold(p95.get(looked.run["anchor"]) if looked.run else None)
    written = queries.rows("feature_candidates", sae_id=looked.sae_id, feature_id=feature_id)
    directions = queries.rows("feature_direction", sae_id=looked.sae_id, feature_id=feature_id)
    direction: Row = directions[0] if directions else {}
    place = int(np.searchsorted(live, feature_id))
    later = place + int(place < len(live) and live[place] == feature_id)
    return FeatureView(
        feature_id=feature_id,
        said=read_said(queries, looked.sae_id, feature_id),
        state=row.get("state", ""),
        theme=row.get("theme") or "",
        marks=[words for flag, words in (("is_dead", "dead"), ("is_always_on", "always on")) if row.get(flag)],
        judged=read_judged(queries, looked, feature_id),
        measured=[
            *(_measured(r) for r in sorted(stats, key=lambda r: r["name"] != looked.dataset.name)),
            *_generated(written, delta),
        ],
        neighbours=_neighbours(queries, looked.sae_id, direction),
        output_tokens=_output_tokens(direction, "top"),
        low_tokens=_output_tokens(direction, "low"),
        samples=_samples(written),
        feature_max=max((float(r["max_act"] or 0) for r in stats), default=0.0),
        act_threshold=delta,
        before=int(live[place - 1]) if place > 0 else None,
        after=int(live[later]) if later < len(live) else None,
    )


def first_feature(queries: Queries, looked: Looked) -> int | None:
    """The feature to show when none is named: the lowest live id."""
    live = queries.named("live_features", **looked.table.parameters)["feature_id"].to_numpy()
    return int(live[0]) if len(live) else None


def any_feature(queries: Queries, looked: Looked, rng_seed: int | None = None) -> int | None:
    """A live feature drawn at random."""
    live = queries.named("live_features", **looked.table.parameters)["feature_id"].to_numpy()
    return int(np.random.default_rng(rng_seed).choice(live)) if len(live) else None


def read_spans(queries: Queries, looked: Looked, feature_id: int, feature_max: float, n: int = 5) -> Spans:
    """The strongest spans of the chosen dataset: up to n the explanation may rest on, and n held out to score it."""
    rows = queries.rows(
        "feature_spans",
        sae_id=looked.sae_id,
        dataset_id=looked.dataset.dataset_id,
        feature_id=feature_id,
        n=min(n, MAX_SPANS),
    )
    halves = {half: [_span(r, feature_max) for r in rows if r["split"] == half] for half in Split}
    return Spans(halves[Split.EXPLAIN], halves[Split.SCORE])


def read_histogram(queries: Queries, looked: Looked, feature_id: int) -> Histogram | None:
    """Highest activation of each text on which the feature is active; None when it is nowhere."""
    found = queries.named("feature_doc_maxima", **looked.table.parameters, feature_id=feature_id)
    acts = found["max_act"].to_numpy()
    if not len(acts):
        return None
    counts, edges = np.histogram(acts, bins=N_BINS, range=(0.0, float(acts.max())))
    return Histogram(edges.tolist(), counts.tolist(), len(acts))


def try_text(queries: Queries, view: FeatureView, sae_id: str, encoded: EncodedText) -> Tested:
    """What a typed text does to this feature, and which others fire most on it."""
    acts = encoded.acts_of(view.feature_id)
    peak = int(np.argmax(acts)) if any(acts) else None
    top = max(acts, default=0.0)
    strongest = [found for found in encoded.strongest(N_NEIGHBOURS + 1) if found[0] != view.feature_id]
    words = _words_of(queries, sae_id, [f for f, _, _ in strongest])
    others = [
        Linked(f, words.get(f, NOT_EXPLAINED), f"activation {number(act)} on “{short(encoded.tokens[i].strip(), 20)}”")
        for f, act, i in strongest[:N_NEIGHBOURS]
    ]
    delta = view.act_threshold
    is_active = top > (delta or 0.0)
    if peak is None:
        verdict = "It does not fire on this text."
    elif delta is None:
        verdict = f"It fires with {number(top)}."
    else:
        verdict = f"Its maximum is {number(top)}, {'above' if is_active else 'not above'} δ {number(delta)}."
    row = SpanRow(encoded.tokens, acts, max(view.feature_max, top), peak)
    return Tested(row, top, verdict, is_active, others)


def _measured(row: Row) -> Measured:
    return Measured(
        dataset=row["name"],
        role=row["role"] or UNKNOWN,
        density=percent(row["density"]),
        documents=count(row["n_docs"]),
        of_documents=f"of {count(row['n_all_docs'])} in this data set",
        max_act=number(row["max_act"]) if row["max_act"] else UNKNOWN,
        p95_act=number(row["p95_act"]),
        share=row["n_docs"] / row["n_all_docs"] if row["n_all_docs"] else None,
    )


def _neighbours(queries: Queries, sae_id: str, direction: Row) -> list[Linked]:
    pairs = zip(direction.get("neighbours") or (), direction.get("neighbour_cosines") or ())
    near = [(f, cosine) for f, cosine in pairs if cosine > 0][:N_NEIGHBOURS]
    words = _words_of(queries, sae_id, [f for f, _ in near])
    return [Linked(f, words.get(f, NOT_EXPLAINED), f"cosine {number(cosine)}") for f, cosine in near]


def read_together(queries: Queries, looked: Looked, together: Sequence[Row]) -> list[Linked]:
    """The features of `store.related.active_together`, to go on to."""
    words = _words_of(queries, looked.sae_id, [row["feature_id"] for row in together])
    return [
        Linked(
            row["feature_id"],
            words.get(row["feature_id"], NOT_EXPLAINED),
            f"Jaccard {number(row['jaccard'])}: {count(row['n_both'])} texts with both, "
            f"{count(row['n_docs'])} with feature {row['feature_id']}",
        )
        for row in together
    ]


def _words_of(queries: Queries, sae_id: str, ids: Sequence[int]) -> dict[int, str]:
    rows = queries.rows("explanations_of", sae_id=sae_id, ids=list(ids))
    return {r["feature_id"]: short(r["text"], 90) for r in rows if r["text"]}


def _output_tokens(direction: Row, end: str) -> list[OutputToken]:
    """The tokens at one end, none where they were not computed or the direction moves no token."""
    std = direction.get("logit_std") or 0.0
    if not std > 0:
        return []
    pairs = zip(direction.get(f"{end}_tokens") or (), direction.get(f"{end}_logits") or ())
    return [OutputToken(token, (logit - (direction["logit_mean"] or 0.0)) / std) for token, logit in pairs]


def _samples(rows: Sequence[Row]) -> list[Sample]:
    found = []
    for row in rows:
        if row["accepted"]:
            review = "" if row["review"] == "unreviewed" else f" · {row['review']} by {row['reviewer']}"
            note = f"verified above δ {number(row['act_threshold'])}{review}"
            found.append(Sample(row["text"], note, row["candidate_id"], float(row["act"])))
    return found


def _generated(rows: Sequence[Row], act_threshold: float | None) -> list[Measured]:
    """The texts that were written for the feature, as one more dataset; none where none were."""
    if not rows:
        return []
    is_active = [(row["act"] or 0.0) > (act_threshold or row["act_threshold"] or 0.0) for row in rows]
    return [
        Measured(
            dataset="generated",
            role="generated",
            density=UNKNOWN,
            documents=count(sum(is_active)),
            of_documents=f"above δ, of {count(len(rows))} written for this feature",
            max_act=number(max(float(row["act"] or 0.0) for row in rows)),
            p95_act=UNKNOWN,
            share=sum(is_active) / len(rows),
        )
    ]


def _span(row: Row, feature_max: float) -> SpanRow:
    peak = int(row["peak"])
    inside = 0 <= peak < len(row["tokens"])
    note = f"text {row['doc_no'] + 1}" + (f" · label {short(row['label'], 40)}" if row["label"] else "")
    return SpanRow(
        tokens=row["tokens"],
        acts=row["acts"],
        feature_max=feature_max,
        peak=peak if inside else None,
        before=row["text_before"] or "",
        after=row["text_after"] or "",
        note=note,
    )
