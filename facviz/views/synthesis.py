"""How far the gap of a stored coverage run is closed: cells, counts, FAC before and after, and what starting costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from facviz.config import SynthesisConfig
from facviz.errors import InputError
from facviz.store.queries import Queries
from facviz.views.charts import Cell, CellState
from facviz.views.coverage import flags_of_run
from facviz.views.format import count, count_of, duration, number, percent, signed_points
from facviz.views.missing import explanations

MOST_RELEVANT = 8
MAX_OPTIONS = 500

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
    fac_before: float
    fac_after: float | None
    is_exact: bool

    @property
    def n_reviewed(self) -> int:
        """Verified texts a person approved or rejected."""
        return self.n_approved + self.n_rejected

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


def closing(
    queries: Queries, run: Run, summaries: Mapping[str, Mapping[str, Any]], waiting: Sequence[int] = ()
) -> Closing:
    """State of a coverage run after every synthesis for it; `summaries` of finished ones, features still `waiting`."""
    coverage_id = run["coverage_id"]
    missing = [row["feature_id"] for row in queries.rows("missing", coverage_id=coverage_id)]
    counts = queries.rows("candidate_counts", coverage_id=coverage_id)
    kept = {r["feature_id"] for r in counts if r["accepted"] and r["review"] != "rejected"} & set(missing)
    tried = {row["feature_id"] for row in queries.rows("synthesis_states", coverage_id=coverage_id)}
    accepted = [row for row in counts if row["accepted"]]
    after, is_exact = _fac_after(run, accepted, len(kept), summaries)
    return Closing(
        run=run,
        cells=_cells(queries, run["sae_id"], missing, kept, tried, set(waiting)),
        n_missing=len(missing),
        n_tried=len(tried),
        n_filled=len(kept),
        n_candidates=sum(row["n"] for row in counts),
        n_accepted=sum(row["n"] for row in accepted),
        n_approved=sum(row["n"] for row in accepted if row["review"] == "approved"),
        n_rejected=sum(row["n"] for row in accepted if row["review"] == "rejected"),
        fac_before=run["fac"],
        fac_after=after,
        is_exact=is_exact,
    )


def _fac_after(
    run: Run, accepted: Sequence[Mapping[str, Any]], n_kept: int, summaries: Mapping[str, Mapping[str, Any]]
) -> tuple[float | None, bool]:
    """FAC after, and whether it is the measured figure: one finished synthesis, no text of it rejected since.

    A summary counts every feature its texts activate, so it holds as a lower bound beside other syntheses; features
    that kept texts were aimed at are another one.
    """
    if not accepted:
        return None, False
    measured = {
        synth_id: float(summary["fac_after"])
        for synth_id, summary in summaries.items()
        if summary["coverage_id"] == run["coverage_id"]
        and not any(row["synth_id"] == synth_id and row["review"] == "rejected" for row in accepted)
    }
    by_targets = (run["n_anchor"] - run["n_missing"] + n_kept) / run["n_anchor"]
    synthesized = {row["synth_id"] for row in accepted}
    is_exact = len(synthesized) == 1 and synthesized <= measured.keys()
    return max(by_targets, *(measured[s] for s in synthesized & measured.keys()), 0.0), is_exact


def _cells(
    queries: Queries, sae_id: str, missing: Sequence[int], kept: set[int], tried: set[int], waiting: set[int]
) -> tuple[Cell, ...]:
    words = explanations(queries, sae_id, missing)

    def state(feature_id: int) -> CellState:
        if feature_id in kept:
            return "filled"
        if feature_id in waiting:
            return "waiting"
        return "exhausted" if feature_id in tried else "missing"

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
    return [
        int(e["shard"])
        for e in entries
        if e.get("table") == "synthesis_feature" and e["scope"].startswith("synthesize/") and e.get("at", "") >= start
    ]


@dataclass(frozen=True, slots=True)
class Targets:
    """Missing features to choose from, most relevant first, with their words and themes."""

    ids: tuple[int, ...]
    labels: Mapping[int, str]
    themes: Mapping[str, tuple[int, ...]]
    suggested: tuple[int, ...]


def targets(queries: Queries, closed: Closing) -> Targets:
    """The missing features of a run; suggested are the most relevant ones that nobody tried."""
    run, shown = closed.run, closed.cells[:MAX_OPTIONS]
    ids = [cell.feature_id for cell in shown]
    rows = queries.rows("themes_of", task=run["task"], sae_id=run["sae_id"], ids=ids)
    theme_of = {row["feature_id"]: row["theme"] for row in rows}
    themes: dict[str, list[int]] = {}
    for cell in shown:
        if theme := theme_of.get(cell.feature_id):
            themes.setdefault(theme, []).append(cell.feature_id)
    named = {c.feature_id: f"{theme_of[c.feature_id]}: " if c.feature_id in theme_of else "" for c in shown}
    return Targets(
        ids=tuple(ids),
        labels={cell.feature_id: f"{named[cell.feature_id]}{cell.label} ({cell.feature_id})" for cell in shown},
        themes={theme: tuple(ids) for theme, ids in sorted(themes.items(), key=lambda item: -len(item[1]))},
        suggested=tuple(cell.feature_id for cell in shown if cell.state == "missing")[:MOST_RELEVANT],
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person may turn before starting; the rest keeps its default."""

    per_feature: int = SynthesisConfig().per_feature
    max_candidates: int = SynthesisConfig().max_candidates
    temperature: float = SynthesisConfig().temperature
    top_p: float = SynthesisConfig().top_p


def synthesis_arguments(run: Run, features: Sequence[int], settings: Settings) -> list[str]:
    """The command that writes texts for these features of a stored run.

    Raises:
        InputError: no feature is chosen.
    """
    if not features:
        raise InputError("No feature is chosen; choose at least one missing feature.")
    return [
        "synthesize",
        *flags_of_run(run),
        *("--features", ",".join(map(str, features))),
        *("--per-feature", str(settings.per_feature)),
        *("--max-candidates", str(settings.max_candidates)),
        *("--temperature", repr(settings.temperature)),
        *("--top-p", repr(settings.top_p)),
    ]


def projection(n_features: int, settings: Settings, seconds_per_candidate: float | None) -> str:
    """What starting costs at most, in one line."""
    most = n_features * (SynthesisConfig().pair_candidates + settings.max_candidates)
    if seconds_per_candidate is None:
        time = "time unknown until one run has finished here"
    else:
        time = f"{duration(most * seconds_per_candidate)} at most at the pace of the last run"
    return f"At most {count(most)} candidates for {count_of(n_features, 'feature')} · {time}"


def pace_of(jobs: Sequence[Any]) -> float | None:
    """Seconds a candidate took in the newest finished synthesis that was started here; None when there is none."""
    for job in jobs:
        done = job.arguments[:1] == ("synthesize",) and job.result and job.started_at and job.ended_at
        if done and job.result.get("n_candidates"):
            return float((job.ended_at - job.started_at) / job.result["n_candidates"])
    return None


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
