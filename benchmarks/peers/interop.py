"""Our SAELens exports, opened by SAELens itself in its own environment: features and reconstructions must agree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.environment import failure
from benchmarks.sae import synthetic_activations
from facviz.config import SaeConfig
from facviz.sae.model import SAE
from facviz.sae.train import train_sae
from facviz.sae.weights import LayerNorm

TOLERANCE = 1e-5
OPENED_FILE = "opened.json"
_D_IN, _D_SAE, _K, _BATCH_TOKENS, _N_STEPS, _N_CHECKED = 64, 256, 8, 256, 40, 512
_EXPORTED_AS = {
    "relu": "standard",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "gated": "jumprelu",
    "batchtopk": "jumprelu",
    "matryoshka": "jumprelu",
    "paper": "topk",
    "matching_pursuit": "matching_pursuit",
}


def trained(architecture: str) -> SAE:
    """A small SAE of this architecture, trained briefly on synthetic activations off the origin."""
    x = synthetic_activations(_BATCH_TOKENS * _N_STEPS, _D_IN) + 0.5
    config = SaeConfig(architecture=architecture, d_sae=_D_SAE, k=_K, batch_tokens=_BATCH_TOKENS)  # type: ignore[arg-type]
    batches = torch.split(x, _BATCH_TOKENS)
    weights = train_sae(lambda step: iter(batches[step:]), config, d_in=_D_IN, n_steps=_N_STEPS, init_sample=x[:2048])
    return SAE(weights, {"hook_name": "blocks.0.hook_resid_post", "model_name": "synthetic"})


def write_cases(folder: Path) -> list[str]:
    """Exports with inputs and what we make of them, one folder a case; the names of the cases."""
    x = synthetic_activations(_N_CHECKED, _D_IN) + 0.5
    saes = {f"{name} → {kind}": trained(name) for name, kind in _EXPORTED_AS.items()}
    topk = saes["topk → topk"]
    saes["topk with layer norm"] = SAE(replace(topk.weights, input_norm=LayerNorm()), topk.metadata)
    np.save(folder / "x.npy", x.numpy())
    for number, sae in enumerate(saes.values()):
        case = sae.save(folder / str(number))
        codes = sae.encode(x)
        np.save(case / "features.npy", sae.to_dense(codes).numpy())
        np.save(case / "reconstruction.npy", sae.decode(codes).numpy())
    return list(saes)


def check_interop(python: Path, folder: Path) -> list[dict[str, Any]]:
    """Largest absolute differences of every case, or one entry that says why there are none."""
    names = write_cases(folder)
    if reason := failure([str(python), "-m", "benchmarks.peers.saelens_opens", str(folder), str(len(names))]):
        return [{"name": "of all exports", "failed": reason, "passed": False}]
    return judged(names, json.loads((folder / OPENED_FILE).read_text(encoding="utf-8")))


def judged(names: Sequence[str], opened: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """The cases with `passed`: both differences within the tolerance, NaN never, and features that fire at all."""
    return [{"name": name, **each, "passed": _agrees(each)} for name, each in zip(names, opened, strict=True)]


def _agrees(each: Mapping[str, float]) -> bool:
    return each["features"] <= TOLERANCE and each["reconstruction"] <= TOLERANCE and each["l0"] > 0
