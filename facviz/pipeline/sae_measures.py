"""What measuring an SAE leaves behind: the objects that `sae_evaluation` keeps as JSON, and their rows."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from facviz.store.manifest import Manifest, Scope
from facviz.store.schema import rows_to_arrow

if TYPE_CHECKING:
    from facviz.fidelity import Fidelity
    from facviz.records import Floats
    from facviz.sae.health import Combination, Health
    from facviz.sae.metrics import SaeMetrics
    from facviz.sae.model import SAE
    from facviz.sae.probing import Probe, Probing

LARGE_D_SAE = 16_384
"""Up to so many features nothing is left out."""
MAX_FLOPS = 3e12
"""Of a larger SAE, what takes more is left out: about a minute on two processor cores."""
FEWEST_TOKENS = 500
"""Below, intervals are too wide to tell neighbouring layers apart."""
DENSITY_EDGES = np.linspace(-7.0, 0.0, 29)
"""Of the histogram of log10 density, the same for all SAEs so that they can be laid over each other."""

MEASURED = "heldout_metrics"
"""Key of a trained SAE's `cfg.json` under which its measures travel with it."""


def is_affordable(d_sae: int, flops: float) -> bool:
    """Whether something that takes `flops` operations is computed for all features of an SAE."""
    return d_sae <= LARGE_D_SAE or flops <= MAX_FLOPS


def affordable_tokens(d_sae: int, flops_per_token: float, wanted: int) -> int:
    """`wanted`, or of a very large SAE as many as take about a minute, but at least `FEWEST_TOKENS`."""
    if is_affordable(d_sae, wanted * flops_per_token):
        return wanted
    return max(FEWEST_TOKENS, int(MAX_FLOPS // flops_per_token))


def metric_values(metrics: SaeMetrics) -> dict[str, Any]:
    """The figures every summary of an SAE holds."""
    return {
        "fvu": round(metrics.fvu, 4),
        "normalised_mse": round(metrics.normalised_mse, 4),
        "l0": round(metrics.l0, 2),
        "dead": metrics.n_dead,
        "dead_share": round(metrics.dead_share, 4),
        "n_always_on": metrics.n_always_on,
        "n_eval_tokens": metrics.n_tokens,
    }


def eval_measures(metrics: SaeMetrics, sae: SAE) -> dict[str, Any]:
    """Of kinds `eval` and `heldout`; `duplicates` is null where so many features cannot be compared in a minute."""
    return metric_values(metrics) | {
        "explained_variance": _number(metrics.explained_variance, 4),
        "l2_ratio": _number(metrics.l2_ratio, 4),
        "reconstruction_bias": _number(metrics.reconstruction_bias, 4),
        "duplicates": _count_duplicates(sae),
        "density_counts": _density_counts(metrics.density),
    }


def _count_duplicates(sae: SAE) -> int | None:
    from facviz.sae.geometry import duplicate_features

    if not is_affordable(sae.d_sae, sae.d_sae**2 * sae.d_in):  # of each pair only one half is multiplied
        return None
    return duplicate_features(sae.weights.decoder_view).n_features


def _density_counts(density: Floats) -> dict[str, Any]:
    fires = density > 0
    logarithms = np.log10(density[fires]).clip(DENSITY_EDGES[0], DENSITY_EDGES[-1])
    counts, _ = np.histogram(logarithms, DENSITY_EDGES)
    return {"edges": DENSITY_EDGES.tolist(), "counts": counts.tolist(), "n_dead": int((~fires).sum())}


def health_measures(health: Health, recorded_fvu: float | None) -> dict[str, Any]:
    """Of kind `health`: the verdict and every combination tried, best first."""
    return {
        "verdict": health.verdict,
        "sentence": health.sentence,
        "given": _combination(health.given),
        "best": _combination(health.best),
        "table": [_combination(c) | {"low": _number(c.low), "high": _number(c.high)} for c in health.table],
        "recorded_fvu": None if recorded_fvu is None else _number(recorded_fvu),
        "n_tokens": health.n_tokens,
    }


def _combination(c: Combination) -> dict[str, Any]:
    return {"layer": c.layer, "template": c.template, "fvu": _number(c.fvu)}


def fidelity_measures(fidelity: Fidelity) -> dict[str, Any]:
    """Of kind `fidelity`: cross-entropies and divergences in nats, and scores; null where an ablation costs nothing."""
    entropies = ("ce_clean", "ce_sae", "ce_zero", "ce_mean", "delta_ce", "ce_score_zero", "ce_score_mean")
    divergences = ("kl_sae", "kl_zero", "kl_mean", "kl_score_zero", "kl_score_mean")
    return {name: _number(getattr(fidelity, name)) for name in (*entropies, *divergences)} | {
        "n_tokens": fidelity.n_tokens
    }


def probing_measures(found: Mapping[str, Probing]) -> dict[str, Any]:
    """Of kind `probing`: for every label its probes by k, and what needs no SAE."""
    return {"labels": {label: _probed(probing) for label, probing in found.items()}}


def _probed(probing: Probing) -> dict[str, Any]:
    return {
        "k": {str(p.k): _probe(p) | {"feature_ids": list(p.feature_ids)} for p in probing.probes},
        "majority": _number(probing.majority_accuracy),
        "length": _probe(probing.length),
        "n_train": probing.n_train,
        "n_heldout": probing.n_heldout,
    }


def _probe(probe: Probe) -> dict[str, Any]:
    return {"accuracy": _number(probe.accuracy), "auroc": _number(probe.auroc)}


def _number(value: float, digits: int = 6) -> float | None:
    """Rounded, and None where JSON has no word for it."""
    return round(float(value), digits) if math.isfinite(value) else None


def write_evaluation(
    manifest: Manifest, scope: Scope, *, sae_id: str, kind: str, dataset: str, measures: Mapping[str, Any]
) -> None:
    """One row of `sae_evaluation`; `dataset` is a name, or empty for what rests on none."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    row = {"sae_id": sae_id, "dataset": dataset, "kind": kind, "measures": json.dumps(measures), "at": at}
    manifest.write_shard(scope, "sae_evaluation", "0", rows_to_arrow("sae_evaluation", [row]))
