"""`facviz coverage`: which task-relevant features of the anchor set the seed set does not activate."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from facviz.config import CoverageConfig, fingerprint
from facviz.coverage import (
    doc_frequency,
    equal_token_comparison,
    fac_frequency,
    fac_magnitude,
    measure_coverage,
    unseen_features,
)
from facviz.errors import InputError
from facviz.pipeline.session import CODE_VERSION, Session
from facviz.prompts import load_task
from facviz.store.gap import Gap, human_verdicts, read_gap
from facviz.store.manifest import Scope
from facviz.store.reader import Reader
from facviz.store.schema import MODE, rows_to_arrow


def coverage(session: Session, sae_id: str, task: str, source: str, config: CoverageConfig) -> dict[str, Any]:
    """FAC of the seed set against the anchor with its missing features; the object `coverage --json` prints."""
    if config.anchor == config.seed:
        raise InputError("Anchor and seed are the same dataset, so nothing could be missing; name two datasets.")
    with session.workspace.reader() as reader:
        scope = _coverage_scope(session, reader, sae_id, task, source, config)
    coverage_id = scope.fingerprint[:12]

    def work() -> dict[str, Any]:
        with session.workspace.reader() as reader:
            gap = read_gap(reader, sae_id, task, source, config)
        result = measure_coverage(
            gap.anchor,
            gap.seed,
            p95=gap.p95,
            kind=config.kind,
            threshold=config.threshold,
            features=gap.features,
            n_bootstrap=config.n_bootstrap,
            rng_seed=config.rng_seed,
        )
        names = {"coverage_id": coverage_id, "task": load_task(task).name, "sae_id": sae_id}
        summary = {
            **names,
            "fac": round(result.fac, 4),
            "fac_low": _rounded(result.fac_low),
            "fac_high": _rounded(result.fac_high),
            "fac_freq": _weighted(fac_frequency, gap),
            "fac_magnitude": _weighted(fac_magnitude, gap),
            "n_relevant": result.n_relevant,
            "n_anchor": result.n_anchor,
            "n_missing": result.n_missing,
            "threshold_kind": config.kind,
            "act_threshold": config.threshold,
            "level": config.level,
            "relevance_source": source,
            "anchor": config.anchor,
            "seed": config.seed,
            "mode": MODE,
            "saturated": result.saturated,
            "unsaturated_threshold": result.unsaturated_threshold,
            "n_anchor_docs": result.n_anchor_docs,
            "n_seed_docs": result.n_seed_docs,
            "n_anchor_tokens": int(gap.anchor_tokens.sum()),
            "n_seed_tokens": int(gap.seed_tokens.sum()),
            "curve": [point._asdict() for point in result.curve],
            "equal_tokens": _equal_tokens(gap, config),
            "unseen": _unseen(gap),
        }
        _write_coverage(session, scope, summary, config, gap, result.missing)
        return summary

    return session.run_once(scope, work)


def _coverage_scope(
    session: Session, reader: Reader, sae_id: str, task: str, source: str, config: CoverageConfig
) -> Scope:
    manifest = session.workspace.manifest
    basis: list[str] = []
    for name in (config.anchor, config.seed):
        dataset_id = reader.dataset(name)["dataset_id"]
        found = manifest.latest_fingerprint(f"spans/{sae_id}/{dataset_id}/{MODE}")
        if found is None:
            raise InputError(f"The dataset {name} is not encoded with SAE {sae_id}; run `facviz spans` on it first.")
        basis.append(found)
    subject = f"{load_task(task).name}/{sae_id}/{source}"
    judged = manifest.latest_fingerprint(f"relevance/{subject}")
    if judged is None:
        raise InputError(
            f"No relevance by {source} for the task {task} and SAE {sae_id}; run `facviz relevance` first."
        )
    described = dataclasses.replace(config, min_fac=None)
    # Only where there are any, so that what machines alone said keeps its id.
    by_people = human_verdicts(reader, sae_id, task)
    name = fingerprint("coverage", CODE_VERSION, basis, judged, described, *([by_people] if by_people else []))
    return Scope("coverage", name[:12], name)


def _equal_tokens(gap: Gap, config: CoverageConfig) -> dict[str, Any]:
    compared = equal_token_comparison(
        gap.anchor,
        {"anchor": (gap.anchor, gap.anchor_tokens), "seed": (gap.seed, gap.seed_tokens)},
        features=gap.features,
        act_threshold=gap.act_threshold,
        rng_seed=config.rng_seed,
    )
    return {name: {k: round(v, 4) for k, v in found._asdict().items()} for name, found in compared.items()}


def _weighted(measure: Callable[..., float], gap: Gap) -> float:
    return round(measure(gap.anchor, gap.seed, features=gap.features, act_threshold=gap.act_threshold), 4)


def _unseen(gap: Gap) -> dict[str, float]:
    """How many of the missing features more texts of the seed set's kind would show: Chao2 and its 95 % interval."""
    in_anchor = doc_frequency(gap.anchor, gap.act_threshold)[gap.features] > 0
    found = unseen_features(doc_frequency(gap.seed, gap.act_threshold)[gap.features][in_anchor], gap.seed.shape[0])
    return {"estimate": round(found.estimate, 1), "low": round(found.low, 1), "high": round(found.high, 1)}


def _write_coverage(
    session: Session,
    scope: Scope,
    summary: Mapping[str, Any],
    config: CoverageConfig,
    gap: Gap,
    missing: npt.NDArray[Any],
) -> None:
    frequency = doc_frequency(gap.anchor, gap.act_threshold)
    rows = [
        {
            "coverage_id": summary["coverage_id"],
            "feature_id": int(f),
            "n_anchor_docs": int(frequency[f]),
            "act_threshold": float(gap.act_threshold[f]),
            "relevance_score": gap.relevance_score.get(int(f), 0.0),
        }
        for f in missing
    ]
    manifest = session.workspace.manifest
    manifest.write_shard(scope, "missing_feature", "0", rows_to_arrow("missing_feature", rows))
    kept = ("curve", "equal_tokens", "unsaturated_threshold", "fac_freq", "fac_magnitude", "unseen")
    details = {k: summary[k] for k in kept}
    # With these and the columns the same measurement can be asked for again.
    details["config"] = {k: getattr(config, k) for k in ("include_always_on", "n_bootstrap", "rng_seed")}
    row = {k: v for k, v in summary.items() if k in COVERAGE_COLUMNS} | {"details": json.dumps(details)}
    manifest.write_shard(scope, "coverage_run", "0", rows_to_arrow("coverage_run", [row]))


COVERAGE_COLUMNS = {
    "coverage_id", "task", "sae_id", "anchor", "seed", "mode", "threshold_kind", "act_threshold", "level",
    "relevance_source", "fac", "fac_low", "fac_high", "n_relevant", "n_anchor", "n_missing", "saturated",
}  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
