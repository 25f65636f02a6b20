"""The gap at whatever δ somebody turns to: FAC, interval, curves, themes and saturation, from matrices in memory.

What does not depend on δ is prepared once as a `Lens`; everything else follows from it by the rules of
`facviz.coverage`, so that a page shows what `facviz coverage` would print.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from facviz.config import CoverageConfig
from facviz.coverage import (
    GRIDS,
    Kind,
    bootstrap_interval,
    doc_frequency,
    is_saturated,
    rarefaction,
    thresholds,
)
from facviz.errors import CoverageError
from facviz.prompts import load_task
from facviz.records import Floats, Ints
from facviz.store.gap import Gap
from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.synthesis.plan import VERIFICATION_MARGIN
from facviz.views.charts import Curve, ThemeShare

N_BOOTSTRAP = 300
LEVELS = ("yes", "probably", "maybe")
KINDS: tuple[Kind, ...] = ("relative", "absolute")
_CURVE_STEPS = 40
_RAREFACTION_POINTS = 40
_TOP_RELATIVE = 2.0
_FEWEST_SHARE = 0.05
"""A share of fewer of the relevant features than this jumps with every single one; the curve ends before."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is compared with what, everything but δ."""

    sae_id: str
    task: str
    source: str
    anchor: str
    seed: str
    level: str

    @property
    def config(self) -> CoverageConfig:
        """As settings, at the default δ: the inputs are the same for every δ."""
        return CoverageConfig(anchor=self.anchor, seed=self.seed, level=self.level)  # type: ignore[arg-type]

    @property
    def task_title(self) -> str:
        """The task as people call it."""
        return load_task(self.task).title


@dataclass(frozen=True, slots=True)
class Choices:
    """What a question can be made of for one SAE, and the question to begin with."""

    tasks: tuple[str, ...]
    sources: Mapping[str, tuple[str, ...]]
    datasets: tuple[str, ...]
    question: Question
    kind: Kind
    threshold: float


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """The task's features only, [n]: documents × n of both sets, the largest activation in each, the scale of δ."""

    features: Ints
    anchor: sparse.csr_matrix
    seed: sparse.csr_matrix
    max_anchor: Floats
    max_seed: Floats
    p95: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """Coverage at one δ; `missing` are ids, `threshold_of` and `n_docs_of` say δ and anchor documents of a feature."""

    kind: Kind
    threshold: float
    fac: float
    low: float
    high: float
    n_relevant: int
    n_anchor: int
    n_covered: int
    target: Ints
    missing: Ints
    saturated: bool
    unsaturated: float | None
    curve: tuple[tuple[float, float], ...]
    growth: tuple[Curve, ...]
    threshold_of: Mapping[int, float]
    n_docs_of: Mapping[int, int]

    @property
    def n_missing(self) -> int:
        """Features the seed set misses."""
        return len(self.missing)


def coverage_runs(queries: Queries, finished: Sequence[str]) -> list[dict[str, Any]]:
    """Stored coverage runs, the one that finished last first; `finished` are their ids in the order they did."""
    rank = {coverage_id: i for i, coverage_id in enumerate(finished)}
    rows = [row | {"details": json.loads(row["details"] or "{}")} for row in queries.rows("coverage")]
    return sorted(rows, key=lambda row: -rank.get(row["coverage_id"], -1))


def usable_saes(queries: Queries, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """SAEs of which the features of two sets and their relevance to a task are known, the last measured first."""
    known = [row["sae_id"] for row in queries.rows("saes")][::-1]
    order = list(dict.fromkeys([*(run["sae_id"] for run in runs if run["sae_id"] in known), *known]))
    return [sae_id for sae_id in order if coverage_choices(queries, sae_id, runs) is not None]


def coverage_choices(queries: Queries, sae_id: str, runs: Sequence[Mapping[str, Any]]) -> Choices | None:
    """What can be asked about an SAE; None before two sets are encoded and a task's features are judged."""
    datasets = queries.rows("measured_datasets", sae_id=sae_id, mode=MODE)
    judged = queries.rows("relevance_tasks", sae_id=sae_id)
    if len(datasets) < 2 or not judged:
        return None
    by_task = {row["task"]: [r["source"] for r in judged if r["task"] == row["task"]] for row in judged}
    sources = {task: tuple(found) for task, found in by_task.items()}
    names = tuple(row["name"] for row in datasets)
    roles = {row["role"]: row["name"] for row in reversed(datasets)}
    newest = next((run for run in runs if run["sae_id"] == sae_id and {run["anchor"], run["seed"]} <= set(names)), None)
    if newest is not None and newest["task"] in sources:
        question = Question(
            sae_id, newest["task"], newest["relevance_source"], newest["anchor"], newest["seed"], newest["level"]
        )
        return Choices(tuple(sources), sources, names, question, newest["threshold_kind"], newest["act_threshold"])
    anchor = roles.get("anchor", names[0])
    seed = roles.get("seed", next(name for name in names if name != anchor))
    task = next(iter(sources))
    question = Question(sae_id, task, sources[task][0], anchor, seed, CoverageConfig().level)
    return Choices(tuple(sources), sources, names, question, CoverageConfig().kind, CoverageConfig().threshold)


def make_lens(gap: Gap) -> Lens:
    """Columns of the task's features and their maxima."""
    anchor, seed = (sparse.csr_matrix(matrix[:, gap.features]) for matrix in (gap.anchor, gap.seed))
    maxima = [np.asarray(m.max(axis=0).todense(), np.float64).ravel() if m.shape[0] else 0 for m in (anchor, seed)]
    largest = [np.broadcast_to(m, gap.features.shape) for m in maxima]
    return Lens(gap.features, anchor, seed, largest[0], largest[1], gap.p95[gap.features])


def highest_threshold(lens: Lens, kind: Kind) -> float:
    """The largest δ worth turning to: twice the p95, or the anchor set's largest activation."""
    if kind == "relative":
        return _TOP_RELATIVE
    top = float(lens.max_anchor.max(initial=0.0))
    return float(np.ceil(top)) or 1.0


def measure_live(lens: Lens, kind: Kind, threshold: float, *, n_bootstrap: int = N_BOOTSTRAP) -> Live:
    """Everything about one δ.

    Raises:
        CoverageError: no relevant feature is active on the anchor set at this δ.
    """
    row = thresholds(kind, threshold, lens.p95)
    is_target = lens.max_anchor > row
    if not is_target.any():
        raise CoverageError("No relevant feature is active on the anchor set at this threshold; lower δ.")
    is_covered = is_target & (lens.max_seed > row)
    n_anchor, n_covered = int(is_target.sum()), int(is_covered.sum())
    low, high = bootstrap_interval(lens.anchor, lens.seed, act_threshold=row, n_bootstrap=n_bootstrap)
    frequency = doc_frequency(lens.anchor, row)
    ids = lens.features.tolist()
    return Live(
        kind=kind,
        threshold=threshold,
        fac=n_covered / n_anchor,
        low=low,
        high=high,
        n_relevant=len(ids),
        n_anchor=n_anchor,
        n_covered=n_covered,
        target=lens.features[is_target],
        missing=lens.features[is_target & ~is_covered],
        saturated=is_saturated(n_anchor - n_covered, n_anchor),
        unsaturated=_unsaturated(lens, kind),
        curve=fac_curve(lens, kind, threshold),
        growth=(_growth("seed", lens, lens.seed, row), _growth("anchor", lens, lens.anchor, row)),
        threshold_of=dict(zip(ids, row.tolist())),
        n_docs_of=dict(zip(ids, frequency.tolist())),
    )


def fac_curve(lens: Lens, kind: Kind, threshold: float) -> tuple[tuple[float, float], ...]:
    """Exact (δ, FAC) from each feature's largest activation in both sets, `threshold` among the points."""
    grid = np.linspace(0, highest_threshold(lens, kind), _CURVE_STEPS + 1).round(4).tolist()
    counted = ((value, *_counts(lens, kind, value)) for value in sorted({*grid, *GRIDS[kind], threshold}))
    fewest = max(1.0, _FEWEST_SHARE * len(lens.features))
    shown = [point for point in counted if point[1] >= fewest or (point[0] == threshold and point[1])]
    return tuple((value, (n_anchor - n_missing) / n_anchor) for value, n_anchor, n_missing in shown)


def _counts(lens: Lens, kind: Kind, threshold: float) -> tuple[int, int]:
    """Features of the anchor set and how many of them are missing."""
    row = thresholds(kind, threshold, lens.p95)
    is_target = lens.max_anchor > row
    return int(is_target.sum()), int((is_target & ~(lens.max_seed > row)).sum())


def _unsaturated(lens: Lens, kind: Kind) -> float | None:
    counted = ((value, *_counts(lens, kind, value)) for value in GRIDS[kind])
    return next((value for value, n_anchor, n_missing in counted if not is_saturated(n_missing, n_anchor)), None)


def _growth(meaning: Any, lens: Lens, dataset: sparse.csr_matrix, row: Floats) -> Curve:
    """Expected FAC of ever more documents of a set."""
    n_docs = dataset.shape[0]
    if n_docs == 0:
        return Curve(meaning, (), (), meaning)
    sizes = np.unique(np.geomspace(1, n_docs, _RAREFACTION_POINTS).round().astype(np.int64))
    fac = rarefaction(lens.anchor, dataset, act_threshold=row, sizes=sizes)
    return Curve(meaning, sizes.tolist(), fac.tolist(), meaning)


def filled_and_tried(queries: Queries, question: Question, live: Live) -> tuple[set[int], set[int]]:
    """Missing features that a verified sample nobody rejected activates beyond δ, and those tried in vain.

    Only what a text was aimed at counts; an activation must exceed 1.05 δ here as in verification.
    """
    rows = queries.rows(
        "attempts", sae_id=question.sae_id, task=question.task, anchor=question.anchor, seed=question.seed
    )
    missing = set(live.missing.tolist())
    best = {row["feature_id"]: row["best_act"] for row in rows if row["feature_id"] in missing}
    filled = {f for f, act in best.items() if act and act > VERIFICATION_MARGIN * live.threshold_of[f]}
    return filled, best.keys() - filled


def theme_shares(gap: Gap, live: Live, filled: set[int], tried: set[int], without_theme: str) -> list[ThemeShare]:
    """The anchor set's features by theme; those without a theme stand together under `without_theme`."""
    missing = set(live.missing.tolist())
    tally: dict[str, dict[str, int]] = {}
    for feature in live.target.tolist():
        state = "covered"
        if feature in missing:
            state = "filled" if feature in filled else "exhausted" if feature in tried else "missing"
        theme = tally.setdefault(gap.theme.get(feature) or without_theme, {})
        theme[state] = theme.get(state, 0) + 1
    names = ("covered", "missing", "filled", "exhausted")
    return [ThemeShare(theme, *(found.get(name, 0) for name in names)) for theme, found in tally.items()]


def stored_run(runs: Sequence[Mapping[str, Any]], question: Question, live: Live) -> Mapping[str, Any] | None:
    """The kept measurement that says the same as this one; a verdict changed since makes it another."""
    asked = {
        "sae_id": question.sae_id,
        "task": question.task,
        "relevance_source": question.source,
        "anchor": question.anchor,
        "seed": question.seed,
        "level": question.level,
        "threshold_kind": live.kind,
        "act_threshold": live.threshold,
        "n_relevant": live.n_relevant,
        "n_anchor": live.n_anchor,
        "n_missing": live.n_missing,
    }
    return next((run for run in runs if all(run[name] == value for name, value in asked.items())), None)


def coverage_flags(question: Question, kind: str, threshold: float) -> list[str]:
    """Flags that make `facviz coverage`, and `facviz synthesize`, ask exactly this."""
    return [
        *("--sae", question.sae_id),
        *("--task", question.task),
        *("--anchor", question.anchor),
        *("--seed", question.seed),
        *("--relevance-source", question.source),
        *("--level", question.level),
        *("--kind", kind),
        *("--threshold", repr(float(threshold))),
    ]


def flags_of_run(run: Mapping[str, Any]) -> list[str]:
    """Flags that make a command measure exactly a stored run again, so that its id comes out."""
    question = Question(run["sae_id"], run["task"], run["relevance_source"], run["anchor"], run["seed"], run["level"])
    flags = coverage_flags(question, run["threshold_kind"], run["act_threshold"])
    config, usual = run["details"].get("config", {}), CoverageConfig()
    flags += ["--include-always-on"] if config.get("include_always_on") else []
    for name, flag in (("n_bootstrap", "--n-bootstrap"), ("rng_seed", "--rng-seed")):
        if config.get(name, getattr(usual, name)) != getattr(usual, name):
            flags += [flag, str(config[name])]
    return flags
