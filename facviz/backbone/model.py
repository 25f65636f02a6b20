"""The loaded backbone: model, tokenizer, and the one site in it that model activations are read at.

torch and transformers are imported inside functions, so that rendering needs neither.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from facviz.backbone.locate import identity_of, locate
from facviz.backbone.quiet import one_line, quiet
from facviz.backbone.sites import FAMILIES, Family, Site, SiteKind, hook_name, module_name
from facviz.config import BackboneConfig
from facviz.errors import BackboneError

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle

HookKind = Literal["output", "input"]


class Backbone:
    """A causal language model read at hidden-state index `layer` (0 the embeddings; None takes half depth).

    `site` chooses that hidden state itself, or what the MLP or attention of `layers[layer - 1]` adds to make it.
    `identity` names its weights, config and tokenizer; empty for a model that came from no folder.

    Raises:
        BackboneError: the decoder layers or the site are not found, or `layer` lies outside 0..n_layers (from 1 for
            an MLP or attention).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        layer: int | None = None,
        name: str = "",
        identity: str = "",
        site: SiteKind = "resid",
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.identity = identity
        self.site: SiteKind = site
        first = 0 if site == "resid" else 1
        self.layer = max(self.n_layers // 2, first) if layer is None else layer
        if not first <= self.layer <= self.n_layers:
            where = f"{name or 'this model'}{'' if site == 'resid' else f' at site {site}'}"
            raise BackboneError(f"Layer {layer} does not exist in {where}; choose {first} to {self.n_layers}.")
        self.hook_point()

    def at(self, layer: int, site: SiteKind | None = None) -> Backbone:
        """The same model read at another layer, and site unless None."""
        return Backbone(self.model, self.tokenizer, layer, self.name, self.identity, site or self.site)

    @property
    def n_layers(self) -> int:
        """Number of decoder layers; the last hidden-state index."""
        layers: Any = self.model.get_submodule(self.family.layers)
        return len(layers)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.unembedding.shape[1])

    @property
    def place(self) -> Site:
        """Kind and layer of what is read."""
        return Site(self.site, self.layer)

    @property
    def hook_name(self) -> str:
        """The place in SAELens' words, such as `blocks.{L-1}.hook_resid_post`."""
        return hook_name(self.place)

    def hook_point(self) -> tuple[torch.nn.Module, HookKind]:
        """Module whose output, or first input, is read: `hidden_states[layer]`, or what an MLP or attention adds.

        L = 0 is read where it enters the first layer, after position embeddings and scaling; L = n_layers is, as in
        `output_hidden_states=True`, what leaves the final norm.
        """
        return self.model.get_submodule(module_name(self.place, self)), "output" if self.layer else "input"

    @property
    def layer_module(self) -> torch.nn.Module:
        """Module of `hook_point`; what is read is its output, its input for L = 0."""
        return self.hook_point()[0]

    def on_model_acts(self, callback: Callable[[torch.Tensor], None]) -> RemovableHandle:
        """Call back with what is read, [batch, position, d_model], of each forward until `handle.remove()`."""
        module, kind = self.hook_point()

        def on_input(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            callback(args[0] if args else kwargs["hidden_states"])

        def on_output(_: object, __: object, output: Any) -> None:
            callback(output[0] if isinstance(output, tuple) else output)  # attention, and v4 decoder layers

        if kind == "input":
            return module.register_forward_pre_hook(on_input, with_kwargs=True)
        return module.register_forward_hook(on_output)

    def change_model_acts(self, change: Callable[[torch.Tensor], torch.Tensor]) -> RemovableHandle:
        """Let each forward go on from `change(what is read)` instead, until `handle.remove()`."""
        module, kind = self.hook_point()

        def on_input(
            _: object, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if args:
                return (change(args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

        def on_output(_: object, __: object, output: Any) -> Any:
            return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

        if kind == "input":
            return module.register_forward_pre_hook(on_input, with_kwargs=True)
        return module.register_forward_hook(on_output)

    @property
    def unembedding(self) -> torch.Tensor:
        """Output embedding matrix [vocab, d_model]."""
        head = self.model.get_output_embeddings()
        if head is None:
            raise BackboneError(f"{self.name or 'This model'} has no output embedding; choose a causal language model.")
        weight: torch.Tensor = head.weight
        return weight

    @property
    def final_norm_weight(self) -> torch.Tensor | None:
        """Scale the final norm applies to each direction, [d_model]; None for a norm without one."""
        import torch

        norm = self.model.get_submodule(self.family.norm)
        weight = getattr(norm, "weight", None)
        if weight is None or isinstance(norm, torch.nn.LayerNorm):
            return weight
        with torch.no_grad():  # an RMS norm of ones is its effective scale, also where the code applies 1 + weight
            scale: torch.Tensor = norm(torch.ones_like(weight))
        return scale

    def keeping(self, cache: object) -> dict[str, object]:
        """Arguments of a forward that reads and extends a cache, by the name that this transformers gives it."""
        parameters = inspect.signature(self.model.forward).parameters
        return {"cache" if "cache" in parameters else "past_key_values": cache, "use_cache": cache is not None}

    @cached_property
    def family(self) -> Family:
        """Where this model keeps its decoder layers and final norm."""
        for family in FAMILIES:
            if all(_attribute(self.model, path) is not None for path in (family.layers, family.norm)):
                return family
        raise BackboneError(
            f"The decoder layers of {type(self.model).__name__} are not where Llama, Qwen, Mistral, Gemma, GPT-2 or "
            "GPT-NeoX have them; choose a model of one of these families."
        )


def _attribute(root: Any, path: str) -> Any:
    for part in path.split("."):
        root = getattr(root, part, None)
    return root


def load_backbone(
    name: str = "default",
    layer: int | None = None,
    *,
    config: BackboneConfig | None = None,
    dtype: torch.dtype | None = None,
    site: SiteKind | None = None,
) -> Backbone:
    """Load a causal LM from a hub id, folder, GGUF file or `default`, without gradients, where `config.device` says.

    `config` fills what the arguments leave at their defaults; a dtype of None and `auto` loads as float32.

    Raises:
        BackboneError: it cannot be found, fetched, converted or read, or there is no such device.
    """
    import torch

    config = config or BackboneConfig()
    device = chosen_device(config.device)
    name = config.name if name == "default" else name
    folder = locate(name)
    if dtype is None:
        dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    tokenizer, model = _read_tokenizer(folder, name), _read_model(folder, name, dtype)
    layer = config.layer if layer is None else layer
    return Backbone(model.to(device), tokenizer, layer, name, identity_of(folder), site or config.site)


def chosen_device(name: str) -> torch.device:
    """The device that a config asks for: `auto` is a GPU where there is one, else the CPU.

    Raises:
        BackboneError: a GPU is asked for, and torch sees none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise BackboneError("torch sees no GPU here; set `device` to auto or cpu, or install a torch built for yours.")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def load_tokenizer(name: str = "default") -> Any:
    """The fast tokenizer alone; the weights of a hub model are not downloaded.

    Raises:
        BackboneError: it cannot be found, or knows no character offsets.
    """
    return _read_tokenizer(locate(name, with_weights=False), name)


def _read_tokenizer(folder: Path, name: str) -> Any:
    from transformers import AutoTokenizer

    loader: Any = AutoTokenizer
    try:
        with quiet():
            tokenizer = loader.from_pretrained(str(folder))
    except Exception as error:  # dozens of kinds, by file format
        raise BackboneError(
            f"The tokenizer of {name} cannot be loaded ({one_line(error)}); give a model with a tokenizer.json."
        ) from error
    if not tokenizer.is_fast:
        raise BackboneError(
            f"The tokenizer of {name} knows no character offsets; choose one with a fast tokenizer (tokenizer.json)."
        )
    return tokenizer


def _read_model(folder: Path, name: str, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    try:
        with quiet():
            model, report = loader.from_pretrained(
                str(folder), dtype=dtype, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # dozens of kinds, by architecture
        raise BackboneError(
            f"The model {name} cannot be loaded ({one_line(error)}); give a causal language model with safetensors."
        ) from error
    if report["missing_keys"]:  # transformers would run it with random numbers in their place
        raise BackboneError(
            f"The weights of {name} lack {len(report['missing_keys'])} tensors (e.g. {min(report['missing_keys'])}); "
            "download the model again, or choose a causal language model."
        )
    return model.eval().requires_grad_(False)
