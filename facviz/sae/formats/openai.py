"""OpenAI's sparse_autoencoder `.pt` state dicts: TopK ones normalise every token, ReLU ones take it as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from facviz.errors import SaeError
from facviz.sae.formats.folding import assemble, whole_number
from facviz.sae.formats.naming import matrix_shape, metadata_of, named_file
from facviz.sae.formats.reading import float_tensors, read_torch, require, torch_names
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, LayerNorm

_STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
_PUBLISHED = re.compile(
    r"/(resid_delta_attn|resid_delta_mlp|resid_post_attn|resid_post_mlp|mlp_post_act)(?:_v\w+)?/autoencoders/(\d+)\.pt$"
)
_SITES = {
    "resid_delta_attn": "hook_attn_out",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_post_attn": "hook_resid_mid",
    "resid_post_mlp": "hook_resid_post",
    "mlp_post_act": "mlp.hook_post",
}


def sniff(path: Path) -> str:
    """What such a file, or the folder that holds just one, is recognised by; empty for anything else."""
    file = named_file(path, r".*\.pt")
    known = file is not None and {"pre_bias", "latent_bias", "encoder.weight"} <= torch_names(file)
    return "a .pt file with pre_bias and latent_bias" if known else ""


def load(path: Path) -> SAE:
    """Read one file; model and hook are known only under the published folders' names.

    Raises:
        SaeError: it is missing or damaged, its decoder is tied, or its activation is another.
    """
    file = named_file(path, r".*\.pt")
    if file is None:
        raise SaeError(f"{path} is not one .pt file, nor a folder that holds just one; give the file.")
    stored = read_torch(file)
    if not isinstance(stored, Mapping):
        raise SaeError(f"{file} does not hold a table of tensors; it is no checkpoint of this format.")
    tensors = _tensors(stored, file)
    provenance: dict[str, Any] = {"format": "openai", "recognised_by": sniff(path)}
    activation = _activation(stored, file, provenance)
    canonical = {"W_enc": tensors["encoder.weight"].T, "b_enc": tensors["latent_bias"]}
    canonical |= {"W_dec": tensors["decoder.weight"].T, "b_dec": tensors["pre_bias"]}
    input_norm = LayerNorm(eps=1e-5, unbiased=True) if activation.kind == "topk" else None
    weights = assemble(canonical, activation, file, input_norm=input_norm, provenance=provenance)
    return SAE(weights, _metadata(file, provenance))


def _tensors(stored: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    tensors = float_tensors({k: v for k, v in stored.items() if not str(k).startswith("activation")}, file)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    d_sae, d_in = matrix_shape(shapes, "encoder.weight", file)
    expected = {"encoder.weight": (d_sae, d_in), "decoder.weight": (d_in, d_sae)}
    require(shapes, expected | {"latent_bias": (d_sae,), "pre_bias": (d_in,)}, file, _STATISTICS)
    return tensors


def _activation(stored: Mapping[str, Any], file: Path, provenance: dict[str, Any]) -> Activation:
    """The public code ties normalisation to the class of the activation, which the file names."""
    kind = stored.get("activation", "ReLU")
    if kind == "ReLU":
        provenance["input_norm"] = "none: the activation is ReLU"
        if "activation" not in stored:
            provenance["activation"] = "ReLU, the public code's default; the file names none"
        return Activation("relu")
    state = stored.get("activation_state_dict")
    if kind != "TopK" or not isinstance(state, Mapping):
        raise SaeError(f"{file} has the activation {str(kind)[:40]!r}; facviz reads TopK and ReLU from OpenAI files.")
    if state.get("postact_fn") != "ReLU":
        raise SaeError(f"{file} keeps negative activations after its top k, which facviz cannot express; use another.")
    provenance["input_norm"] = "layer norm of every token: the activation is TopK"
    return Activation("topk", k=whole_number(state.get("k")))


def _metadata(file: Path, provenance: dict[str, Any]) -> dict[str, Any]:
    match = _PUBLISHED.search(file.as_posix())
    if match is None:
        return {}
    model = "gpt2" if "gpt2-small" in file.parts else None
    provenance["hook_name"] = f"from the path ({match[0].strip('/')})"
    return metadata_of(f"blocks.{int(match[2])}.{_SITES[match[1]]}", model_name=model)
