"""How far the gap of a stored coverage run is closed: cells, counts, and FAC before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from facviz.store.queries import Queries
from facviz.views.charts import Cell, CellState
from facviz.views.explain_jobs import money
from facviz.views.format import count, count_of, number, percent, signed_points
from facviz.views.missing import explanations

_ENDS: tuple[CellState, ...] = ("budget", "refused", "exhausted", "filled")
"""Ends of a feature, each outweighing those before it."""

_MOST_TOLD_APART = 5000
"""Relevant features up to which four digits of FAC tell single ones apart."""

Run = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Closing:
    """Where a coverage run stands: its missing features as cells, and what their texts came to."""

    run: Run
    cells: tuple[Cell, ...]
    n_missing: int
    n_tried: int
    n_filled: int
    n_candidates: int
    n_accepted: int
    n_approved: int
    n_rejected: int
    n_edited: int
    fac_before: float
    fac_after: float | None
    is_exact: bool

    @property
    def n_reviewed(self) -> int:
        """Verified texts a person approved, edited or rejected."""
        return self.n_approved + self.n_edited + self.n_rejected

    @property
    def gain(self) -> str:
        """The change of FAC in points; "" before there is any text."""
        return "" if self.fac_after is None else signed_points(self.fac_after - self.fac_before)

    @property
    def counted(self) -> str:
        """What FAC after counts, in one sentence."""
        if self.fac_after is None:
            return "FAC of the seed set; texts that fill missing features will raise it."
        if self.is_exact:
            return (
                f"FAC of the seed set with all {count(self.n_accepted)} verified texts, each encoded alone once more; "
                "every feature they activate counts."
            )
        return (
            "At least this much: a missing feature counts where a verified text that nobody rejected was aimed at it."
        )

    @property
    def besides(self) -> str:
        """Why FAC is higher than the squares say, in one sentence; "" where it is not, or is only a lower bound."""
        n_anchor = int(self.run["n_anchor"])
        if self.fac_after is None or not self.is_exact or n_anchor > _MOST_TOLD_APART:
            return ""
        n = round(self.fac_after * n_anchor) - (n_anchor - self.n_missing) - self.n_filled
        if n <= 0:
            return ""
        return f"FAC also counts {count(n)} of the others, above δ in a text that was not written for it."


def closing(
    queries: Queries, run: Run, summaries: Mapping[str, Mapping[str, Any]], waiting: Sequence[int] = ()
) -> Closing:
    """State of a coverage run after every synthesis for it; `summaries` of finished ones, features still `waiting`."""
    coverage_id = run["coverage_id"]
    missing = [row["feature_id"] for row in queries.rows("missing", coverage_id=coverage_id)]
    counts = queries.rows("candidate_counts", coverage_id=coverage_id)
    kept = {r["feature_id"] for r in counts if r["accepted"] and r["review"] != "rejected"}
    # A text that was aimed at no feature is credited with every missing one that it activates.
    kept |= {r["feature_id"] for r in queries.rows("credited_features", coverage_id=coverage_id)}
    kept &= set(missing)
    ended = _ended(queries.rows("synthesis_states", coverage_id=coverage_id))
    accepted = [row for row in counts if row["accepted"]]
    after, is_exact = _fac_after(run, accepted, len(kept), summaries)
    return Closing(
        run=run,
        cells=_cells(queries, run["sae_id"], missing, kept, ended, set(waiting)),
        n_missing=len(missing),
        n_tried=len(ended),
        n_filled=len(kept),
        n_candidates=sum(row["n"] for row in counts),
        n_accepted=sum(row["n"] for row in accepted),
        n_approved=sum(row["n"] for row in accepted if row["review"] == "approved"),
        n_rejected=sum(row["n"] for row in accepted if row["review"] == "rejected"),
        n_edited=sum(row["n"] for row in accepted if row["review"] == "edited"),
        fac_before=run["fac"],
        fac_after=after,
        is_exact=is_exact,
    )


def _fac_after(
    run: Run, accepted: Sequence[Mapping[str, Any]], n_kept: int, summaries: Mapping[str, Mapping[str, Any]]
) -> tuple[float | None, bool]:
    """FAC after, and whether it is the measured figure: one finished synthesis, no text of it changed since.

    A summary counts every feature its texts activate, so it holds as a lower bound beside other syntheses; features
    that kept texts were aimed at are another one.
    """
    if not accepted:
        return None, False
    measured = {
        synth_id: float(summary["fac_after"])
        for synth_id, summary in summaries.items()
        if summary["coverage_id"] == run["coverage_id"]
        and not any(row["synth_id"] == synth_id and row["review"] in ("rejected", "edited") for row in accepted)
    }
    by_targets = (run["n_anchor"] - run["n_missing"] + n_kept) / run["n_anchor"]
    synthesized = {row["synth_id"] for row in accepted}
    is_exact = len(synthesized) == 1 and synthesized <= measured.keys()
    return max(by_targets, *(measured[s] for s in synthesized & measured.keys()), 0.0), is_exact


def _ended(rows: Sequence[Mapping[str, Any]]) -> dict[int, CellState]:
    """How synthesis ended for each feature it tried, the furthest of several runs; step 1 alone is no end."""
    found: dict[int, CellState] = {}
    for state in _ENDS:
        found |= {row["feature_id"]: state for row in rows if row["state"] == state}
    return found


def _cells(
    queries: Queries,
    sae_id: str,
    missing: Sequence[int],
    kept: set[int],
    ended: Mapping[int, CellState],
    waiting: set[int],
) -> tuple[Cell, ...]:
    words = explanations(queries, sae_id, missing)

    def state(feature_id: int) -> CellState:
        if feature_id in kept:
            return "filled"
        if feature_id in waiting:
            return "waiting"
        end = ended.get(feature_id, "missing")
        return "exhausted" if end == "filled" else end  # a person turned down what filled it

    return tuple(Cell(feature_id, state(feature_id), words[feature_id]) for feature_id in missing)


def asked_features(arguments: Sequence[str], cells: Sequence[Cell]) -> list[int]:
    """Features that a `facviz synthesize` with these arguments attempts."""
    options = dict(pairwise(arguments))
    if "--features" in options:
        return [int(f) for f in options["--features"].split(",")]
    limit = options.get("--max-features")
    return [cell.feature_id for cell in cells][: int(limit) if limit else None]


def finished_since(entries: Sequence[Mapping[str, Any]], when: float) -> list[int]:
    """Features whose candidates a synthesis wrote since a moment (seconds since 1970), in the order it did."""
    start = f"{datetime.fromtimestamp(when, UTC):%Y-%m-%dT%H:%M:%SZ}"
    shards = [
        int(e["shard"])
        for e in entries
        if e.get("table") == "synthesis_feature" and e["scope"].startswith("synthesize/") and e.get("at", "") >= start
    ]
    return list(dict.fromkeys(reversed(shards)))[::-1]  # a later pass ends a feature once more


def outcome_words(result: Mapping[str, Any]) -> str:
    """How a finished synthesis ended, in counts that add up."""
    filled, tried = int(result.get("n_filled", 0)), int(result.get("n_attempted", 0))
    parts = [f"{count(filled)} of {count_of(tried, 'feature')} filled"]
    parts.append(
        f"{count(result.get('n_accepted'))} verified of {count_of(int(result.get('n_candidates', 0)), 'text')}"
    )
    states = result.get("states") or {}
    parts += [f"{count(n)} {name.replace('_', ' ')}" for name, n in sorted(states.items()) if n and name != "filled"]
    if result.get("usd"):
        parts.append(f"{money(result['usd'])} spent")
    if result.get("stopped"):
        parts.append(str(result["stopped"]))
    return " · ".join(parts)


def run_label(run: Run) -> str:
    """A stored run in a list of several."""
    unit = "× p95" if run["threshold_kind"] == "relative" else "absolute"
    return (
        f"{run['seed']} against {run['anchor']} · δ {number(run['act_threshold'])} {unit} · "
        f"FAC {percent(run['fac'])} · {run['coverage_id'][:6]}"
    )


def refusal(run: Run) -> str:
    """Why no text can be written for a run; "" when it can."""
    if run["saturated"]:
        return (
            f"Only {count(run['n_missing'])} of {count(run['n_anchor'])} features are missing at δ "
            f"{number(run['act_threshold'])}: this measurement is saturated, so filling them would prove nothing. "
            "Choose a stricter δ on the coverage page."
        )
    return "" if run["n_missing"] else "No feature is missing at this δ, so there is nothing to write."
