"""What stages of one process share: the workspace, the backbone in two precisions, progress, and resumption."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from facviz.config import BackboneConfig, fingerprint
from facviz.errors import InputError
from facviz.protocols import ProgressSink
from facviz.records import Document, Message
from facviz.store.manifest import Scope
from facviz.store.reader import Reader
from facviz.store.workspace import Workspace

if TYPE_CHECKING:
    from facviz.activations import SaeEncoder
    from facviz.backbone import Backbone, Renderer, SiteKind
    from facviz.sae.model import SAE

CODE_VERSION = 1
"""Raised when a stage computes something else from the same inputs, so that old results are not taken for new ones."""


class Session:
    """One process at work on one workspace; models load on first use and are shared by all stages."""

    def __init__(self, workspace: Workspace, backbone: BackboneConfig, progress: ProgressSink) -> None:
        self.workspace = workspace
        self.backbone_config = backbone
        self.progress = progress

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone in float32, the precision of every verdict."""
        import torch

        from facviz.backbone import load_backbone

        self.progress.update("backbone", 0, None, self.backbone_config.name)
        config = self.backbone_config
        return load_backbone(config.name, config.layer, config=config, dtype=torch.float32)

    @cached_property
    def fast(self) -> Backbone:
        """The backbone for batched passes, in the dtype measured to be faster here, once per workspace."""
        import torch

        from facviz.activations import faster_dtype
        from facviz.backbone import load_backbone

        config = self.backbone_config
        chosen = config.dtype if config.dtype != "auto" else self.workspace.meta.get("dtype")
        if chosen == "float32":
            return self.backbone
        half = load_backbone(config.name, config.layer, config=config, dtype=torch.bfloat16)
        if chosen is None:
            dtype, ratio = faster_dtype(self.backbone, half)
            chosen = str(dtype).removeprefix("torch.")
            self.workspace.remember(dtype=chosen, bfloat16_speedup=round(ratio, 2))
        return half if chosen == "bfloat16" else self.backbone

    def move_to_layer(self, layer: int, site: SiteKind | None = None) -> None:
        """Read another layer, and site unless None, for instance those a loaded SAE was trained on."""
        site = site or self.backbone_config.site
        self.backbone_config = dataclasses.replace(self.backbone_config, layer=layer, site=site)
        for name in ("backbone", "fast"):
            if name in self.__dict__:
                self.__dict__[name] = self.__dict__[name].at(layer, site)

    @property
    def tokenizer(self) -> Any:
        """The backbone's tokenizer, without the weights when they are not loaded yet."""
        return self.backbone.tokenizer if "backbone" in self.__dict__ else self._tokenizer

    @cached_property
    def _tokenizer(self) -> Any:
        from facviz.backbone import load_tokenizer

        return load_tokenizer(self.backbone_config.name)

    def renderer(self, roles: tuple[str, ...]) -> Renderer:
        """Documents to token ids and content masks, counting these roles."""
        from facviz.backbone import Renderer

        config = self.backbone_config
        return Renderer(self.tokenizer, max_tokens=config.max_tokens, system_prompt=config.system_prompt, roles=roles)

    def encoder(self, sae: SAE, roles: tuple[str, ...]) -> SaeEncoder:
        """The Encoder of an SAE on this session's backbone."""
        from facviz.activations import SaeEncoder

        return SaeEncoder(self.backbone, sae, roles=roles, config=self.backbone_config, fast=self.fast)

    def encoding_fingerprint(self, layer: int | None = None) -> str:
        """Names everything that decides model activations: weights, layer, site, template use, cut and precision."""
        _ = self.fast
        layer = self.backbone.layer if layer is None else layer
        config = dataclasses.replace(self.backbone_config, name="", layer=layer, dtype="auto")
        return fingerprint(self.backbone.identity, config, self.workspace.meta.get("dtype"), self.backbone_config.dtype)

    def run_once(self, scope: Scope, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The stage's summary, from an earlier run when there is one; a repeated result becomes the latest again."""
        manifest = self.workspace.manifest
        summary = manifest.done(scope)
        if summary is None:
            summary = dict(work())
        elif manifest.is_latest(scope):
            return summary
        manifest.mark_done(scope, summary)
        return summary


def load_documents(reader: Reader, dataset_id: str) -> list[Document]:
    """The documents of a dataset in their numbered order."""
    return [
        Document(tuple(Message(m["role"], m["content"]) for m in row["messages"]), row["label"])
        for row in reader.rows("documents", dataset_id=dataset_id)
    ]


def sae_row(workspace: Workspace, sae_id: str | None) -> dict[str, Any]:
    """The row of this SAE, or of the newest when no id is given."""
    with workspace.reader() as reader:
        rows = reader.rows("saes")
    known = {row["sae_id"]: row for row in rows}
    if not known:
        raise InputError("This workspace has no SAE yet; run `facviz sae train` or `facviz sae load` first.")
    if sae_id is None:
        newest = list(workspace.manifest.latest_done("sae"))[-1]
        return known[newest]
    if sae_id not in known:
        raise InputError(f"There is no SAE {sae_id!r} in this workspace; known: {', '.join(known)}.")
    return known[sae_id]
