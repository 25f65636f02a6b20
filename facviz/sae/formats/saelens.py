"""SAELens v6 (and readable pre-v6) folders: `cfg.json` + `sae_weights.safetensors`, read safely and written atomically.

What facviz cannot express is refused in words, never dropped: another input normalisation, reshaped hooks, skip
weights, unknown architectures or tensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from facviz.errors import SaeError
from facviz.files import user_path, write_files
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
_KINDS: dict[str, Literal["relu", "topk", "jumprelu"]] = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu"}
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
    both = (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file()
    return f"{CONFIG_FILE} beside {WEIGHTS_FILE}" if both else ""


def load(path: Path) -> SAE:
    """Read one folder, as float32; `metadata["layer"]` is set where the hook name tells it.

    Raises:
        SaeError: a file is missing or damaged, or the SAE uses something facviz cannot express.
    """
    folder = _folder(path)
    cfg = _read_config(folder)
    kind = _kind(cfg, folder)
    _refuse_unsupported(cfg, folder)
    tensors = _read_tensors(folder, cfg, kind)
    scaled = bool(cfg.get("rescale_acts_by_decoder_norm"))
    if scaled:
        _fold_decoder_norm(tensors)
    metadata = _metadata(cfg)
    own = metadata.pop("facviz", None)
    provenance = own.get("provenance") if isinstance(own, dict) else None
    weights = SaeWeights(
        W_enc=tensors["W_enc"],
        b_enc=tensors["b_enc"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        activation=Activation(kind, _k(cfg) if kind == "topk" else None, tensors.get("threshold")),
        pre_bias=bool(cfg.get("apply_b_dec_to_input", True)),
        provenance=provenance or {"format": "saelens", "decoder_norm_folded": scaled},
    )
    return SAE(weights, metadata)


def save(sae: SAE, folder: str | Path, *, half_precision: bool = False) -> Path:
    """Write `sae` so that SAELens 6 opens it; a reader never sees weights beside another SAE's configuration.

    Raises:
        SaeError: a weight does not fit float16.
        WorkspaceError: the folder cannot be written.
    """
    folder = user_path(folder)
    tensors = _tensors_to_store(sae.weights, half_precision)
    text = json.dumps(_config_of(sae), indent=2, default=str) + "\n"
    write_files(
        {
            folder / WEIGHTS_FILE: lambda temporary: safetensors.torch.save_file(tensors, temporary),
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
    try:
        cfg = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SaeError(f"{path} is not readable JSON ({error}); fetch it again.") from error
    if not isinstance(cfg, dict) or not all(_is_size(cfg.get(key)) for key in ("d_in", "d_sae")):
        raise SaeError(f"{path} does not state d_in and d_sae as positive whole numbers; it is no SAELens SAE.")
    return cfg


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _kind(cfg: Mapping[str, Any], folder: Path) -> Literal["relu", "topk", "jumprelu"]:
    name = cfg.get("architecture", "standard")
    function = cfg.get("activation_fn") or cfg.get("activation_fn_str") or "relu"
    if name == "standard" and function == "topk":
        name = "topk"  # before v6, TopK was a standard SAE with another activation function
    elif name == "standard" and function != "relu":
        raise SaeError(f"{folder} uses the activation function {function!r}; facviz reads relu and topk.")
    if name not in _KINDS:
        raise SaeError(f"{folder} has the architecture {name!r}; facviz reads {', '.join(_KINDS)} from SAELens files.")
    return _KINDS[name]


def _k(cfg: Mapping[str, Any]) -> int | None:
    k = cfg.get("k", (cfg.get("activation_fn_kwargs") or {}).get("k"))
    return k if _is_size(k) else None


def _refuse_unsupported(cfg: Mapping[str, Any], folder: Path) -> None:
    norm = cfg.get("normalize_activations", "none")
    if norm not in ("none", None, False):
        norm = "expected_average_only_in" if norm is True else norm
        raise SaeError(f"{folder} normalises its input ({norm}); fold that into the weights with SAELens first.")
    if cfg.get("reshape_activations", "none") not in ("none", None):
        raise SaeError(f"{folder} reads reshaped activations ({cfg['reshape_activations']}); facviz reads whole ones.")
    scaled = bool(cfg.get("rescale_acts_by_decoder_norm"))
    if scaled and _kind(cfg, folder) != "topk":
        raise SaeError(f"{folder} rescales activations by decoder norms outside topk; fold them with SAELens first.")


def _read_tensors(folder: Path, cfg: Mapping[str, Any], kind: str) -> dict[str, Tensor]:
    """All tensors as float32; names and shapes are checked in the header before anything is allocated."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise SaeError(f"{folder} has no {WEIGHTS_FILE}; give the folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}.")
    expected = _expected_shapes(cfg["d_in"], cfg["d_sae"], kind)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check_header(shapes, expected, path)
            tensors = {name: file.get_tensor(name).to(torch.float32) for name in shapes}
    except (OSError, safetensors.SafetensorError) as error:
        raise SaeError(f"{path} is not a whole safetensors file ({error}); fetch it again.") from error
    scaling = tensors.pop("scaling_factor", None)
    if scaling is not None and not bool((scaling == 1).all()):
        raise SaeError(f"{path} has scaling factors other than 1; fold them with SAELens first.")
    return tensors


def _expected_shapes(d_in: int, d_sae: int, kind: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,)}
    shapes |= {"W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    return shapes | {"threshold": (d_sae,)} if kind == "jumprelu" else shapes


def _check_header(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    missing = sorted(expected.keys() - shapes.keys())
    if missing:
        raise SaeError(f"{path} lacks the tensor {missing[0]}; fetch it again or give the inference export.")
    unknown = sorted(shapes.keys() - expected.keys() - {"scaling_factor"})
    if unknown:
        raise SaeError(f"{path} holds the tensor {unknown[0]}, which facviz cannot express; use another SAE.")
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise SaeError(f"In {path}, {name} has shape {shapes[name]}, but {CONFIG_FILE} says {shape}.")


def _fold_decoder_norm(tensors: dict[str, Tensor]) -> None:
    """Such SAEs rank pre-activations × ‖W_dec‖ and divide in decode: the same as unit rows and a scaled encoder."""
    norms = tensors["W_dec"].norm(dim=1)
    tensors["W_enc"] = tensors["W_enc"] * norms
    tensors["b_enc"] = tensors["b_enc"] * norms
    tensors["W_dec"] = tensors["W_dec"] / torch.where(norms > 0, norms, 1.0).unsqueeze(1)


def _metadata(cfg: Mapping[str, Any]) -> dict[str, Any]:
    nested = cfg.get("metadata")
    found = dict(nested) if isinstance(nested, dict) else {key: cfg[key] for key in _METADATA_KEYS if key in cfg}
    if "hook_point" in found:
        found["hook_name"] = found.pop("hook_point")
    layer = layer_of(str(found.get("hook_name", "")))
    return found if layer is None else found | {"layer": layer}


def _tensors_to_store(weights: SaeWeights, half_precision: bool) -> dict[str, Tensor]:
    matrix_dtype = torch.float16 if half_precision else torch.float32
    tensors = {"W_enc": weights.W_enc.to(matrix_dtype), "W_dec": weights.decoder.to(matrix_dtype)}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise SaeError("A weight is too large for float16; save the SAE in full precision.")
    tensors |= {"b_enc": weights.b_enc, "b_dec": weights.b_dec}
    if weights.activation.threshold is not None:
        tensors["threshold"] = weights.activation.threshold
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _config_of(sae: SAE) -> dict[str, Any]:
    weights = sae.weights
    metadata = dict(sae.metadata)
    layer = metadata.pop("layer", None)
    if layer is not None:
        metadata.setdefault("hook_name", hook_name_of(layer))
    trained_as = weights.provenance.get("config", {}).get("architecture", sae.architecture)
    metadata.setdefault("training_architecture", trained_as)
    cfg: dict[str, Any] = {
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": weights.pre_bias,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if weights.activation.kind == "topk":
        cfg |= {"k": weights.activation.k, "rescale_acts_by_decoder_norm": False}
    return cfg | {"metadata": metadata | {"facviz": {"provenance": dict(weights.provenance)}}}
