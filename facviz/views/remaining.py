"""What is still unreachable and why: how near a text came, what stopped it, and what to try next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from facviz.store.queries import Queries
from facviz.synthesis.plan import VERIFICATION_MARGIN
from facviz.views.charts import CellState
from facviz.views.format import count, count_of
from facviz.views.samples import REASONS, Sample, samples_of, share_words
from facviz.views.synthesis import Closing
from facviz.views.targets import beyond_anchor

PAGE_SIZE = 6
UNREACHED: tuple[CellState, ...] = ("exhausted", "refused", "budget")
NEAR, FAR = 0.8, 0.3
"""Best activation over δ from which on a feature counts as nearly reached, and below which as hardly touched."""
BESIDES = (
    "copied", "fires only on copied words", "duplicate", "near duplicate", "near duplicate in meaning", "repetitive",
    "length", "artefact", "not fluent", "degenerate", "fires too broadly", "judged off task",
)  # fmt: skip
"""Reasons for which a text that may well fire is turned down."""


@dataclass(frozen=True, slots=True)
class Remaining:
    """One feature that was tried and is not filled."""

    feature_id: int
    explanation: str
    state: CellState
    n_candidates: str
    best: str
    share: float | None
    reasons: str
    advice: str
    sample: Sample | None


def unreached(closed: Closing) -> list[int]:
    """Features that were tried and are not filled, in the order of the run."""
    return [cell.feature_id for cell in closed.cells if cell.state in UNREACHED]


def remaining_rows(queries: Queries, closed: Closing, ids: Sequence[int]) -> list[Remaining]:
    """These features, in this order, each with its best candidate, its reasons and a next step."""
    run, shown = closed.run, set(ids)
    coverage_id = run["coverage_id"]
    cells = {cell.feature_id: cell for cell in closed.cells if cell.feature_id in shown}
    tallies: dict[int, Counter[str]] = {f: Counter() for f in ids}
    people = Counter[int]()
    strategies: dict[int, set[str]] = {f: set() for f in ids}
    for row in queries.rows("candidate_counts", coverage_id=coverage_id):
        if row["feature_id"] in shown:
            if row["accepted"]:
                people[row["feature_id"]] += row["n"] * (row["review"] == "rejected")
            else:
                tallies[row["feature_id"]][row["reason"]] += row["n"]
    best = samples_of(queries, run, queries.rows("best_candidates", coverage_id=coverage_id, ids=list(ids)))
    by_feature = {sample.feature_id: sample for sample in best}
    beyond = beyond_anchor(queries, run)
    for one in best:
        strategies[one.feature_id].add(str(one.row["strategy"]))
    found = []
    for f in ids:
        sample, state = by_feature.get(f), cells[f].state
        share = _share(sample)
        found.append(
            Remaining(
                feature_id=f,
                explanation=cells[f].label,
                state=state,
                n_candidates=count_of(tallies[f].total() + people[f], "candidate"),
                best=_best(sample),
                share=share,
                reasons=_reasons(tallies[f], people[f]),
                advice=advice(
                    state,
                    share,
                    tallies[f],
                    strategies[f],
                    nearest=_reason(sample),
                    by_people=people[f],
                    is_beyond_anchor=sample is not None and f in beyond,
                ),
                sample=sample,
            )
        )
    return found


def _best(sample: Sample | None) -> str:
    if sample is None:
        return "no text"
    share = share_words(sample.row["act"], sample.row["act_threshold"])
    return f"{share}, {REASONS.get(_reason(sample), _reason(sample)).lower()}" if _reason(sample) else share


def _reason(sample: Sample | None) -> str:
    return str(sample.row["reject_reason"] or "") if sample else ""


def _share(sample: Sample | None) -> float | None:
    if sample is None or not sample.row["act_threshold"] > 0:
        return None
    return float(sample.row["act"]) / float(sample.row["act_threshold"])


def _reasons(tally: Mapping[str, int], by_people: int) -> str:
    parts = [f"{REASONS.get(name, name).lower()} {count(n)}" for name, n in Counter(tally).most_common(4)]
    parts = [f"rejected by people {count(by_people)}"] * bool(by_people) + parts
    return " · ".join(parts)


def advice(
    state: str,
    share: float | None,
    tally: Mapping[str, int],
    strategies: set[str],
    *,
    nearest: str = "",
    by_people: int = 0,
    is_beyond_anchor: bool = False,
) -> str:
    """What to try next, in one sentence, by what stopped the feature; `nearest` is why its best text did not count."""
    total = sum(tally.values()) or 1
    is_steered = any("steered" in name for name in strategies)
    if by_people:
        return "A person turned down the text that filled it: write another, or edit the rejected one."
    if state == "budget":
        return "The budget ended: raise it and write again; what was written is kept."
    if state == "refused" or tally.get("refused", 0) + tally.get("withheld", 0) > 0.5 * total:
        return "The writer refused: let the local model write, or check what the explanation asks for."
    if nearest in BESIDES or sum(n for reason, n in tally.items() if reason in BESIDES) > 0.5 * total:
        return "What fires is turned down for other reasons: edit the nearest text, or vary more in another pass."
    if is_beyond_anchor:
        return (
            f"No anchor text goes beyond {VERIFICATION_MARGIN} δ either, as a sample must: leave it out, or measure "
            "coverage with a lower δ."
        )
    if share is not None and share >= NEAR:
        return "Nearly there: more candidates, or another pass, should reach it."
    if not is_steered:
        return "Steer it: the local model is pushed along the feature’s own direction."
    if share is not None and share < FAR:
        return "Hardly touched even when steered: check the explanation first; it may name something else."
    return "A larger model as the writer, or a paid one, may express it."


def share_bar_html(row: Remaining) -> str:
    """How near the best text came to δ, as a small bar with a mark at δ; escaped."""
    if row.share is None:
        return f'<span class="fv-quiet">{escape(row.best)}</span>'
    return near_bar_html(row.share, row.best)


def near_bar_html(share: float, words: str, *, is_verified: bool = False) -> str:
    """An activation over δ as a bar; the mark is δ, and the bar ends at 1.5 × δ."""
    width = 100 * min(max(share, 0.0), 1.5) / 1.5
    look = "fv-near-over" if is_verified else "fv-near"
    bar = f'<div class="fv-track"><div class="{look}" style="width:{width:.1f}%"></div><i></i></div>'
    return f'<div class="fv-bar-row" title="best activation, mark at δ">{bar}<span>{escape(words)}</span></div>'


def remaining_words(closed: Closing) -> str:
    """How many are left and how they ended, in one sentence; "" when none was tried in vain."""
    tally: dict[str, Any] = Counter(cell.state for cell in closed.cells if cell.state in UNREACHED)
    if not tally:
        return ""
    parts = [f"{count(n)} {name}" for name, n in tally.items()]
    total = count_of(sum(tally.values()), "feature")
    return f"{total} of {count(closed.n_missing)} could not be reached: {', '.join(parts)}."
