"""dictionary_learning checkpoints: `ae.pt` or `checkpoints/ae_*.pt`, with the run's `config.json` where it is there.

The class decides how the tensors are read; it is taken from the configuration, and from the tensors alone only where
no two classes share them. Mid-run backups {step, ae, optimizer, config, norm_factor} are read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from facviz.errors import SaeError
from facviz.sae.formats import reading
from facviz.sae.formats.folding import assemble, fold_decoder_norm, fold_gate, positive, whole_number
from facviz.sae.model import SAE
from facviz.sae.weights import Activation

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "ae.pt"
CHECKPOINTS = "checkpoints"
_ENCODER = {"encoder.weight": "fd", "encoder.bias": "f", "decoder.weight": "df"}
_MATRICES = {"W_enc": "df", "W_dec": "fd", "b_enc": "f", "b_dec": "d"}
_TENSORS: dict[str, dict[str, str]] = {
    "AutoEncoder": _ENCODER | {"bias": "d"},
    "AutoEncoderNew": _ENCODER | {"decoder.bias": "d"},
    "GatedAutoEncoder": {
        "encoder.weight": "fd",
        "decoder.weight": "df",
        "decoder_bias": "d",
        "r_mag": "f",
        "gate_bias": "f",
        "mag_bias": "f",
    },
    "JumpReluAutoEncoder": _MATRICES | {"threshold": "f"},
    "AutoEncoderTopK": _ENCODER | {"b_dec": "d", "k": "", "threshold": ""},
    "BatchTopKSAE": _ENCODER | {"b_dec": "d", "k": "", "threshold": ""},
    "MatryoshkaBatchTopKSAE": _MATRICES | {"k": "", "threshold": ""},
}
"""Class → tensor → its axes: d = d_in, f = d_sae, none for a single number."""
_OPTIONAL = ("k", "threshold", "group_sizes")
_RENAMED = {
    "encoder.bias": "b_enc",
    "bias": "b_dec",
    "decoder.bias": "b_dec",
    "decoder_bias": "b_dec",
    "gate_bias": "b_gate",
    "mag_bias": "b_mag",
}
_TRANSPOSED = {"encoder.weight": "W_enc", "decoder.weight": "W_dec"}
_SCALED = ("b_enc", "b_dec", "b_mag", "b_gate", "threshold")
_WITHOUT_PRE_BIAS = ("AutoEncoderNew", "JumpReluAutoEncoder")


def sniff(path: Path) -> str:
    """A file named ae.pt or ae_STEP.pt, or a folder that holds one; empty for anything else."""
    try:
        if path.is_dir():
            found = _files(path)
            return f"{found[0].relative_to(path)}" if found else ""
        return f"a file named {path.name}" if _is_weights(path) else ""
    except OSError:
        return ""


def load(path: Path) -> SAE:
    """Read one checkpoint, as float32; features are those that `from_pretrained` of the library gives by default.

    Raises:
        SaeError: a file is missing or damaged, or its class is unknown, ambiguous or not expressible.
    """
    file = _one_file(path)
    notes: list[str] = []
    state, config, norm_factor = _read(file, notes)
    _refuse_transcoders(config, file)
    name = _class_of(state, config, file, notes)
    _check_shapes(state, name, file)
    tensors = _canonical(state)
    if norm_factor is not None:
        tensors = _unnormalise(tensors, norm_factor)
        notes.append(f"biases and thresholds multiplied by the norm_factor {norm_factor:g} of the training backup")
    tensors, activation = _activation(name, tensors, config.get("trainer", {}), notes)
    provenance = {"format": "dictionary_learning", "recognised_by": sniff(path), "class": name, "notes": notes}
    weights = assemble(tensors, activation, file, pre_bias=name not in _WITHOUT_PRE_BIAS, provenance=provenance)
    return SAE(weights, _metadata(config))


def _is_weights(path: Path) -> bool:
    return re.fullmatch(r"ae(_\w+)?\.pt", path.name) is not None and path.is_file()


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    return sorted(file for where in (folder, folder / CHECKPOINTS) for file in where.glob("ae_*.pt"))


def _one_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = _files(path)
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in found[:12])
        raise SaeError(f"{path} holds {len(found)} training checkpoints and no {WEIGHTS_FILE}; give one of {names}.")
    if not found:
        raise SaeError(f"{path} holds no {WEIGHTS_FILE}; give the folder of one trainer, or its {WEIGHTS_FILE}.")
    return found[0]


def _read(file: Path, notes: list[str]) -> tuple[dict[str, Tensor], dict[str, Any], float | None]:
    """State, configuration, and the norm factor that is still to be applied (only a backup has one)."""
    found = reading.read_torch(file)
    config = _config_beside(file)
    if not isinstance(found, Mapping) or not isinstance(found.get("ae"), Mapping):
        return reading.float_tensors(found, file), config, None
    notes.append(f"a mid-run backup, of training step {str(found.get('step'))[:20]}")
    if isinstance(found.get("config"), Mapping):
        config = config | {"trainer": found["config"]}
    factor = positive(found.get("norm_factor"))
    if factor is None and found.get("norm_factor") is not None:
        raise SaeError(f"{file} has a norm_factor that is not a positive number; fetch it again.")
    return reading.float_tensors(found["ae"], file), config, factor


def _config_beside(file: Path) -> dict[str, Any]:
    run = file.parent.parent if file.parent.name == CHECKPOINTS else file.parent
    path = next((each for each in (file.parent / CONFIG_FILE, run / CONFIG_FILE) if each.is_file()), None)
    if path is None:
        return {}
    config = reading.read_json(path)
    if not all(isinstance(config.get(part, {}), dict) for part in ("trainer", "buffer")):
        raise SaeError(f"{path} is no configuration of dictionary_learning; put the run's own config.json there.")
    return config


def _refuse_transcoders(config: Mapping[str, Any], file: Path) -> None:
    if config.get("buffer", {}).get("io") == "in_and_out":
        raise SaeError(f"{file} is a transcoder, which facviz cannot express; use a plain SAE.")


def _class_of(state: Mapping[str, Tensor], config: Mapping[str, Any], file: Path, notes: list[str]) -> str:
    stated = config.get("trainer", {}).get("dict_class")
    if stated is not None:
        name = str(stated).rsplit(".", 1)[-1].rstrip("'>")
        if name not in _TENSORS:
            raise SaeError(f"{file} is of the class {name[:40]!r}; facviz reads {', '.join(_TENSORS)}.")
        return name
    fitting = [name for name, tensors in _TENSORS.items() if tensors.keys() == state.keys() - {"group_sizes"}]
    if len(fitting) != 1:
        raise SaeError(f"The tensors of {file} do not tell its class; put the run's config.json beside it.")
    notes.append(f"the class {fitting[0]} is inferred from the tensors, as no config.json states it")
    return fitting[0]


def _check_shapes(state: Mapping[str, Tensor], name: str, file: Path) -> None:
    axes = _TENSORS[name]
    encoder = "encoder.weight" if "encoder.weight" in axes else "W_enc"
    shape = tuple(state[encoder].shape) if encoder in state else ()
    sizes = dict(zip(axes[encoder], shape, strict=False)) if len(shape) == 2 else {"d": 0, "f": 0}
    expected = {
        tensor: tuple(sizes[axis] for axis in text)
        for tensor, text in axes.items()
        if tensor in state or tensor not in _OPTIONAL or name == "JumpReluAutoEncoder"
    }
    reading.require({key: tuple(tensor.shape) for key, tensor in state.items()}, expected, file, _extra(name))


def _extra(name: str) -> tuple[str, ...]:
    return ("group_sizes",) if name == "MatryoshkaBatchTopKSAE" else ()


def _canonical(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = {_RENAMED.get(key, key): tensor for key, tensor in state.items() if key not in _TRANSPOSED}
    return tensors | {name: state[key].T for key, name in _TRANSPOSED.items() if key in state}


def _unnormalise(tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Training saw x / factor; scaling what is added or compared gives features and reconstructions of x itself."""
    return {key: tensor * factor if key in _SCALED else tensor for key, tensor in tensors.items()}


def _activation(
    name: str, tensors: dict[str, Tensor], trainer: Mapping[str, Any], notes: list[str]
) -> tuple[dict[str, Tensor], Activation]:
    """The canonical tensors of a class, and how it selects features outside of training."""
    if name in ("AutoEncoder", "AutoEncoderNew"):
        notes.append("features are multiplied by the norms of their decoder rows, which then have length 1")
        return fold_decoder_norm(tensors), Activation("relu")
    if name == "GatedAutoEncoder":
        notes.append("the gate is folded into a threshold per feature")
        tensors = fold_gate(tensors)
    threshold = None if name == "AutoEncoderTopK" else _threshold(tensors)
    if threshold is not None:
        return tensors, Activation("jumprelu", threshold=threshold)
    if name != "AutoEncoderTopK":
        notes.append("no threshold has been set yet, so each token keeps its top k features")
    if "k" not in tensors:
        notes.append("k is that of config.json, as the file stores none")
    return tensors, Activation("topk", k=whole_number(tensors.get("k", trainer.get("k"))))


def _threshold(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """[d_sae]; None for the single −1 that stands for a threshold not yet measured."""
    threshold = tensors.get("threshold")
    if threshold is None or (threshold.ndim == 0 and threshold < 0):
        return None
    return threshold.expand(tensors["b_enc"].shape).contiguous()


def _metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    trainer, buffer = config.get("trainer", {}), config.get("buffer", {})
    stated = {"model_name": trainer.get("lm_name"), "hook_name": trainer.get("submodule_name")}
    metadata: dict[str, Any] = {key: value for key, value in stated.items() if isinstance(value, str) and value}
    if context_size := whole_number(buffer.get("ctx_len")):
        metadata["context_size"] = context_size
    residual = re.fullmatch(r"resid_post_layer_(\d{1,4})", metadata.get("hook_name", ""))
    if residual and buffer.get("io", "out") == "out":
        metadata["layer"] = int(residual[1]) + 1
    return metadata
