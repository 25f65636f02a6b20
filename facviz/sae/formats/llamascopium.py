"""Llamascopium folders (`config.json` + `sae_weights.safetensors`) and older Llama Scope (`hyperparams.json`).

The encoder sees the raw input unless the file says otherwise. Normalisation by a data set's average norm and gating by
decoder norms are folded into the weights; what normalises token by token is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facviz.errors import SaeError
from facviz.sae.formats.folding import assemble, fold_decoder_norm, fold_input_scale, positive, whole_number
from facviz.sae.formats.naming import last_match, matrix_shape, metadata_of
from facviz.sae.formats.reading import float_tensors, read_json, read_safetensors, require, safetensors_shapes
from facviz.sae.model import SAE
from facviz.sae.weights import Activation

_CONFIG, _WEIGHTS, _SHARDED = "config.json", "sae_weights.safetensors", "sae_weights.dcp"
_OLD_CONFIG, _OLD_WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
_NORM = "dataset_average_activation_norm."
_THRESHOLD = "activation_function.log_jumprelu_threshold"
_UNREACHABLE = torch.finfo(torch.float32).max


def sniff(path: Path) -> str:
    """What such a folder, or a file of it, is recognised by; empty for anything else."""
    try:
        folder = _folder(path)
        if (folder / _OLD_CONFIG).is_file() and (folder / _OLD_WEIGHTS).is_file():
            return f"{_OLD_CONFIG} beside {_OLD_WEIGHTS}"
        found = [name for name in (_WEIGHTS, _SHARDED) if (folder / name).exists() and (folder / _CONFIG).is_file()]
    except OSError:
        return ""
    return f"{_CONFIG} beside {found[0]}" if found else ""


def load(path: Path) -> SAE:
    """Read one folder of either generation.

    Raises:
        SaeError: a file is missing or damaged, or the SAE uses something facviz cannot express.
    """
    folder = _folder(path)
    return _load_old(folder) if (folder / _OLD_CONFIG).is_file() else _load_new(folder)


def _folder(path: Path) -> Path:
    if path.name in (_CONFIG, _WEIGHTS, _SHARDED, _OLD_CONFIG):
        return path.parent
    return path.parent.parent if path.as_posix().endswith(f"/{_OLD_WEIGHTS}") else path


def _load_new(folder: Path) -> SAE:
    file = folder / _WEIGHTS
    if not file.is_file():
        raise SaeError(_missing(folder))
    config = read_json(folder / _CONFIG)
    _refuse(config, folder)
    shapes = safetensors_shapes(file)
    _check_new(shapes, config, file)
    stored = float_tensors(read_safetensors(file), file)
    provenance: dict[str, Any] = {"format": "llamascopium", "recognised_by": sniff(folder)}
    tensors = {"W_enc": stored["W_E"], "b_enc": stored["b_E"], "W_dec": stored["W_D"]}
    tensors["b_dec"] = stored["b_D"] if "b_D" in stored else torch.zeros(len(stored["W_E"]))
    if _THRESHOLD in stored:
        tensors["threshold"] = stored[_THRESHOLD].exp()
        provenance["threshold"] = "exponential of the stored logarithm"
    scale = _input_scale(config, stored.get(_NORM + config["hook_point_in"]), len(stored["W_E"]), folder, provenance)
    return _sae(tensors, config, scale, folder, provenance)


def _missing(folder: Path) -> str:
    if (folder / _SHARDED).exists():
        return f"{folder} is a distributed checkpoint (.dcp); save it again as {_WEIGHTS} with Llamascopium first."
    return f"{folder} has no {_WEIGHTS}; give the folder that holds {_CONFIG} and {_WEIGHTS}."


def _check_new(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], file: Path) -> None:
    d_in, d_sae = matrix_shape(shapes, "W_E", file)
    if config.get("d_model", d_in) != d_in or int(d_in * _number(config, "expansion_factor", file)) != d_sae:
        raise SaeError(f"In {file}, W_E has shape {(d_in, d_sae)}, but {_CONFIG} says otherwise; fetch it again.")
    expected: dict[str, tuple[int, ...]] = {"W_E": (d_in, d_sae), "b_E": (d_sae,), "W_D": (d_sae, d_in)}
    if config.get("use_decoder_bias", True):
        expected["b_D"] = (d_in,)
    if config.get("act_fn") == "jumprelu":
        expected[_THRESHOLD] = (d_sae,)
    require(shapes, expected, file, [name for name in shapes if name.startswith(_NORM)])


def _load_old(folder: Path) -> SAE:
    file = folder / _OLD_WEIGHTS
    config = read_json(folder / _OLD_CONFIG)
    _refuse(config, folder)
    shapes = safetensors_shapes(file)
    d_sae, d_in = matrix_shape(shapes, "encoder.weight", file)
    expected = {"encoder.weight": (d_sae, d_in), "encoder.bias": (d_sae,), "decoder.weight": (d_in, d_sae)}
    require(shapes, expected | ({"decoder.bias": (d_in,)} if config.get("use_decoder_bias", True) else {}), file)
    stored = float_tensors(read_safetensors(file), file)
    tensors = {
        "W_enc": stored["encoder.weight"].T,
        "b_enc": stored["encoder.bias"],
        "W_dec": stored["decoder.weight"].T,
    }
    tensors["b_dec"] = stored["decoder.bias"] if "decoder.bias" in stored else torch.zeros(d_in)
    provenance: dict[str, Any] = {"format": "llama_scope", "recognised_by": sniff(folder)}
    norms = config.get("dataset_average_activation_norm")
    norm = norms.get("in") if isinstance(norms, Mapping) else None
    scale = _input_scale(config, norm, d_in, folder, provenance)
    if config.get("act_fn", "relu") == "jumprelu":
        tensors["threshold"] = torch.full((d_sae,), _number(config, "jump_relu_threshold", folder) * scale)
        provenance["threshold"] = f"one for all features, times the input scale {scale:.6g}"
    return _sae(tensors, config, scale, folder, provenance)


def _refuse(config: Mapping[str, Any], folder: Path) -> None:
    """What the canonical weights cannot express."""
    if config.get("sae_type", "sae") != "sae":
        raise SaeError(f"{folder} is of the type {config['sae_type']!r}; facviz reads plain SAEs from Llamascopium.")
    hook = config.get("hook_point_in")
    if not isinstance(hook, str) or config.get("hook_point_out", hook) != hook:
        raise SaeError(f"{folder} is a transcoder, which writes elsewhere than it reads; use an SAE.")
    if config.get("use_glu_encoder"):
        raise SaeError(f"{folder} has a gated linear encoder, which facviz cannot express; use an SAE without.")
    if config.get("act_fn", "relu") not in ("relu", "topk", "jumprelu"):
        raise SaeError(f"{folder} uses the activation {config['act_fn']!r}; convert it to jumprelu first.")
    mode = config.get("norm_activation", "dataset-wise")
    if mode not in ("dataset-wise", "inference", "none"):
        raise SaeError(f"{folder} normalises its input {mode}; facviz reads dataset-wise and inference.")


def _number(config: Mapping[str, Any], key: str, where: Path) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise SaeError(f"The configuration of {where} does not state {key} as a number; fetch it again.")
    return float(value)


def _input_scale(
    config: Mapping[str, Any], norm: Tensor | float | None, d_in: int, folder: Path, provenance: dict[str, Any]
) -> float:
    """What brings inputs of the data set's average norm to √d_in; 1 where nothing is normalised."""
    if config.get("norm_activation", "dataset-wise") != "dataset-wise":
        return 1.0
    value = positive(norm)
    if value is None:
        raise SaeError(f"{folder} normalises by its data set's average norm but does not state it; fetch it again.")
    scale = math.sqrt(d_in) / value
    provenance["input_scale"] = f"{scale:.6g} folded into encoder and decoder: √d_in / average norm {value:.6g}"
    return scale


def _sae(
    tensors: dict[str, Tensor], config: Mapping[str, Any], scale: float, folder: Path, provenance: dict[str, Any]
) -> SAE:
    kind = config.get("act_fn", "relu")
    if config.get("sparsity_include_decoder_norm", True):
        tensors = _fold_gate_norm(tensors, kind, provenance)
    tensors = tensors if scale == 1.0 else fold_input_scale(tensors, scale)
    k = whole_number(config.get("top_k")) if kind == "topk" else None
    if kind == "topk":
        provenance["negative_values"] = "inactive, also among the top k"
    pre_bias = bool(config.get("apply_decoder_bias_to_pre_encoder", False))
    activation = Activation(kind, k, tensors.get("threshold"))
    weights = assemble(tensors, activation, folder, pre_bias=pre_bias, provenance=provenance)
    return SAE(weights, metadata_of(config["hook_point_in"], model_name=_model_name(folder, provenance)))


def _fold_gate_norm(tensors: dict[str, Tensor], kind: str, provenance: dict[str, Any]) -> dict[str, Tensor]:
    """Such SAEs gate pre-activations × ‖decoder row‖ and divide afterwards.

    A threshold takes the division exactly and ReLU needs none. Among the top k only the order changes: with unit rows
    and a scaled encoder the same features win and decode the same, each activation times its norm.
    """
    if kind == "topk":
        provenance["decoder_norm"] = "moved into the encoder: activations are the stored ones times it"
        return fold_decoder_norm(tensors)
    if kind == "jumprelu":
        norms = tensors["W_dec"].norm(dim=1)
        reachable = tensors["threshold"] / torch.where(norms > 0, norms, 1.0)
        provenance["decoder_norm"] = "the threshold is divided by it"
        return tensors | {"threshold": torch.where(norms > 0, reachable, _UNREACHABLE)}
    return tensors


def _model_name(folder: Path, provenance: dict[str, Any]) -> str | None:
    """From the uploader's `lm_config.json`, or from the published folders' names."""
    if (folder / "lm_config.json").is_file():
        name = read_json(folder / "lm_config.json").get("model_name")
        return str(name) if name else None
    if match := last_match(r"Llama3_1-8B-Base", folder):
        provenance["model_name"] = f"from the folder name ({match[0]})"
        return "meta-llama/Llama-3.1-8B"
    return None
