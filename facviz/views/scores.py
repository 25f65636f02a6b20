"""How well one feature's explanation held: every score with its n, interval, baseline and judge, as compact HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from facviz.store.queries import Queries
from facviz.views.format import UNKNOWN, count, interval_percent, percent, visible

Row = Mapping[str, Any]

KINDS = {
    "embedding": "Similarity",
    "detection": "Detection",
    "fuzzing": "Fuzzing",
    "intruder": "Intruder",
}
"""Kind of score → as people read it, in the order of the block."""

WHAT_IT_ASKS = {
    "embedding": "How often a held-out text with the feature is more similar to the explanation than one without "
    "(AUROC; 50 % is chance). No language model.",
    "detection": "Share of held-out texts, with and without the feature, that a judge told apart by the explanation.",
    "fuzzing": "Share of held-out texts for which a judge saw rightly whether the marked tokens are the feature's.",
    "intruder": "Share of line-ups in which a judge found the text of another feature. Needs no explanation.",
}
INTERVALS = ("weakest quarter", "second quarter", "third quarter", "strongest quarter")


@dataclass(frozen=True, slots=True)
class Score:
    """One score, formatted."""

    kind: str
    name: str
    value: str  # with its interval
    share: float | None
    low: float | None
    high: float | None
    shuffled: float | None
    chance: float
    n: str
    judge: str
    is_current: bool
    is_self_judged: bool
    parts: Sequence[str]  # by activation interval
    by_strength: str  # the same in short, from weak to strong
    facts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Scores:
    """All scores of a feature, and whether the explanation shown still waits for its first."""

    rows: Sequence[Score]

    @property
    def is_stale(self) -> bool:
        """Whether what was scored is not what is shown now."""
        return any(not row.is_current for row in self.rows)


def read_scores(queries: Queries, sae_id: str, feature_id: int) -> Scores:
    """The newest score of every kind and judge, those of the explanation shown first."""
    rows = queries.rows("feature_scores", sae_id=sae_id, feature_id=feature_id)
    order = list(KINDS)
    return Scores([_score(row) for row in sorted(rows, key=lambda r: (order.index(r["kind"]), r["judge"]))])


def _score(row: Row) -> Score:
    parts = json.loads(row["intervals"] or "[]")
    return Score(
        kind=row["kind"],
        name=KINDS[row["kind"]],
        value=interval_percent(row["accuracy"], row["low"], row["high"]),
        share=row["accuracy"],
        low=row["low"],
        high=row["high"],
        shuffled=row["shuffled"],
        chance=row["chance"],
        n=count(row["n"]),
        judge=row["judge"],
        is_current=bool(row["is_current"]),
        is_self_judged=bool(row["explainer"]) and row["judge"] == row["explainer"],
        parts=[f"{INTERVALS[p['interval']]} {percent(p['accuracy'])} of {count(p['n'])}" for p in parts],
        by_strength=" · ".join(f"{percent(p['accuracy'])}" for p in parts) if len(parts) > 1 else "",
        facts=list(_facts(row)),
    )


def _facts(row: Row) -> list[str]:
    facts = []
    if row["n_positive"] is not None and row["n"]:
        facts.append(f"{count(row['n_positive'])} of {count(row['n'])} texts with the feature")
    if row["sensitivity"] is not None and row["specificity"] is not None:
        facts.append(f"right on {percent(row['sensitivity'])} of those, on {percent(row['specificity'])} of the others")
    if row["negatives"] == "nearest":
        facts.append("texts without it are of the nearest features")
    elif row["negatives"] == "random":
        facts.append("texts without it are of any other features")
    if row["shuffled"] is None and row["kind"] != "intruder":
        facts.append("no other label was tried")
    if row["n_invalid"]:
        facts.append(f"{count(row['n_invalid'])} answers could not be read and count neither way")
    return facts


def scores_html(scores: Scores) -> str:
    """A row a score: bar with interval, chance and baseline marks, numbers, judge; everything escaped."""
    return f'<div class="fv-scores">{"".join(map(_row_html, scores.rows))}</div>{_LEGEND if scores.rows else ""}'


def _row_html(score: Score) -> str:
    title = escape(visible(" · ".join([WHAT_IT_ASKS[score.kind], *score.facts, *score.parts])), quote=True)
    chance = f"chance {percent(score.chance)}"
    baseline = chance if score.shuffled is None else f"other label {percent(score.shuffled)}"
    notes = [f"n {score.n}", baseline, f"by {score.judge}"]
    notes += [f"weak to strong {score.by_strength}"] * bool(score.by_strength)
    notes += ["the explainer judges itself"] * score.is_self_judged
    notes += ["of an earlier wording"] * (not score.is_current)
    quiet = escape(visible(" · ".join(notes)))
    dim = "" if score.is_current else " fv-score-old"
    return (
        f'<div class="fv-score{dim}" title="{title}"><span class="fv-score-name">{escape(score.name)}</span>'
        f'{_bar(score)}<span class="fv-score-value">{escape(score.value)}</span>'
        f'<span class="fv-quiet fv-score-notes">{quiet}</span></div>'
    )


def _bar(score: Score) -> str:
    if score.share is None:
        return f'<span class="fv-score-bar" aria-label="{UNKNOWN}"></span>'
    marks = f'<i class="fv-score-chance" style="left:{_place(score.chance)}"></i>'
    if score.low is not None and score.high is not None:
        width = _place(max(score.high - score.low, 0.0))
        marks += f'<i class="fv-score-interval" style="left:{_place(score.low)};width:{width}"></i>'
    if score.shuffled is not None:
        marks += f'<i class="fv-score-shuffled" style="left:{_place(score.shuffled)}"></i>'
    marks += f'<i class="fv-score-dot" style="left:{_place(score.share)}"></i>'
    return f'<span class="fv-score-bar" aria-hidden="true">{marks}</span>'


def _place(share: float) -> str:
    return f"{100 * min(max(float(share), 0.0), 1.0):.1f}%"


_LEGEND = (
    '<div class="fv-quiet fv-score-legend">● score with its 95 % interval · ◇ the same with another feature’s label · '
    "│ chance. All on texts that no explainer saw.</div>"
)
