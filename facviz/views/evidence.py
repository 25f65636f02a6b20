"""The evidence for one feature: spans by activation interval, near misses, and texts on which it is silent.

Intervals are quarters of the feature's own maximum over all datasets, the scale of the heat, so that two datasets can
be compared. Near misses are those an explainer is shown: spans of the nearest features, from texts without this one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np

from facviz.explain.sampling import N_INTERVALS, ExplainSpans, interval_of, nearest_negatives
from facviz.records import Split
from facviz.spans import spans_by_feature
from facviz.store.queries import Queries
from facviz.store.related import doc_maxima, excerpts, spans_around
from facviz.store.schema import MODE
from facviz.views.format import count, number, percent, short
from facviz.views.heat import NEAR_TOKENS, Context, SpanRow, spans_html
from facviz.views.palette import Mode
from facviz.views.scope import Looked

Row = Mapping[str, Any]

MAX_SPANS = 50
"""Stored spans of each half that are looked at."""
NEAR_SPANS = 10
"""Spans of each near feature among which near misses are looked for."""
_QUARTERS = ("weakest", "second weakest", "second strongest", "strongest")


@dataclass(frozen=True, slots=True)
class Group:
    """Texts under one heading; `share` is of the texts on which the feature fires, None where that says nothing."""

    title: str
    note: str
    rows: Sequence[SpanRow]
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Groups in the order they are read, and one sentence for when there are none."""

    groups: Sequence[Group]
    nothing: str = ""

    @property
    def texts(self) -> list[str]:
        """The windows as they stand in the texts."""
        return [row.text for group in self.groups for row in group.rows]


def read_intervals(queries: Queries, looked: Looked, feature_id: int, feature_max: float, n: int = 5) -> Evidence:
    """Up to n texts of each activation interval, strongest interval first; repeated wordings are folded.

    Where fewer spans were kept than there are texts, the rest is drawn at random and shown without heat.
    """
    dataset_id = looked.dataset.dataset_id
    doc_nos, acts = doc_maxima(queries, looked.sae_id, dataset_id, feature_id)
    if not len(doc_nos):
        return Evidence([], "This feature fires on none of these texts.")
    stored = queries.rows(
        "feature_spans", sae_id=looked.sae_id, dataset_id=dataset_id, feature_id=feature_id, n=MAX_SPANS
    )
    stored.sort(key=lambda row: -row["act"])
    kept: list[list[SpanRow]] = [[] for _ in range(N_INTERVALS)]
    for row in stored:
        kept[interval_of(row["act"], feature_max)].append(_span(row, feature_max))
    intervals = np.array([interval_of(act, feature_max) for act in acts.tolist()], np.int64)
    known = {row["doc_no"] for row in stored}
    rng = np.random.default_rng([0, feature_id])
    drawn = [_draw(doc_nos[intervals == i], known, max(0, n - len(kept[i])), rng) for i in range(N_INTERVALS)]
    found = excerpts(queries, dataset_id, [doc for docs in drawn for doc in docs])
    act_of = dict(zip(doc_nos.tolist(), acts.tolist()))
    groups = []
    for i in reversed(range(N_INTERVALS)):
        rows = fold(kept[i])[:n]
        rows += [_excerpt(found[doc], act_of[doc]) for doc in drawn[i] if doc in found][: n - len(rows)]
        groups.append(_interval(i, int((intervals == i).sum()), len(doc_nos), feature_max, rows))
    return Evidence(groups)


def read_near_misses(queries: Queries, looked: Looked, feature_id: int, feature_max: float, n: int = 5) -> Evidence:
    """Spans of the features with the nearest decoder directions, from texts on which this one is silent."""
    direction = queries.rows("feature_direction", sae_id=looked.sae_id, feature_id=feature_id)
    found = direction[0] if direction else {}
    pairs = zip(found.get("neighbours") or (), found.get("neighbour_cosines") or ())
    near = [int(feature) for feature, cosine in pairs if cosine > 0]
    if not near:
        return Evidence([], "No feature with a similar direction is known, so there are no near misses to show.")
    dataset_id = looked.dataset.dataset_id
    rows = spans_around(
        queries,
        looked.sae_id,
        dataset_id,
        [feature_id, *near],
        split=Split.EXPLAIN,
        n=max(NEAR_SPANS, n),
    )
    spans = {feature: ExplainSpans(tuple(found)) for feature, found in spans_by_feature(rows).items()}
    fires_in = set(doc_maxima(queries, looked.sae_id, dataset_id, feature_id)[0].tolist())
    chosen = nearest_negatives(spans, {feature_id: near}, {feature_id: fires_in}, n=n) if spans else {}
    by_place = {(row["feature_id"], row["rank"]): row for row in rows}
    shown = [by_place[span.feature_id, span.rank] for span in chosen.get(feature_id, ExplainSpans()).spans]
    if not shown:
        return Evidence([], "Every text on which the nearest features fire most has this one as well.")
    words = {r["feature_id"]: r["text"] for r in queries.rows("explanations_of", sae_id=looked.sae_id, ids=near)}
    note = "the nearest features fire, this one does not; the outline marks where the other peaks"
    return Evidence([Group("Near misses", note, [_miss(row, words, feature_max) for row in shown])])


def read_silent(queries: Queries, looked: Looked, feature_id: int, n: int = 5) -> Evidence:
    """Texts on which the feature is nowhere active, drawn at random, the same ones every time."""
    dataset_id = looked.dataset.dataset_id
    encoded = queries.named("encoded_documents", sae_id=looked.sae_id, dataset_id=dataset_id, mode=MODE)
    fires, _ = doc_maxima(queries, looked.sae_id, dataset_id, feature_id)
    silent = np.setdiff1d(encoded["doc_no"].to_numpy().astype(np.int64), fires)
    if not len(silent):
        return Evidence([], "This feature fires on every one of these texts.")
    drawn = _draw(silent, set(), n, np.random.default_rng([1, feature_id]))
    found = excerpts(queries, dataset_id, drawn)
    share = percent(len(silent) / max(encoded.num_rows, 1))
    note = f"it fires nowhere in {count(len(silent))} of {count(encoded.num_rows)} ({share})"
    return Evidence([Group("Random other texts", note, [_excerpt(found[doc], 0.0) for doc in drawn if doc in found])])


def fold(rows: Iterable[SpanRow]) -> list[SpanRow]:
    """One row for those with the same words around the peak, the strongest; its note says how many more there are."""
    alike: dict[object, list[SpanRow]] = {}
    for row in rows:
        alike.setdefault(_wording(row), []).append(row)
    return [_folded(found) for found in alike.values()]


def evidence_html(evidence: Evidence, *, mode: Mode, context: Context, warn: bool) -> str:
    """All groups as one escaped block."""
    parts = []
    for group in evidence.groups:
        bar = ""
        if group.share is not None:
            width = round(100 * min(max(group.share, 0.0), 1.0), 1)
            bar = f'<div class="fv-bar"><div style="width:{width}%"></div></div>'
        parts.append(f'<div class="fv-group"><b>{escape(group.title)}</b>{bar}<span>{escape(group.note)}</span></div>')
        parts.append(
            spans_html([replace(row, can_try=True) for row in group.rows], mode=mode, context=context, warn=warn)
        )
    return "".join(parts)


def _interval(i: int, n_docs: int, n_all: int, feature_max: float, rows: Sequence[SpanRow]) -> Group:
    low, high = (number(feature_max * edge / N_INTERVALS) for edge in (i, i + 1))
    share = n_docs / n_all
    texts = f"{count(n_docs)} text{'' if n_docs == 1 else 's'}"
    note = f"{percent(share)} of the texts it fires on · {texts}" if n_docs else "none of the texts it fires on"
    return Group(f"{low} to {high} · {_QUARTERS[i]}", note, rows, share)


def _draw(doc_nos: Any, known: set[int], n: int, rng: np.random.Generator) -> list[int]:
    free = [doc for doc in doc_nos.tolist() if doc not in known]
    return [int(doc) for doc in rng.choice(free, min(n, len(free)), replace=False)] if free and n else []


def _wording(row: SpanRow) -> object:
    """What makes two spans look alike: the words within ±5 tokens of the peak, however they are spaced or written."""
    centre = row.peak if row.peak is not None else 0
    near = "".join(row.tokens[max(0, centre - NEAR_TOKENS) : centre + NEAR_TOKENS + 1])
    return " ".join(near.casefold().split())


def _folded(rows: Sequence[SpanRow]) -> SpanRow:
    first, n_more = rows[0], len(rows) - 1
    if not n_more:
        return first
    return replace(first, note=f"{first.note} · {n_more} more with these words")


def _span(row: Row, feature_max: float) -> SpanRow:
    peak = int(row["peak"])
    acts = list(row["acts"])
    if 0 <= peak < len(acts):
        acts[peak] = row["act"]  # the window is kept in half precision, its peak is not
    half = "held out" if row["split"] == Split.SCORE else ""
    return SpanRow(
        tokens=row["tokens"],
        acts=acts,
        feature_max=feature_max,
        peak=peak if 0 <= peak < len(row["tokens"]) else None,
        before=row["text_before"] or "",
        after=row["text_after"] or "",
        note=_note(row, half),
        act=float(row["act"]),
    )


def _miss(row: Row, words: Mapping[int, str], feature_max: float) -> SpanRow:
    feature = int(row["feature_id"])
    ring = int(row["peak_token"]) - int(row["start_token"])
    said = short(words.get(feature), 80) if words.get(feature) else "not explained yet"
    return SpanRow(
        tokens=row["tokens"],
        acts=[0.0] * len(row["tokens"]),
        feature_max=feature_max,
        peak=None,
        before=row["text_before"] or "",
        after=row["text_after"] or "",
        note=_note(row, f"feature {feature} fires here: {said}"),
        act=0.0,
        ring=ring if 0 <= ring < len(row["tokens"]) else None,
    )


def _excerpt(row: Row, act: float) -> SpanRow:
    """The beginning of a text of which no span was kept: on which words it fires is not known, or known to be none."""
    words = re.findall(r"\s*\S+", row["text"]) or [row["text"]]
    note = _note(row, "where in it was not kept: try it" if act > 0 else "")
    acts = [math.nan if act > 0 else 0.0] * len(words)
    return SpanRow(words, acts, 1.0, None, after=row["text_after"] or "", note=note, act=act)


def _note(row: Row, *more: str) -> str:
    parts = [f"text {row['doc_no'] + 1}"]
    parts += [f"label {short(row['label'], 40)}"] if row["label"] else []
    return " · ".join([*parts, *(part for part in more if part)])
