"""Gemma Scope 1 (`params.npz`, described by its path alone) and 2 (`params.safetensors` beside `config.json`).

JumpReLU throughout, and the encoder sees the raw input: b_dec is only added after decoding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from facviz.errors import SaeError
from facviz.sae.formats.folding import assemble
from facviz.sae.formats.naming import last_match, matrix_shape, metadata_of
from facviz.sae.formats.reading import (
    float_tensors,
    read_json,
    read_npz,
    read_safetensors,
    require,
    safetensors_shapes,
)
from facviz.sae.formats.saelens import hook_name_of
from facviz.sae.model import SAE
from facviz.sae.weights import Activation

_FIRST, _SECOND, _CONFIG = "params.npz", "params.safetensors", "config.json"
_SIZES = {2304: "2b", 3584: "9b", 4608: "27b"}
_ATTENTION_WIDTHS = (2048, 4096)  # the concatenated heads of 2b and 9b
_SITES = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
_SECOND_SITES = {
    "output": "hook_resid_post",
    "post_feedforward_layernorm.output": "hook_mlp_out",
    "post_attention_layernorm.output": "hook_attn_out",
    "self_attn.o_proj.input": "attn.hook_z",
}
_CONTEXT_SIZE = 1024


def sniff(path: Path) -> str:
    """What such a file, or the folder that holds it, is recognised by; empty for anything else."""
    try:
        file = _params(path)
    except OSError:
        return ""
    if file is None:
        return ""
    return "an .npz archive" if file.suffix == ".npz" else f"{_SECOND} beside {_CONFIG}"


def load(path: Path) -> SAE:
    """Read one SAE of either generation; a transcoder is refused.

    Raises:
        SaeError: a file is missing or damaged, or it is no plain SAE.
    """
    file = _params(path)
    if file is None:
        raise SaeError(f"{path} has neither {_FIRST} nor {_SECOND} with {_CONFIG}; give the folder that holds them.")
    provenance = {"format": "gemma_scope", "recognised_by": sniff(path)}
    return _load_first(file, provenance) if file.suffix == ".npz" else _load_second(file, provenance)


def _params(path: Path) -> Path | None:
    if path.suffix == ".npz" and path.is_file():
        return path
    folder = path.parent if path.name in (_SECOND, _CONFIG) else path
    if (folder / _FIRST).is_file():
        return folder / _FIRST
    return folder / _SECOND if (folder / _SECOND).is_file() and (folder / _CONFIG).is_file() else None


def _load_first(file: Path, provenance: dict[str, Any]) -> SAE:
    if last_match("transcoder", file):
        raise SaeError(f"{file} is a transcoder by its path, which writes elsewhere than it reads; use an SAE.")
    tensors = {name.lower(): tensor for name, tensor in float_tensors(read_npz(file), file).items()}
    _check(_shapes(tensors), file)
    provenance["generation"] = 1
    if "embedding" in file.parts:
        width = math.sqrt(tensors["w_enc"].shape[0])
        tensors |= {"w_enc": tensors["w_enc"] / width, "w_dec": tensors["w_dec"] * width}
        provenance["scale"] = "an embedding SAE by its path: W_enc divided and W_dec multiplied by √d_in"
    metadata = _first_metadata(file, len(tensors["w_enc"]), provenance)
    return _sae(tensors, metadata, provenance, file)


def _first_metadata(file: Path, d_in: int, provenance: dict[str, Any]) -> dict[str, Any]:
    """Model, hook and layer from the repository's name and the folders, else from the width."""
    repo = last_match(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att)", file)
    model = None
    if repo:
        model = f"google/gemma-2-{repo[1].lower()}" + ("-it" if repo[2].lower() == "it" else "")
        provenance["model_name"] = f"from the path ({repo[0]})"
    elif d_in in _SIZES:
        model = f"google/gemma-2-{_SIZES[d_in]}"
        provenance["model_name"] = f"from d_in = {d_in}; the path names no repository"
    hook = _first_hook(file, d_in, repo[3].lower() if repo else None, provenance)
    provenance["context_size"] = "as published for all of Gemma Scope"
    return metadata_of(hook, model_name=model, context_size=_CONTEXT_SIZE, prepend_bos=True)


def _first_hook(file: Path, d_in: int, site: str | None, provenance: dict[str, Any]) -> str | None:
    if "embedding" in file.parts:
        provenance["layer"] = "0: an embedding SAE by its path"
        return hook_name_of(0)
    layer = last_match(r"^layer_(\d+)$", file)
    if layer is None:
        return None
    if site is None:
        site = "att" if d_in in _ATTENTION_WIDTHS else "res"
        provenance["hook_name"] = f"taken for {_SITES[site]} by its width; the path names no repository"
    provenance["layer"] = f"from the folder {layer[0]}"
    return f"blocks.{int(layer[1])}.{_SITES[site]}"


def _load_second(file: Path, provenance: dict[str, Any]) -> SAE:
    config = read_json(file.parent / _CONFIG)
    shapes = {name.lower(): shape for name, shape in safetensors_shapes(file).items()}
    _refuse(config, shapes, file)
    _check(shapes, file)
    tensors = {name.lower(): tensor for name, tensor in float_tensors(read_safetensors(file), file).items()}
    provenance |= {"generation": 2, "context_size": "as published for all of Gemma Scope"}
    hook = str(config.get("hf_hook_point_in", ""))
    model = config.get("model_name")
    metadata = metadata_of(
        _second_hook(hook),
        model_name=str(model) if model else None,
        hf_hook_name=hook or None,
        context_size=_CONTEXT_SIZE,
        prepend_bos=True,
    )
    return _sae(tensors, metadata, provenance, file)


def _refuse(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], file: Path) -> None:
    """What is not a plain JumpReLU SAE."""
    if config.get("architecture") != "jump_relu":
        raise SaeError(f"{file} has the architecture {config.get('architecture')!r}; facviz reads jump_relu.")
    if config.get("affine_connection") or "affine_skip_connection" in shapes:
        raise SaeError(f"{file} has an affine skip connection, which facviz cannot express; use an SAE without.")
    source = config.get("hf_hook_point_in")
    if config.get("type", "sae") != "sae" or config.get("hf_hook_point_out", source) != source:
        raise SaeError(f"{file} is a transcoder, which writes elsewhere than it reads; use an SAE.")
    d_in, d_sae = matrix_shape(shapes, "w_enc", file)
    if shapes.get("w_dec", (d_sae, d_in)) != (d_sae, d_in):
        raise SaeError(f"{file} is a transcoder: w_dec has shape {shapes['w_dec']}, not {(d_sae, d_in)}; use an SAE.")


def _second_hook(name: str) -> str | None:
    """SAELens' words for a module name such as `model.layers.12.output`; None where there are none."""
    match = re.search(r"(?:^|\.)layers\.(\d+)\.([\w.]+)$", name)
    site = _SECOND_SITES.get(match[2]) if match else None
    return f"blocks.{int(match[1])}.{site}" if match and site else None


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check(shapes: Mapping[str, tuple[int, ...]], file: Path) -> None:
    d_in, d_sae = matrix_shape(shapes, "w_enc", file)
    expected = {"w_enc": (d_in, d_sae), "w_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    require(shapes, expected | {"threshold": (d_sae,)}, file)


def _sae(tensors: Mapping[str, Tensor], metadata: dict[str, Any], provenance: Mapping[str, Any], file: Path) -> SAE:
    canonical = {name.replace("w_", "W_"): tensor for name, tensor in tensors.items()}
    activation = Activation("jumprelu", threshold=tensors["threshold"])
    return SAE(assemble(canonical, activation, file, pre_bias=False, provenance=provenance), metadata)
