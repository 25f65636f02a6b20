"""An evaluation's summary as rows of the table `evaluation`, and the correlations that are read off its arms."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from facviz.evaluation.arms import GOLD_ARM, SEED_ARM
from facviz.evaluation.correlation import correlate
from facviz.evaluation.intervals import Interval

CEILING = "ceiling"
"""The line of gold at full size, where an arm would stand."""

_INPUTS = (
    "coverage_id", "test", "seed", "gold", "positive", "n_test", "prevalence", "n_bootstrap", "backbone", "layer",
)  # fmt: skip


def evaluation_rows(summary: Mapping[str, Any], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of `evaluation` that a summary amounts to: a measurement a row, inputs as JSON in `settings`."""
    common = {"eval_id": summary["eval_id"], "task": summary["task"]}
    common["settings"] = json.dumps({key: summary[key] for key in _INPUTS}, ensure_ascii=False)
    rows: list[dict[str, Any]] = []

    def add(
        arm: str,
        metric: str,
        value: Any,
        n: tuple[int, int],
        low: Any = None,
        high: Any = None,
        seed: int | None = None,
    ) -> None:
        if value is not None:
            place = {"arm": arm, "metric": metric, "n_train": n[0], "n_added": n[1], "rng_seed": seed}
            rows.append({**common, **place, "value": value, "low": low, "high": high})

    for arm in summary["arms"]:
        n = arm["n_train"], arm["n_added"]
        add(arm["arm"], "auprc", arm["auprc"], n, arm["low"], arm["high"])
        for rng_seed, value in zip(seeds, arm["by_seed"]):
            add(arm["arm"], "auprc", value, n, seed=rng_seed)
        if gain := arm["gain"]:
            add(arm["arm"], "auprc_gain", gain["value"], n, gain["low"], gain["high"])
        if mixed := arm["mixed"]:
            add(arm["arm"], "auprc_generated_negatives", mixed["auprc"], n, mixed["low"], mixed["high"])
        if probe := arm["probe"]:
            add(arm["arm"], "probe_auroc", probe["auroc"], n, probe["lowest"], probe["highest"])
        add(arm["arm"], "fac", arm["fac"], n)
        add(arm["arm"], "missing_coverage", arm["missing_coverage"], n)
    base = summary["n_negative"] + summary["n_seed_positive"]
    for point in summary["frontier"]:
        if point["n_added"] < summary["n_added"]:
            n = base + point["n_added"], point["n_added"]
            add(point["arm"], "auprc", point["auprc"], n, point["low"], point["high"])
            add(point["arm"], "missing_coverage", point["missing_coverage"], n)
    add("", "prevalence", summary["prevalence"], (0, 0))
    if ceiling := summary["ceiling"]:
        add(CEILING, "auprc", ceiling["auprc"], (ceiling["n_train"], 0), ceiling["low"], ceiling["high"])
    for found in summary["correlation"]:
        name = "/".join(["r_fac_auprc", found["over"], *(f"without_{arm}" for arm in found["without"])])
        add("", name, found["r"], (found["n"], 0), found["low"], found["high"])
    return rows


def rounded(interval: Interval) -> dict[str, float]:
    """An interval as a result shows it."""
    return {"auprc": round(interval.value, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}


def correlations(arms: Sequence[Mapping[str, Any]], frontier: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """r(FAC, AUPRC) over arms of equal size, and over every size of every arm; with and without reference arms.

    The gold arm, and the seed set alone on the floor, can each make a correlation by themselves.
    """
    found = []
    for over, points in (("arms", arms), ("sizes", [*arms[:1], *frontier])):
        for without in ((), (GOLD_ARM,), (GOLD_ARM, SEED_ARM)):
            kept = [p for p in points if p["arm"] not in without]
            r = correlate([p["fac"] for p in kept], [p["auprc"] for p in kept])
            found.append({"over": over, "without": list(without), **dataclasses.asdict(r)})
    return found
