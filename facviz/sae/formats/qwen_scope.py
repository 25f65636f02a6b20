"""Qwen-Scope `layer{n}.sae.pt` files, whose k and width only the name of the repository tells.

The encoder sees the raw input. Published code keeps negative values among the top k; like every SAE here, a loaded one
counts them as inactive.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from facviz.errors import SaeError
from facviz.sae.formats.folding import assemble
from facviz.sae.formats.naming import last_match, matrix_shape, metadata_of, named_file
from facviz.sae.formats.reading import float_tensors, read_torch, require
from facviz.sae.model import SAE
from facviz.sae.weights import Activation

_FILE = r"layer(\d+)\.sae\.pt"


def sniff(path: Path) -> str:
    """What such a file, or the folder that holds just one, is recognised by; empty for anything else."""
    file = named_file(path, _FILE)
    return f"the file name {file.name}" if file else ""


def load(path: Path) -> SAE:
    """Read one layer's file.

    Raises:
        SaeError: it is missing or damaged, or no folder on its path tells k.
    """
    file = named_file(path, _FILE)
    if file is None:
        raise SaeError(f"{path} is not one layer<n>.sae.pt file, nor a folder that holds just one; give the file.")
    repo = last_match(r"SAE-Res-(.+)-W(\d+)K-L0_(\d+)", file)
    if repo is None:
        raise SaeError(
            f"{file} does not tell its k; put it into a folder named as its repository, SAE-Res-<model>-W<n>K-L0_<k>."
        )
    tensors = float_tensors(read_torch(file), file)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    d_sae, d_in = matrix_shape(shapes, "W_enc", file)
    require(shapes, {"W_enc": (d_sae, d_in), "W_dec": (d_in, d_sae), "b_enc": (d_sae,), "b_dec": (d_in,)}, file)
    if d_sae != 1024 * int(repo[2]):
        raise SaeError(f"{file} has {d_sae} features, but its folder says {repo[2]}K; put it into the right folder.")
    canonical = tensors | {"W_enc": tensors["W_enc"].T, "W_dec": tensors["W_dec"].T}
    activation = Activation("topk", k=int(repo[3]))
    weights = assemble(canonical, activation, file, pre_bias=False, provenance=_provenance(repo, file))
    layer = int(re.findall(r"\d+", file.name)[0])
    return SAE(weights, metadata_of(f"blocks.{layer}.hook_resid_post", model_name=f"Qwen/{repo[1]}"))


def _provenance(repo: re.Match[str], file: Path) -> dict[str, Any]:
    return {
        "format": "qwen_scope",
        "recognised_by": sniff(file),
        "k": f"{repo[3]}, from the folder {repo[0]}",
        "model_name": f"from the folder {repo[0]}",
        "layer": "from the file name, whose layer n is the output of block n",
        "negative_values": "inactive, also among the top k",
    }
