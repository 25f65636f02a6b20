"""The language model to look inside: found, loaded, and documents rendered for it. Knows nothing of SAEs or tables."""

from __future__ import annotations

from facviz.backbone.model import Backbone, load_backbone, load_tokenizer
from facviz.backbone.rendering import Renderer

__all__ = ["Backbone", "Renderer", "load_backbone", "load_tokenizer"]
