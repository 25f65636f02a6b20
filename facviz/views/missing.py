"""The missing features as people read them, page by page: what each responds to, and where it fired strongest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from facviz.store.gap import TaskFeatures
from facviz.store.queries import Queries
from facviz.views.coverage import Question
from facviz.views.format import count, interval_percent, number, percent, short
from facviz.views.heat import SpanRow
from facviz.views.live import Live, Sure

PAGE_SIZE = 8
NOT_EXPLAINED = "Not explained yet"
NO_PATTERN = "No clear pattern"
NO_THEME = "no theme"


@dataclass(frozen=True, slots=True)
class MissingFeature:
    """One missing feature, ready to show; `span` is where it fired strongest in the anchor set."""

    feature_id: int
    explanation: str
    theme: str
    n_docs: str
    score: str
    state: str
    span: SpanRow | None


@dataclass(frozen=True, slots=True)
class Headline:
    """The answer in large type and the sentence to repeat."""

    fac: str
    interval: str
    sentence: str


def headline(question: Question, live: Live, sure: Sure | None, task: TaskFeatures) -> Headline:
    """FAC, its interval (empty until it is measured), and one sentence as escaped HTML."""
    bounds = sure.fac if sure else (None, None)
    interval = interval_percent(live.fac, *bounds).removeprefix(percent(live.fac)).strip(" ()")
    seed, anchor = (f"<b>{escape(short(' + '.join(names), 60))}</b>" for names in (question.seeds, question.anchors))
    part = f"{seed} shows the model {count(live.n_covered)} of the {count(live.n_anchor)} features"
    part += f" that this task needs and {anchor} has."
    if not live.n_missing:
        return Headline(percent(live.fac), interval, f"{part} None is missing.")
    gap_words = f'<b class="fv-missing">{count(live.n_missing)} never fire</b>'
    return Headline(percent(live.fac), interval, f"{part} {gap_words}{_mostly(task, live)}.")


def _mostly(task: TaskFeatures, live: Live) -> str:
    themes = Counter(task.theme[f] for f in live.missing.tolist() if task.theme.get(f))
    top = [f"{escape(short(theme, 40))} ({count(n)})" for theme, n in themes.most_common(3)]
    if not top:
        return ""
    listed = top[0] if len(top) == 1 else f"{', '.join(top[:-1])} and {top[-1]}"
    return f", {'all' if len(themes) <= len(top) else 'most of all'} about {listed}"


def ordered_missing(live: Live, task: TaskFeatures, *, theme: str = "", by: str = "relevance") -> list[int]:
    """Missing features of one theme ("" all), most relevant first or in most anchor documents first."""
    ids = [f for f in live.missing.tolist() if not theme or (task.theme.get(f) or NO_THEME) == theme]
    weight: Mapping[int, float] = live.n_docs_of if by == "documents" else task.relevance_score
    return sorted(ids, key=lambda f: (-weight.get(f, 0.0), f))


def themes_of(live: Live, task: TaskFeatures) -> list[str]:
    """Themes among the missing features, the largest gap first; none when nothing has a theme."""
    themes = Counter(task.theme.get(f) or NO_THEME for f in live.missing.tolist())
    return [] if set(themes) <= {NO_THEME} else [theme for theme, _ in themes.most_common()]


def missing_rows(
    queries: Queries, question: Question, live: Live, task: TaskFeatures, ids: Sequence[int], states: Mapping[int, str]
) -> list[MissingFeature]:
    """These features, in this order, with explanation and strongest anchor span."""
    words = explanations(queries, question.sae_id, ids)
    anchor_id = queries.dataset(question.anchor)["dataset_id"]
    spans = queries.rows("strongest_spans", sae_id=question.sae_id, dataset_id=anchor_id, ids=list(ids))
    by_feature = {row["feature_id"]: span_row(row) for row in spans}
    return [
        MissingFeature(
            feature_id=f,
            explanation=words[f],
            theme=task.theme.get(f, ""),
            n_docs=count(live.n_docs_of[f]),
            score=number(task.relevance_score.get(f)),
            state=states.get(f, "missing"),
            span=by_feature.get(f),
        )
        for f in ids
    ]


def explanations(queries: Queries, sae_id: str, ids: Iterable[int]) -> dict[int, str]:
    """What each feature is said to respond to, as one line; what is not known is said in words."""
    wanted = sorted(set(ids))
    rows = queries.rows("explanations_of", sae_id=sae_id, ids=wanted) if wanted else []
    found = {row["feature_id"]: _words_of(row) for row in rows}
    return {f: found.get(f, NOT_EXPLAINED) for f in wanted}


def _words_of(row: Mapping[str, Any]) -> str:
    if row["outcome"] != "explained" or not row["text"].strip():
        return NO_PATTERN
    return short(row["text"], 160)


def span_row(row: Mapping[str, Any], note: str = "") -> SpanRow:
    """A stored span as a row of heat; its own peak is the feature's maximum."""
    peak = row["peak_token"] - row["start_token"]
    inside = 0 <= peak < len(row["tokens"])
    return SpanRow(row["tokens"], row["acts"], row["act"], peak if inside else None, note=note)
