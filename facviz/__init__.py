"""facviz: which features does a training set fail to teach a language model, and which samples would teach them.

The public names below are the whole front door; everything else is internal. They load on first use (PEP 562), so
that `import facviz` and `facviz --help` stay light.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "load_sae": "facviz.sae.formats",
    "SAE": "facviz.sae.model",
    "Codes": "facviz.sae.model",
    "load_backbone": "facviz.backbone",
    "Backbone": "facviz.backbone",
    "SaeEncoder": "facviz.activations",
    "Encoded": "facviz.records",
    "compute_fac": "facviz.coverage",
    "missing_features": "facviz.coverage",
    "missing_coverage": "facviz.coverage",
    "rarefaction": "facviz.coverage",
    "open_workspace": "facviz.store.workspace",
    "Workspace": "facviz.store.workspace",
    "FacvizError": "facviz.errors",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'facviz' has no public name {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
