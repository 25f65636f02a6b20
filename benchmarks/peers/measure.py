"""The one evaluator for every library's SAE, in float64 and on the same held-out tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from facviz.errors import SaeError
from facviz.sae.metrics import SaeEvaluator
from facviz.sae.model import SAE
from facviz.sae.weights import Activation

_CHUNK_TOKENS = 2048
_LEVEL_EVERY = 8
_OWN_TOLERANCE = 1e-3


def measure(sae: SAE, heldout: Tensor, k: int) -> dict[str, Any]:
    """FVU, L0 and the share of features that fire on `heldout`; those as saved, where L0 had to be levelled to k.

    Thresholds averaged over a short run are off, and FVU at different L0 says nothing: SAEs that select by one are
    compared at the same L0.
    """
    saved = evaluate(sae, heldout)
    if sae.architecture != "jumprelu":
        return saved
    return evaluate(levelled(sae, heldout, k), heldout) | {"as_saved": saved}


def evaluate(sae: SAE, heldout: Tensor) -> dict[str, float]:
    """`fvu`, `l0` and `alive` over heldout [n, d]."""
    evaluator = SaeEvaluator(sae)
    for part in torch.split(heldout, _CHUNK_TOKENS):
        evaluator.update(part)
    metrics = evaluator.result()
    return {"fvu": metrics.fvu, "l0": metrics.l0, "alive": 1 - metrics.dead_share}


def levelled(sae: SAE, heldout: Tensor, k: int) -> SAE:
    """The same SAE with one threshold for all features, at which every eighth token averages k of them."""
    sample = heldout[::_LEVEL_EVERY]
    values = sae.encode(sample, dense=True).values
    n_kept = k * len(sample)
    if len(values) <= n_kept:
        threshold = values.new_zeros(())
    else:
        threshold = torch.topk(values, n_kept + 1, sorted=True).values[-1]  # it counts strictly above
    everywhere = threshold.expand(sae.d_sae).contiguous()
    return SAE(replace(sae.weights, activation=Activation("jumprelu", threshold=everywhere)), sae.metadata)


def check_own(report: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    """That the library's own encode and decode give the FVU we measure on the weights as saved.

    Raises:
        SaeError: they do not, so one of the two reads the weights wrongly.
    """
    theirs, ours = report["own_fvu"], measured.get("as_saved", measured)["fvu"]
    if not abs(theirs - ours) <= _OWN_TOLERANCE * max(theirs, ours):
        raise SaeError(f"The library itself measures an FVU of {theirs:.4g}, facviz {ours:.4g}; one reads it wrongly.")
