"""sparsify folders (EleutherAI, also from before 1.3): `cfg.json` + `sae.safetensors` per hook point.

A hook point is a folder (`layers.10`, `layers.5.mlp`, `embed_tokens`, or `layers.10/seed1`); a parent with exactly one
may be given instead. Transcoders and skip connections are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from facviz.errors import SaeError
from facviz.sae.formats import reading
from facviz.sae.formats.folding import assemble, whole_number
from facviz.sae.model import SAE
from facviz.sae.weights import Activation

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae.safetensors"
_ACTIVATIONS: dict[str, Literal["topk", "groupmax"]] = {"topk": "topk", "groupmax": "groupmax"}
_REFUSED = {
    "transcode": "is a transcoder",
    "skip_connection": "has a skip connection",
    "signed": "keeps negative activations",
}


def sniff(path: Path) -> str:
    """Such a folder, one of its two files, or a parent of such folders; empty for anything else."""
    try:
        folder = _folder(path)
        if _is_hook_point(folder):
            return f"{CONFIG_FILE} beside {WEIGHTS_FILE}"
        return f"folders with {CONFIG_FILE} beside {WEIGHTS_FILE}" if _hook_points(folder) else ""
    except OSError:
        return ""


def load(path: Path) -> SAE:
    """Read one hook point, as float32; `metadata["layer"]` is set where its folder name tells it.

    Raises:
        SaeError: a file is missing or damaged, several hook points are there, or it is no plain SAE.
    """
    folder = _one_hook_point(_folder(path))
    cfg = reading.read_json(folder / CONFIG_FILE)
    _refuse_unsupported(cfg, folder)
    d_in, d_sae = _sizes(cfg, folder)
    weights = folder / WEIGHTS_FILE
    expected = {"encoder.weight": (d_sae, d_in), "encoder.bias": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    reading.require(reading.safetensors_shapes(weights), expected, weights)
    stored = reading.float_tensors(reading.read_safetensors(weights), weights)
    # Their encoder applies ReLU before it selects, ours after: an entry at or below zero is worth nothing either way,
    # whichever of several zeros the selection takes.
    kind = _ACTIVATIONS[cfg.get("activation", "topk")]
    tensors = {"W_enc": stored["encoder.weight"].T, "b_enc": stored["encoder.bias"]}
    tensors |= {"W_dec": stored["W_dec"], "b_dec": stored["b_dec"]}
    provenance = {"format": "sparsify", "recognised_by": sniff(path), "notes": _notes(cfg)}
    activation = Activation(kind, _k(cfg, folder))
    return SAE(assemble(tensors, activation, weights, provenance=provenance), _metadata(folder))


def layer_of(hook_name: str) -> int | None:
    """Hidden-state index of a block's output or of the embedding; None for any other hook point."""
    if hook_name in ("embed_tokens", "embed_in", "wte"):
        return 0
    match = re.fullmatch(r"(?:\w+\.)*(?:layers|h)\.(\d{1,4})", hook_name)
    return int(match[1]) + 1 if match else None


def _folder(path: Path) -> Path:
    return path.parent if path.name in (CONFIG_FILE, WEIGHTS_FILE) else path


def _is_hook_point(folder: Path) -> bool:
    return (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file()


def _hook_points(root: Path) -> list[Path]:
    found = [*root.glob(f"*/{WEIGHTS_FILE}"), *root.glob(f"*/seed*/{WEIGHTS_FILE}")]
    return sorted(file.parent for file in found if _is_hook_point(file.parent))


def _one_hook_point(folder: Path) -> Path:
    if _is_hook_point(folder):
        return folder
    found = _hook_points(folder)
    if len(found) > 1:
        names = [str(each.relative_to(folder)) for each in found]
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        raise SaeError(f"{folder} holds {len(names)} SAEs; give the folder of one: {shown}.")
    if not found:
        raise SaeError(f"{folder} does not hold {CONFIG_FILE} and {WEIGHTS_FILE}; give the folder that holds both.")
    return found[0]


def _refuse_unsupported(cfg: Mapping[str, Any], folder: Path) -> None:
    for key, what in _REFUSED.items():
        if cfg.get(key):
            raise SaeError(f"{folder} {what}, which facviz cannot express; use a plain SAE.")
    if cfg.get("activation", "topk") not in tuple(_ACTIVATIONS):
        raise SaeError(f"{folder} uses the activation {str(cfg['activation'])[:40]!r}; facviz reads topk and groupmax.")


def _sizes(cfg: Mapping[str, Any], folder: Path) -> tuple[int, int]:
    d_in = whole_number(cfg.get("d_in"))
    if not d_in:
        raise SaeError(f"{folder / CONFIG_FILE} does not state d_in as a positive whole number; it is no sparsify SAE.")
    d_sae = whole_number(cfg.get("num_latents")) or d_in * whole_number(cfg.get("expansion_factor"))
    if not d_sae:
        raise SaeError(f"{folder / CONFIG_FILE} states neither num_latents nor expansion_factor; fetch it again.")
    return d_in, d_sae


def _k(cfg: Mapping[str, Any], folder: Path) -> int:
    k = whole_number(cfg.get("k"))
    if not k:
        raise SaeError(f"{folder / CONFIG_FILE} does not state k as a positive whole number; fetch it again.")
    return k


def _notes(cfg: Mapping[str, Any]) -> list[str]:
    notes = [] if cfg.get("num_latents") else ["the number of features is d_in × expansion_factor"]
    return notes if "activation" in cfg else [*notes, "no activation is stated, so it is top-k as in older versions"]


def _metadata(folder: Path) -> dict[str, Any]:
    hook_point = folder.parent if re.fullmatch(r"seed\d+", folder.name) else folder
    metadata: dict[str, Any] = {"hook_name": hook_point.name}
    layer = layer_of(hook_point.name)
    if layer is not None:
        metadata["layer"] = layer
    try:
        run = reading.read_json(hook_point.parent / "config.json")
    except SaeError:
        return metadata  # the run's configuration is optional, and the folder above may be anything
    if isinstance(run.get("model"), str):
        metadata["model_name"] = run["model"]
    if context_size := whole_number(run.get("ctx_len")):
        metadata["context_size"] = context_size
    return metadata
