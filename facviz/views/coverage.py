"""What the coverage page asks of the workspace: questions and choices, kept runs, and what synthesis did since."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facviz.config import CoverageConfig
from facviz.coverage import Kind
from facviz.prompts import load_task
from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.synthesis.plan import VERIFICATION_MARGIN
from facviz.views.charts import ThemeShare
from facviz.views.live import Live


@dataclass(frozen=True, slots=True)
class Question:
    """What is compared with what, everything but δ."""

    sae_id: str
    task: str
    source: str
    anchor: str
    seed: str
    level: str
    more_anchors: tuple[str, ...] = ()
    more_seeds: tuple[str, ...] = ()

    @property
    def anchors(self) -> tuple[str, ...]:
        """All sets that together are the reference."""
        return (self.anchor, *self.more_anchors)

    @property
    def seeds(self) -> tuple[str, ...]:
        """All sets whose gaps are looked for, as one."""
        return (self.seed, *self.more_seeds)

    @property
    def is_pair(self) -> bool:
        """One anchor and one seed set: what a command measures and the workspace keeps."""
        return not (self.more_anchors or self.more_seeds)

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


def theme_shares(
    theme_of: Mapping[int, str], live: Live, filled: set[int], tried: set[int], without_theme: str
) -> list[ThemeShare]:
    """The anchor set's features by theme; those without a theme stand together under `without_theme`."""
    missing = set(live.missing.tolist())
    tally: dict[str, dict[str, int]] = {}
    for feature in live.target.tolist():
        state = "covered"
        if feature in missing:
            state = "filled" if feature in filled else "exhausted" if feature in tried else "missing"
        theme = tally.setdefault(theme_of.get(feature) or without_theme, {})
        theme[state] = theme.get(state, 0) + 1
    names = ("covered", "missing", "filled", "exhausted")
    return [ThemeShare(theme, *(found.get(name, 0) for name in names)) for theme, found in tally.items()]


def stored_run(runs: Sequence[Mapping[str, Any]], question: Question, live: Live) -> Mapping[str, Any] | None:
    """The kept measurement that says the same as this one; a verdict changed since makes it another."""
    if not question.is_pair:
        return None
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
