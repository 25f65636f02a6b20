"""Sites of a language model that an SAE can read: their names in both notations, and the modules that hold them.

Hook names are SAELens' and TransformerLens' (`blocks.3.hook_mlp_out`); module names are Hugging Face's
(`model.layers.3.mlp`), which sparsify writes without the first part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from facviz.errors import BackboneError

if TYPE_CHECKING:
    from facviz.backbone.model import Backbone

SiteKind = Literal["resid", "mlp", "attn"]

_HOOKS: dict[str, tuple[SiteKind, int]] = {  # what is read, and hidden-state index minus block number
    "resid_pre": ("resid", 0),
    "resid_post": ("resid", 1),
    "mlp_out": ("mlp", 1),
    "attn_out": ("attn", 1),
}
_PARTS: dict[str | None, SiteKind] = {
    None: "resid",
    "mlp": "mlp",
    "post_feedforward_layernorm": "mlp",
    "self_attn": "attn",
    "attn": "attn",
    "attention": "attn",
    "post_attention_layernorm": "attn",
}
_EMBEDDINGS = ("embed_tokens", "model.embed_tokens")
_HOOK = re.compile(r"blocks\.([0-9]{1,4})\.hook_(\w+)")
_MODULE = re.compile(r"(?:(?:model\.|gpt_neox\.)?layers|(?:transformer\.)?h)\.([0-9]{1,4})(?:\.(\w+))?")


@dataclass(frozen=True, slots=True)
class Family:
    """Where the models of one build keep their decoder layers and final norm, and a layer its attention."""

    layers: str
    norm: str
    attention: str


FAMILIES = (
    Family("model.layers", "model.norm", "self_attn"),  # Llama, Qwen, Mistral, Gemma
    Family("transformer.h", "transformer.ln_f", "attn"),  # GPT-2
    Family("gpt_neox.layers", "gpt_neox.final_layer_norm", "attention"),
)


@dataclass(frozen=True, slots=True)
class Site:
    """Hidden state `layer`, or what the MLP or attention of `layers[layer − 1]` adds to make it.

    Raises:
        BackboneError: there is no such kind, or an MLP or attention is asked for at hidden state 0, which none made.
    """

    kind: SiteKind
    layer: int

    def __post_init__(self) -> None:
        if self.kind not in get_args(SiteKind):
            raise BackboneError(f"There is no site {self.kind!r}; choose one of {', '.join(get_args(SiteKind))}.")
        if self.layer < (0 if self.kind == "resid" else 1):
            raise BackboneError(f"Layer {self.layer} has no {self.kind} output; choose a layer of at least 1.")


def hook_name(site: Site) -> str:
    """SAELens' name of a site: `blocks.{L-1}.hook_resid_post`, or `blocks.0.hook_resid_pre` for hidden state 0."""
    if site.layer == 0:
        return "blocks.0.hook_resid_pre"
    return f"blocks.{site.layer - 1}.hook_{'resid_post' if site.kind == 'resid' else f'{site.kind}_out'}"


def site_of(name: str, backbone: Backbone | None = None) -> Site | None:
    """The site of a hook or module name; None for a place that facviz does not read.

    With `backbone`, an MLP's or attention's module name must be that of the very module read there: Gemma 2's `mlp`
    is not, nor Llama's `post_attention_layernorm`.
    """
    if name in _EMBEDDINGS:
        return Site("resid", 0)
    if hook := _HOOK.fullmatch(name):
        kind, step = _HOOKS.get(hook[2], (None, 0))
        return Site(kind, int(hook[1]) + step) if kind else None
    module = _MODULE.fullmatch(name)
    found = _PARTS.get(module[2]) if module else None
    if not module or not found:
        return None
    site = Site(found, int(module[1]) + 1)
    if backbone is None or site.kind == "resid" or site.layer > backbone.n_layers:
        return site
    return site if f".{module_name(site, backbone)}".endswith(f".{name}") else None


def module_name(site: Site, backbone: Backbone) -> str:
    """Path below `backbone.model` of the module whose output is `site` (for hidden state 0: whose first input).

    Raises:
        BackboneError: the model has no such layer, or its layer has no such module.
    """
    family = backbone.family
    if site.layer > backbone.n_layers:
        raise BackboneError(f"Layer {site.layer} does not exist in this model; choose 0 to {backbone.n_layers}.")
    if site == Site("resid", backbone.n_layers):
        return family.norm
    path = f"{family.layers}.{max(site.layer - 1, 0)}"
    if site.kind == "resid":
        return path
    block = backbone.model.get_submodule(path)
    # Gemma 2 and 3 norm both outputs once more before adding them. TransformerLens hooks what is added, so SAEs
    # trained at its hooks have read these norms and not the modules before them.
    if hasattr(block, "post_feedforward_layernorm"):
        part = {"mlp": "post_feedforward_layernorm", "attn": "post_attention_layernorm"}[site.kind]
    else:
        part = {"mlp": "mlp", "attn": family.attention}[site.kind]
    if not hasattr(block, part):
        raise BackboneError(
            f"{path} of {backbone.name or 'this model'} has no module `{part}`; read its residual stream instead."
        )
    return f"{path}.{part}"
