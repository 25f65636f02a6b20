"""Refuses values and contradictions where they are born, in one sentence each."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from facviz.config.stages import DatasetConfig, RunConfig, SaeConfig, SynthesisConfig
from facviz.errors import InputError

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_POSITIVE = {
    "n", "limit", "max_tokens", "batch_tokens", "tokens", "heldout_tokens", "shard_docs", "d_sae", "k", "epochs",
    "learning_rate", "dead_after_tokens", "per_split", "max_scored",
    "n_bins", "scored_spans", "n_permutations",
    "n_items", "n_lineups",
    "n_added", "min_added", "negatives_per_positive", "n_seeds",
    "max_features", "n_candidates", "concurrency", "per_feature", "max_candidates", "batch", "evidence_spans",
    "passes", "features_at_once", "max_kl",
}  # fmt: skip
_NOT_NEGATIVE = {
    "layer", "before_tokens", "after_tokens", "aux_k", "aux_coefficient", "threshold", "n_bootstrap",
    "min_margin", "temperature", "rng_seed", "budget_usd",
}  # fmt: skip
_SHARES = {"always_on_density", "min_auroc", "max_q", "min_fac", "top_p", "min_jaccard"}


def check_ranges(config: Any, where: str) -> None:
    """Refuse values no stage can use, where they are born; every config built by a user passes here."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if value != value or value in (float("inf"), float("-inf")):
            raise InputError(f"{where}: `{f.name}` is {value}; give a finite number.")
        if f.name in _POSITIVE and value <= 0:
            raise InputError(f"{where}: `{f.name}` is {value}; it must be above 0.")
        if f.name in _NOT_NEGATIVE and value < 0:
            raise InputError(f"{where}: `{f.name}` is {value}; it must not be negative.")
        if f.name in _SHARES and not 0 <= value <= 1:
            raise InputError(f"{where}: `{f.name}` is {value}; it must lie between 0 and 1.")
    if isinstance(config, SaeConfig) and config.k >= config.d_sae:
        raise InputError(f"{where}: k ({config.k}) must be smaller than d_sae ({config.d_sae}).")
    if isinstance(config, SynthesisConfig):
        _check_synthesis(config, where)
    if isinstance(config, DatasetConfig):
        _check_dataset(config, where)


def _check_synthesis(config: SynthesisConfig, where: str) -> None:
    if config.pair_candidates < 2:
        raise InputError(
            f"{where}: `pair_candidates` is {config.pair_candidates}; a contrastive pair needs at least 2."
        )
    if config.per_feature > config.max_candidates:
        raise InputError(
            f"{where}: `per_feature` ({config.per_feature}) is above `max_candidates` ({config.max_candidates}), so no "
            "feature could be filled; lower the one or raise the other."
        )
    if "paper" not in config.strategy and config.step != "both":
        raise InputError(f"{where}: the strategy {config.strategy} has no step `{config.step}`; leave `step` out.")
    if "steered" in config.strategy and config.provider != "local":
        raise InputError(
            f"{where}: a push needs the model itself, so {config.strategy} is written by the provider `local` alone."
        )
    if config.model is not None and config.provider == "local":
        raise InputError(
            f"{where}: `model` names a model of a paid provider, and `local` writes with the backbone; leave it out or "
            "name a provider."
        )
    if config.judge_model is not None and config.judge_provider in ("", "local"):
        raise InputError(f"{where}: `judge_model` names a model of a paid judge; name one in `judge_provider` as well.")
    if config.budget_usd is not None and {config.provider, config.judge_provider} <= {"", "local"}:
        raise InputError(f"{where}: `budget_usd` is {config.budget_usd}, but nothing here costs money; leave it out.")


def _check_dataset(config: DatasetConfig, where: str) -> None:
    if not NAME_PATTERN.fullmatch(config.name):
        raise InputError(f"{where}: the dataset name {config.name!r} must be 1-64 letters, digits, `_`, `.` or `-`.")
    if bool(config.path) == (config.sample is not None):
        raise InputError(f"{where}: dataset {config.name} needs either `path` or `sample`.")
    if not config.roles:
        raise InputError(f"{where}: dataset {config.name} has no `roles`; name at least one, such as user.")


def validate_run(config: RunConfig) -> None:
    """Refuse contradictions between stages before any work starts."""
    names = [d.name for d in config.datasets]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise InputError(f"The dataset name {min(twice)} is used twice; names must differ.")
    coverage = config.coverage
    for role, name in (("anchor", coverage.anchor), ("seed", coverage.seed)):
        if not name:
            raise InputError(f"`coverage.{role}` is missing; name the {role} dataset.")
    used = [("capture.dataset", config.capture.dataset), ("coverage.anchor", coverage.anchor)]
    used += [("coverage.seed", coverage.seed), ("relevance.labels", config.relevance.labels or coverage.anchor)]
    used += [("spans.datasets", name) for name in config.spans.datasets]
    if config.evaluation is not None:
        asked = {"test": config.evaluation.test, "gold": config.evaluation.gold}
        used += [(f"evaluation.{name}", dataset) for name, dataset in asked.items() if dataset]
    used += [("explain.dataset", config.explain.dataset)] if config.explain.dataset else []
    used += [("sample.of", d.sample.of) for d in config.datasets if d.sample]
    for where, name in used:
        if name not in names:
            raise InputError(
                f"`{where}` names the dataset {name!r}, which is not defined; defined: {', '.join(names)}."
            )
    for i, dataset in enumerate(config.datasets):
        if dataset.sample and dataset.sample.of in names[i:]:
            raise InputError(
                f"Dataset {dataset.name} is drawn from {dataset.sample.of!r}, which must be another one that stands "
                "above it; change `sample.of` or their order."
            )
    if coverage.anchor == coverage.seed:
        raise InputError("Anchor and seed are the same dataset, so nothing could be missing; name two datasets.")
