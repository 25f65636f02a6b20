"""The language model to look inside: found, loaded, and documents rendered for it. Knows nothing of SAEs or tables."""

from __future__ import annotations

from facviz.backbone.model import Backbone, load_backbone, load_tokenizer
from facviz.backbone.rendering import Renderer
from facviz.backbone.sites import Site, SiteKind, site_of

__all__ = ["Backbone", "Renderer", "Site", "SiteKind", "load_backbone", "load_tokenizer", "site_of"]
