"""SAELens v6 and pre-v6 folders: `cfg.json` + `sae_weights.safetensors`, read safely and written atomically.

Inference exports and training checkpoints are read. What facviz cannot express is refused in words, never dropped:
other input normalisations, reshaped hooks, skip weights, unknown architectures or tensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from facviz.errors import SaeError
from facviz.files import user_path, write_files
from facviz.sae.formats import reading
from facviz.sae.formats.folding import (
    assemble,
    fold_decoder_norm,
    fold_gate,
    fold_input_scale,
    positive,
    whole_number,
)
from facviz.sae.formats.writing import write_tensors
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, LayerNorm, SaeWeights

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
SCALER_FILE = "activation_scaler.json"
_KINDS: dict[str, Literal["relu", "topk", "jumprelu", "matching_pursuit"]] = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "gated": "jumprelu",
    "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
    "matching_pursuit": "matching_pursuit",
}
_SCALED_INPUT = "expected_average_only_in"
_METADATA_KEYS = ("model_name", "hook_name", "hook_point", "context_size", "prepend_bos", "dataset_path")


def hook_name_of(layer: int) -> str:
    """SAELens' name of hidden state `layer`: 0 is the input of the first block, L the output of block L − 1."""
    return "blocks.0.hook_resid_pre" if layer == 0 else f"blocks.{layer - 1}.hook_resid_post"


def layer_of(hook_name: str) -> int | None:
    """Hidden-state index of a residual-stream hook name; None for any other hook."""
    match = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", hook_name)
    return int(match[1]) + (match[2] == "post") if match else None


def sniff(path: Path) -> str:
    """What such a folder, or one of its two files, is recognised by; empty for anything else."""
    folder = _folder(path)
    try:
        both = (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file()
    except OSError:
        return ""
    return f"{CONFIG_FILE} beside {WEIGHTS_FILE}" if both else ""


def load(path: Path) -> SAE:
    """Read one folder, as float32; `metadata["layer"]` is set where the hook name tells it.

    Raises:
        SaeError: a file is missing or damaged, or the SAE uses something facviz cannot express.
    """
    folder = _folder(path)
    cfg = _read_config(folder)
    architecture = _architecture(cfg, folder)
    _refuse_unsupported(cfg, architecture, folder)
    notes: list[str] = []
    tensors = _fold(_read_tensors(folder, cfg, architecture), cfg, folder, notes)
    kind = _KINDS[architecture]
    metadata = _metadata(cfg)
    own = metadata.pop("facviz", None)
    stated = own.get("provenance") if isinstance(own, dict) else None
    provenance = stated if isinstance(stated, dict) else None
    weights = assemble(
        tensors,
        Activation(kind, _k(cfg) if kind in ("topk", "matching_pursuit") else None, tensors.get("threshold")),
        folder / WEIGHTS_FILE,
        pre_bias=bool(cfg.get("apply_b_dec_to_input", True)),
        input_norm=LayerNorm() if cfg.get("normalize_activations") == "layer_norm" else None,
        provenance=provenance or {"format": "saelens", "recognised_by": sniff(path), "notes": notes},
    )
    return SAE(weights, metadata)


def save(sae: SAE, folder: str | Path, *, half_precision: bool = False) -> Path:
    """Write `sae` so that SAELens 6 opens it; a reader never sees weights beside another SAE's configuration.

    Raises:
        SaeError: a weight does not fit float16.
        WorkspaceError: the folder cannot be written.
    """
    folder = user_path(folder)
    tensors = _tensors_to_store(sae.weights, torch.float16 if half_precision else torch.float32)
    text = json.dumps(_config_of(sae), indent=2, default=str) + "\n"
    write_files(
        {
            folder / WEIGHTS_FILE: lambda temporary: write_tensors(temporary, tensors),
            folder / CONFIG_FILE: lambda temporary: temporary.write_text(text, encoding="utf-8"),
        }
    )
    return folder


def _folder(path: Path) -> Path:
    return path.parent if path.name in (CONFIG_FILE, WEIGHTS_FILE) else path


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise SaeError(f"{folder} has no {CONFIG_FILE}; give the folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}.")
    cfg = reading.read_json(path)
    if not all(_is_size(cfg.get(key)) for key in ("d_in", "d_sae")):
        raise SaeError(f"{path} does not state d_in and d_sae as positive whole numbers; it is no SAELens SAE.")
    return cfg


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and whole_number(value) > 0


def _architecture(cfg: Mapping[str, Any], folder: Path) -> str:
    name = str(cfg.get("architecture", "standard"))
    function = cfg.get("activation_fn") or cfg.get("activation_fn_str") or "relu"
    if name == "standard" and function == "topk":
        name = "topk"  # before v6, TopK was a standard SAE with another activation function
    elif function != "relu" and (name, function) != ("topk", "topk"):
        raise SaeError(f"{folder} uses the activation function {str(function)[:40]!r}; facviz reads relu and topk.")
    if name not in _KINDS:
        known = ", ".join(_KINDS)
        raise SaeError(f"{folder} has the architecture {name[:40]!r}; facviz reads {known} from SAELens files.")
    return name


def _k(cfg: Mapping[str, Any]) -> int | None:
    arguments = cfg.get("activation_fn_kwargs")
    k = cfg.get("k", arguments.get("k") if isinstance(arguments, dict) else cfg.get("max_iterations"))
    return k if _is_size(k) else None


def _refuse_unsupported(cfg: Mapping[str, Any], architecture: str, folder: Path) -> None:
    norm = cfg.get("normalize_activations", "none")
    if norm not in ("none", None, False, True, "layer_norm", _SCALED_INPUT):
        raise SaeError(
            f"{folder} normalises its input ({str(norm)[:40]}), which facviz cannot express; use another SAE."
        )
    if cfg.get("reshape_activations", "none") not in ("none", None):
        shape = str(cfg["reshape_activations"])[:40]
        raise SaeError(f"{folder} reads reshaped activations ({shape}); facviz reads whole ones.")
    if cfg.get("is_transcoder") or cfg.get("d_out", cfg["d_in"]) != cfg["d_in"]:
        raise SaeError(f"{folder} is a transcoder, which facviz cannot express; use a plain SAE.")
    if architecture == "matching_pursuit" and (cfg.get("residual_threshold") or cfg.get("stop_on_duplicate_support")):
        raise SaeError(f"{folder} ends its pursuit at a residual or repetition; facviz takes a fixed number of steps.")
    if cfg.get("rescale_acts_by_decoder_norm") and architecture == "gated":
        raise SaeError(f"{folder} rescales gated activations by decoder norms; fold them with SAELens first.")


def _read_tensors(folder: Path, cfg: Mapping[str, Any], architecture: str) -> dict[str, Tensor]:
    """All tensors as float32; names and shapes are checked in the header before anything is allocated."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise SaeError(f"{folder} has no {WEIGHTS_FILE}; give the folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}.")
    shapes = reading.safetensors_shapes(path)
    expected = _expected_shapes(cfg["d_in"], cfg["d_sae"], architecture, shapes.keys())
    reading.require(shapes, expected, path, optional=["scaling_factor"])
    tensors = reading.float_tensors(reading.read_safetensors(path), path)
    scaling = tensors.pop("scaling_factor", None)
    if scaling is not None and not bool((scaling == 1).all()):
        raise SaeError(f"{path} has scaling factors other than 1; fold them with SAELens first.")
    return tensors


def _expected_shapes(d_in: int, d_sae: int, architecture: str, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """What the architecture stores; training checkpoints keep the threshold in another form."""
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    if architecture == "matching_pursuit":
        return {name: shapes[name] for name in ("W_dec", "b_dec")}
    if architecture == "gated":
        return shapes | dict.fromkeys(("b_gate", "b_mag", "r_mag"), (d_sae,))
    shapes["b_enc"] = (d_sae,)
    if architecture == "jumprelu":
        shapes["log_threshold" if "log_threshold" in names else "threshold"] = (d_sae,)
    elif _KINDS[architecture] == "jumprelu":
        shapes["topk_threshold"] = ()
    return shapes


def _fold(tensors: dict[str, Tensor], cfg: Mapping[str, Any], folder: Path, notes: list[str]) -> dict[str, Tensor]:
    """Gates, logarithms, scales and norms into the canonical tensors; what was done goes into `notes`."""
    tensors = _fold_threshold(tensors, notes)
    if cfg.get("architecture") == "matching_pursuit":
        tensors["W_enc"], tensors["b_enc"] = tensors.pop("W_dec").T.contiguous(), torch.zeros(cfg["d_sae"])
    rescaled = bool(cfg.get("rescale_acts_by_decoder_norm"))
    scale = _input_scale(cfg, folder)
    if scale is not None:
        tensors = fold_input_scale(tensors, scale)
        if rescaled and "threshold" in tensors:
            tensors["threshold"] = tensors["threshold"] / scale  # it is compared after × decoder norm, now smaller
        notes.append(f"the scale {scale:g} of the input is folded into the weights, b_dec and the threshold")
    if rescaled:
        # Pre-activations are multiplied by ‖W_dec‖ before ReLU, threshold or top-k, and divided by it in decode: that
        # is an SAE with a scaled encoder, unit rows and the threshold it has.
        tensors = fold_decoder_norm(tensors)
        notes.append("features are multiplied by the norms of their decoder rows, which then have length 1")
    return tensors


def _fold_threshold(tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    if "r_mag" in tensors:
        notes.append("the gate is folded into a threshold per feature")
        return fold_gate(tensors)
    if "log_threshold" in tensors:
        notes.append("a training checkpoint: the threshold is stored as its logarithm")
        return tensors | {"threshold": tensors.pop("log_threshold").exp()}
    if "topk_threshold" in tensors:
        notes.append("a training checkpoint of BatchTopK: one threshold for all features, as in its own export")
        return tensors | {"threshold": tensors.pop("topk_threshold").expand(tensors["b_enc"].shape).contiguous()}
    return tensors


def _input_scale(cfg: Mapping[str, Any], folder: Path) -> float | None:
    if cfg.get("normalize_activations") not in (_SCALED_INPUT, True):
        return None
    path = folder / SCALER_FILE
    beside = reading.read_json(path).get("scaling_factor") if path.is_file() else None
    stated = (beside, cfg.get("norm_scaling_factor"), cfg.get("scaling_factor"))
    scale = next((number for value in stated if (number := positive(value)) is not None), None)
    if scale is None:
        raise SaeError(
            f"{folder} scales its input ({_SCALED_INPUT}) by a factor that it does not state; "
            f"fold it into the weights with SAELens, or put its {SCALER_FILE} there."
        )
    return scale


def _metadata(cfg: Mapping[str, Any]) -> dict[str, Any]:
    nested = cfg.get("metadata")
    found = dict(nested) if isinstance(nested, dict) else {key: cfg[key] for key in _METADATA_KEYS if key in cfg}
    if "hook_point" in found:
        found["hook_name"] = found.pop("hook_point")
    found.pop("layer", None)  # only a hook name tells it
    layer = layer_of(str(found.get("hook_name", "")))
    return found if layer is None else found | {"layer": layer}


def _tensors_to_store(weights: SaeWeights, matrices: torch.dtype) -> dict[str, tuple[Tensor, torch.dtype]]:
    """Each with the dtype it is stored in; W_dec also of a tied SAE, which SAELens does not know."""
    if weights.activation.kind == "matching_pursuit":
        return {"W_dec": (weights.decoder_view, matrices), "b_dec": (weights.b_dec, torch.float32)}
    tensors = {"W_enc": (weights.W_enc, matrices), "W_dec": (weights.decoder_view, matrices)}
    vectors = {"b_enc": weights.b_enc, "b_dec": weights.b_dec, "threshold": weights.activation.threshold}
    return tensors | {name: (vector, torch.float32) for name, vector in vectors.items() if vector is not None}


def _config_of(sae: SAE) -> dict[str, Any]:
    weights = sae.weights
    _refuse_inexpressible(weights)
    metadata = dict(sae.metadata)
    layer = metadata.pop("layer", None)
    if layer is not None and layer_of(str(metadata.get("hook_name", ""))) != layer:
        metadata["hook_name"] = hook_name_of(layer)  # other notations are unknown to SAELens
    config = weights.provenance.get("config")
    trained_as = config.get("architecture", sae.architecture) if isinstance(config, Mapping) else sae.architecture
    metadata.setdefault("training_architecture", trained_as)
    cfg: dict[str, Any] = {
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": weights.pre_bias,
        "normalize_activations": "none" if weights.input_norm is None else "layer_norm",
        "reshape_activations": "none",
    }
    if weights.activation.kind == "topk":
        cfg |= {"k": weights.activation.k, "rescale_acts_by_decoder_norm": False}
    if weights.activation.kind == "matching_pursuit":
        cfg |= {"max_iterations": weights.activation.k, "residual_threshold": 0.0, "stop_on_duplicate_support": False}
    return cfg | {"metadata": metadata | {"facviz": {"provenance": dict(weights.provenance)}}}


def _refuse_inexpressible(weights: SaeWeights) -> None:
    if weights.activation.kind == "groupmax":
        raise SaeError("SAELens has no groupmax SAEs; keep the file this one was loaded from.")
    if weights.input_norm not in (None, LayerNorm()):
        raise SaeError("SAELens normalises tokens in another way than this SAE; keep the file it was loaded from.")
