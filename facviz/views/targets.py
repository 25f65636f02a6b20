"""Missing features to write for: searched, narrowed by theme and state, ordered by relevance or gain, page by page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facviz.store.queries import Queries
from facviz.synthesis.plan import VERIFICATION_MARGIN
from facviz.views.charts import CellState
from facviz.views.format import UNKNOWN, count_of, number
from facviz.views.samples import share_words
from facviz.views.synthesis import Closing, Run

MOST_RELEVANT = 8
PAGE_SIZE = 8
MAX_CHOSEN = 500
STATES: Mapping[CellState, str] = {
    "missing": "untried",
    "waiting": "waiting",
    "exhausted": "exhausted",
    "refused": "refused",
    "budget": "budget ended",
    "filled": "filled",
}
"""State of a feature → as the list calls it."""
ALL = "all"
ORDERS = {"relevance": "Most relevant", "gain": "In most anchor texts"}
NO_THEME = "no theme"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which missing features the list shows; "" leaves a part open, of the states all that are not filled."""

    search: str = ""
    theme: str = ""
    state: str = ""
    order: str = "relevance"


@dataclass(frozen=True, slots=True)
class Target:
    """One missing feature, ready to show."""

    feature_id: int
    explanation: str
    theme: str
    state: CellState
    n_docs: str
    relevance: str
    best: str
    is_beyond_anchor: bool


@dataclass(frozen=True, slots=True)
class Targets:
    """The list as asked for: all its ids in order, and how many there are of each theme and state in all."""

    ids: tuple[int, ...]
    known: frozenset[int]
    themes: Mapping[str, int]
    states: Mapping[str, int]
    suggested: tuple[int, ...]
    beyond_anchor: frozenset[int]


def find_targets(queries: Queries, closed: Closing, wanted: Wanted) -> Targets:
    """The missing features that fit, most relevant or most frequent first.

    What a feature adds to FAC is the same for all; one that fires in more texts of the anchor set matters more often.
    One beyond the anchor set is hardly ever filled: by gain and among those suggested it comes last.
    """
    rows = {r["feature_id"]: r for r in queries.rows("missing", coverage_id=closed.run["coverage_id"])}
    theme_of = themes_by_feature(queries, closed)
    beyond = beyond_anchor(queries, closed.run)
    cells = [cell for cell in closed.cells if cell.feature_id in rows]
    words = wanted.search.lower().split()

    def fits(feature_id: int, label: str, state: str) -> bool:
        theme = theme_of.get(feature_id, NO_THEME)
        text = f"{feature_id} {label} {theme}".lower()
        is_asked = wanted.state in (ALL, state) or (not wanted.state and state != "filled")
        return is_asked and wanted.theme in ("", theme) and all(word in text for word in words)

    ids = [c.feature_id for c in cells if fits(c.feature_id, c.label, c.state)]
    if wanted.order == "gain":
        ids.sort(key=lambda f: (f in beyond, -rows[f]["n_anchor_docs"], f))
    untried = [c.feature_id for c in cells if c.state == "missing"]
    themes = Counter(theme_of.get(c.feature_id, NO_THEME) for c in cells)
    return Targets(
        ids=tuple(ids),
        known=frozenset(rows),
        themes={} if set(themes) <= {NO_THEME} else dict(themes.most_common()),
        states={s: n for s in STATES if (n := sum(c.state == s for c in cells))},
        suggested=tuple(sorted(untried, key=beyond.__contains__)[:MOST_RELEVANT]),
        beyond_anchor=beyond,
    )


def beyond_anchor(queries: Queries, run: Run) -> frozenset[int]:
    """Missing features of a coverage run for which a sample must fire more strongly than any anchor text does."""
    named = {row["name"]: row["dataset_id"] for row in queries.rows("datasets")}
    of = {"coverage_id": run["coverage_id"], "sae_id": run["sae_id"], "mode": run["mode"]}
    rows = queries.rows("beyond_anchor", **of, dataset_id=named.get(run["anchor"], ""), margin=VERIFICATION_MARGIN)
    return frozenset(row["feature_id"] for row in rows)


def themes_by_feature(queries: Queries, closed: Closing) -> dict[int, str]:
    """Theme of each missing feature that has one: its label's, or where no label tells themes its group on the map."""
    run, ids = closed.run, [cell.feature_id for cell in closed.cells]
    rows = queries.rows("themes_of", task=run["task"], sae_id=run["sae_id"], ids=ids) if ids else []
    return {row["feature_id"]: row["theme"] for row in rows} or groups_by_feature(queries, run["sae_id"], ids)


def groups_by_feature(queries: Queries, sae_id: str, ids: Sequence[int]) -> dict[int, str]:
    """Name of each feature's group on the map, after its explanations; empty before `facviz map` ran."""
    rows = queries.rows("clusters_of", sae_id=sae_id, ids=list(ids)) if len(ids) else []
    return {row["feature_id"]: row["theme"] for row in rows}


def target_rows(queries: Queries, closed: Closing, ids: Sequence[int]) -> list[Target]:
    """These features, in this order, each with what it fires on and how near a text has come."""
    shown = set(ids)
    cells = {cell.feature_id: cell for cell in closed.cells if cell.feature_id in shown}
    coverage_id = closed.run["coverage_id"]
    rows = {r["feature_id"]: r for r in queries.rows("missing", coverage_id=coverage_id) if r["feature_id"] in shown}
    bests = {r["feature_id"]: r for r in queries.rows("feature_bests", coverage_id=coverage_id)}
    theme_of, beyond = themes_by_feature(queries, closed), beyond_anchor(queries, closed.run)
    return [
        Target(
            feature_id=f,
            explanation=cells[f].label,
            theme=theme_of.get(f, ""),
            state=cells[f].state,
            n_docs=count_of(rows[f]["n_anchor_docs"], "text"),
            relevance=number(rows[f]["relevance_score"]),
            best=_best(bests.get(f), rows[f]),
            is_beyond_anchor=f in beyond,
        )
        for f in ids
    ]


def _best(best: Mapping[str, Any] | None, row: Mapping[str, Any]) -> str:
    return share_words(best["act"], row["act_threshold"]) if best else UNKNOWN
