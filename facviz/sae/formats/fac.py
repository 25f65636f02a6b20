"""FAC-Synthesis `.pth` files: a tied SAE whose class and layer only the file name tells.

Loaded as it was trained (top k of the raw pre-activations, then ReLU) or, by `load_dense`, as its published span
collection ran it (ReLU of all of them). The encoder stays memory-mapped: at 65,536 features it takes a gigabyte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from facviz.errors import SaeError
from facviz.sae.formats.folding import naming, whole_number
from facviz.sae.formats.naming import last_match, matrix_shape, metadata_of, named_file
from facviz.sae.formats.reading import float_tensors, read_torch, require, torch_names
from facviz.sae.formats.saelens import hook_name_of
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights

_NAME = re.compile(r"(topk\d*|sae|ae)_l(\d+)_.*\.pth", re.IGNORECASE)
_CLASS_K = 20  # the published class's default, for a file that states none
_MODELS = {
    "llama": "meta-llama/Llama-3.1-8B-Instruct",
    "mistral": "mistralai/Mistral-7B-Instruct-v0.2",
}


def sniff(path: Path) -> str:
    """What such a file, or the folder that holds just one, is recognised by; empty for anything else."""
    file = named_file(path, r".*\.pth")
    if file is None or not {"weight", "config", "d_inp", "d_hide"} <= torch_names(file):
        return ""
    return "a .pth file with weight and config {d_inp, d_hide}"


def load(path: Path) -> SAE:
    """Read one file with its top k; a file of the plain class has none and is ReLU.

    Raises:
        SaeError: it is missing, damaged, or no such file.
    """
    return _load(path, dense=False)


def load_dense(path: Path) -> SAE:
    """The same file with every positive pre-activation kept, as the published span collection has it.

    Raises:
        SaeError: as `load`.
    """
    return _load(path, dense=True)


def never(path: Path) -> str:  # noqa: ARG001
    """The dense reading is asked for by name only: nothing in a file calls for it."""
    return ""


def _load(path: Path, dense: bool) -> SAE:
    file = named_file(path, r".*\.pth")
    if file is None:
        raise SaeError(f"{path} is not one .pth file, nor a folder that holds just one; give the file.")
    tensors, config = _read(file)
    name = _NAME.fullmatch(file.name)
    provenance: dict[str, Any] = {"format": "fac-dense" if dense else "fac", "recognised_by": sniff(path)}
    provenance["decoder"] = "tied to the encoder"
    edited = int((tensors["mask"] != 1).sum())
    if edited:
        provenance["mask"] = f"not applied, as without editing: {edited} features of it differ from 1"
    activation = Activation("relu") if dense else _activation(config, name, provenance)
    with naming(file):
        weights = SaeWeights(
            W_enc=tensors["W_enc"],
            b_enc=tensors["b_enc"],
            W_dec=None,
            b_dec=tensors["b_dec"],
            activation=activation,
            provenance=provenance,
        )
    return SAE(weights, _metadata(file, name, provenance))


def _read(file: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    found = read_torch(file)
    config = found.get("config") if isinstance(found, Mapping) else None
    if not isinstance(config, Mapping):
        raise SaeError(f"{file} does not hold weight and config; it is no FAC-Synthesis checkpoint.")
    tensors = float_tensors(found.get("weight"), file)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    d_in, d_sae = matrix_shape(shapes, "W_enc", file)
    if (config.get("d_inp"), config.get("d_hide")) != (d_in, d_sae):
        raise SaeError(f"In {file}, W_enc has shape {(d_in, d_sae)}, but its config says otherwise; fetch it again.")
    require(shapes, {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "b_dec": (d_in,), "mask": (d_sae,)}, file)
    return tensors, config


def _activation(config: Mapping[str, Any], name: re.Match[str] | None, provenance: dict[str, Any]) -> Activation:
    k = config.get("topK")
    if k is None and name and name[1].lower().startswith("topk"):
        k = _CLASS_K
        provenance["k"] = f"{k}: the default of the class that the file name gives; the file states none"
    return Activation("relu") if k is None else Activation("topk", k=whole_number(k))


def _metadata(file: Path, name: re.Match[str] | None, provenance: dict[str, Any]) -> dict[str, Any]:
    hook = model = None
    if name:
        hook = hook_name_of(int(name[2]))
        provenance["layer"] = f"hidden state {int(name[2])}, from the file name"
    if repo := last_match(r"sae_(llama|mistral)_l\d+_h\d+", file):
        model = _MODELS[repo[1].lower()]
        provenance["model_name"] = f"from the folder {repo[0]}"
    return metadata_of(hook, model_name=model)
