"""Checkpoints of the BatchTopK reference code (bartbussmann/BatchTopK): `sae.pt` + `config.json` in one folder.

W_enc [d_in, d_sae], W_dec [d_sae, d_in]; which biases are used, and how features are selected, depends on `sae_type`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facviz.errors import SaeError
from facviz.sae.formats import reading, saelens
from facviz.sae.formats.folding import assemble, whole_number
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, LayerNorm

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "sae.pt"
_TYPES = ("vanilla", "topk", "batchtopk", "jumprelu")
_LOG_THRESHOLD = "jumprelu.log_threshold"
_EARLY_SETTINGS = {"activation": "relu", "tied_weights": False, "use_encoder_bias": False}
"""Settings of early versions of that code and the only values that mean what today's code does."""


def sniff(path: Path) -> str:
    """Such a folder, or one of its two files; empty for anything else."""
    try:
        folder = _folder(path)
        if not ((folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file()):
            return ""
        ours = {"act_size", "dict_size", "sae_type"} <= reading.read_json(folder / CONFIG_FILE).keys()
    except (OSError, SaeError):
        return ""
    return f"{WEIGHTS_FILE} beside a {CONFIG_FILE} with act_size, dict_size and sae_type" if ours else ""


def load(path: Path) -> SAE:
    """Read one checkpoint, as float32; `metadata["layer"]` is set where its hook point tells it.

    Raises:
        SaeError: a file is missing or damaged, or the SAE uses something facviz cannot express.
    """
    folder = _folder(path)
    cfg = _read_config(folder)
    kind = cfg["sae_type"]
    file = folder / WEIGHTS_FILE
    stored = _read_tensors(file, cfg)
    notes: list[str] = []
    if kind in ("topk", "batchtopk"):
        stored["b_enc"] = torch.zeros_like(stored["b_enc"])
        notes.append(f"b_enc is set to zero, as a {kind} SAE of this code does not use it")
    input_norm = LayerNorm() if cfg.get("input_unit_norm") else None
    if input_norm:
        notes.append("every token is centred and divided by its standard deviation (input_unit_norm)")
    if kind == "jumprelu":
        notes.append("b_dec is not subtracted from the input, as a jumprelu SAE of this code is called")
    activation = _activation(stored, cfg, notes)
    provenance = {"format": "batchtopk_repo", "recognised_by": sniff(path), "sae_type": kind, "notes": notes}
    pre_bias = kind != "jumprelu"
    weights = assemble(stored, activation, file, pre_bias=pre_bias, input_norm=input_norm, provenance=provenance)
    return SAE(weights, _metadata(cfg))


def _folder(path: Path) -> Path:
    return path.parent if path.name in (CONFIG_FILE, WEIGHTS_FILE) else path


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise SaeError(f"{folder} does not hold {WEIGHTS_FILE} and {CONFIG_FILE}; give the folder that holds both.")
    cfg = reading.read_json(path)
    if not all(whole_number(cfg.get(key)) for key in ("act_size", "dict_size")):
        raise SaeError(f"{path} does not state act_size and dict_size as positive whole numbers; fetch it again.")
    if cfg.get("sae_type") not in _TYPES:
        raise SaeError(f"{path} has the sae_type {str(cfg.get('sae_type'))[:40]!r}; facviz reads {', '.join(_TYPES)}.")
    for key, value in _EARLY_SETTINGS.items():
        if cfg.get(key, value) != value:
            raise SaeError(
                f"{path} sets {key} to {str(cfg[key])[:40]!r}, which facviz cannot express; use another SAE."
            )
    return cfg


def _read_tensors(file: Path, cfg: Mapping[str, Any]) -> dict[str, Tensor]:
    stored = reading.float_tensors(reading.read_torch(file), file)
    d_in, d_sae = whole_number(cfg["act_size"]), whole_number(cfg["dict_size"])
    expected: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in)}
    expected |= {"b_enc": (d_sae,), "b_dec": (d_in,)}
    if cfg["sae_type"] == "jumprelu":
        expected[_LOG_THRESHOLD] = (d_sae,)
    if cfg["sae_type"] == "batchtopk" and "threshold" in stored:
        expected["threshold"] = (d_sae,) if stored["threshold"].ndim else ()
    reading.require({name: tuple(tensor.shape) for name, tensor in stored.items()}, expected, file)
    return stored


def _activation(stored: Mapping[str, Tensor], cfg: Mapping[str, Any], notes: list[str]) -> Activation:
    if cfg["sae_type"] == "vanilla":
        return Activation("relu")
    if cfg["sae_type"] == "jumprelu":
        return Activation("jumprelu", threshold=stored[_LOG_THRESHOLD].exp())
    if "threshold" in stored:
        notes.append("the stored threshold selects the features, not top_k")
        return Activation("jumprelu", threshold=stored["threshold"].expand(stored["b_enc"].shape).contiguous())
    if cfg["sae_type"] == "batchtopk":
        notes.append("no threshold is stored, so each token keeps its top k features instead of k on average")
    return Activation("topk", k=whole_number(cfg.get("top_k")))


def _metadata(cfg: Mapping[str, Any]) -> dict[str, Any]:
    stated = {"model_name": cfg.get("model_name"), "hook_name": cfg.get("hook_point")}
    metadata: dict[str, Any] = {key: value for key, value in stated.items() if isinstance(value, str) and value}
    if context_size := whole_number(cfg.get("seq_len")):
        metadata["context_size"] = context_size
    layer = saelens.layer_of(metadata.get("hook_name", ""))
    return metadata if layer is None else metadata | {"layer": layer}
