"""`facviz run CONFIG.toml`: the whole loop in order; a second run skips what is done and ends with the same ids."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from facviz.config import RunConfig, SpansConfig
from facviz.pipeline import coverage, data, evaluating, explaining, features, judging, sae, synthesis, training
from facviz.pipeline.session import Session
from facviz.prompts import load_task


def run_loop(session: Session, config: RunConfig) -> dict[str, Any]:
    """Every stage of the config on the session's workspace; the object `facviz run --json` prints (design §5)."""
    started = time.monotonic()
    load_task(config.task)  # an unknown task is refused now, not after the training
    measured_on = config.coverage
    for dataset in config.datasets:
        data.add_dataset(session, dataset)
    trained = _sae(session, config)
    sae_id = trained["sae_id"]
    for name in _span_datasets(config):
        features.collect_spans(session, sae_id, name, config.spans)
    explain = config.explain
    explained = explaining.explain(
        session, sae_id, dataclasses.replace(explain, dataset=explain.dataset or measured_on.anchor)
    )
    relevance = dataclasses.replace(config.relevance, labels=config.relevance.labels or measured_on.anchor)
    judged = judging.judge_relevance(session, sae_id, config.task, relevance)
    measured = coverage.coverage(session, sae_id, config.task, relevance.source, measured_on)
    filled = synthesis.synthesize(session, measured, measured_on, config.synthesis)
    helped = {}
    if config.evaluation is not None:
        wanted = dataclasses.replace(config.evaluation, coverage=measured["coverage_id"])
        helped = {"evaluation": evaluating.evaluate(session, config.task, wanted)}
    return {
        "workspace": str(session.workspace.root),
        "sae": trained,
        "explain": explained,
        "relevance": judged,
        "coverage": measured,
        "synthesis": filled,
        **helped,
        "seconds": round(time.monotonic() - started, 1),
    }


def _sae(session: Session, config: RunConfig) -> dict[str, Any]:
    if config.sae.path:
        return sae.load(session, Path(config.sae.path))
    return training.train(session, config.capture, config.sae)


def _span_datasets(config: RunConfig) -> tuple[str, ...]:
    wanted: SpansConfig = config.spans
    names = (*wanted.datasets, config.coverage.anchor, config.coverage.seed)
    names += (config.relevance.labels,) if config.relevance.labels else ()
    return tuple(dict.fromkeys(names))
