"""The activations all libraries train on: captured once, shuffled once, kept as plain `.npy`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facviz.activations import ALL_ROLES, content_activations, faster_dtype, is_held_out
from facviz.backbone import Backbone, Renderer, load_backbone
from facviz.config import DatasetConfig, fingerprint
from facviz.corpus import CorpusReader, hash_source
from facviz.errors import InputError
from facviz.files import write_files
from facviz.records import Document

LAYER = 15
HELDOUT_TOKENS = 16_384
_DEFAULT_CORPUS = Path("general_instructions", "conversations.jsonl.gz")
_CHUNK_DOCUMENTS = 128
_MAX_TOKENS = 512
_BATCH_TOKENS = 8192
_MANIFEST = "manifest.json"


def corpus_path(given: Path | None) -> Path:
    """The corpus asked for, or the instructions under FACVIZ_DATA.

    Raises:
        InputError: neither is given, or nothing is there.
    """
    base = os.environ.get("FACVIZ_DATA")
    if given is None and not base:
        raise InputError("No corpus to capture activations from; give --corpus FILE or set FACVIZ_DATA.")
    path = given or Path(base or "") / _DEFAULT_CORPUS
    if not path.exists():
        raise InputError(f"There is no corpus at {path}; give --corpus FILE or set FACVIZ_DATA.")
    return path


def captured(corpus: Path, root: Path, n_tokens: int) -> Path:
    """Folder with `train.npy` [n_tokens, d] and `heldout.npy` [16,384, d], float32; captured if it is not there."""
    folder = root / fingerprint("peers", hash_source(corpus), LAYER, n_tokens, HELDOUT_TOKENS)[:12]
    if (folder / _MANIFEST).is_file():
        return folder
    documents = sorted(CorpusReader(DatasetConfig("peers", str(corpus))), key=lambda d: d.doc_id)
    backbone = _fast_backbone()
    train = first_tokens(backbone, [d for d in documents if not is_held_out(d.doc_id)], n_tokens)
    heldout = first_tokens(backbone, [d for d in documents if is_held_out(d.doc_id)], HELDOUT_TOKENS)
    order = torch.randperm(n_tokens, generator=torch.Generator().manual_seed(0))
    manifest = {
        "corpus": corpus.name,
        "layer": LAYER,
        "dtype": str(next(backbone.model.parameters()).dtype).removeprefix("torch."),
        "train_tokens": n_tokens,
        "heldout_tokens": HELDOUT_TOKENS,
    }
    write_files({folder / "train.npy": lambda p: _save(p, train[order])})
    write_files({folder / "heldout.npy": lambda p: _save(p, heldout)})
    write_files({folder / _MANIFEST: lambda p: p.write_text(json.dumps(manifest) + "\n", encoding="utf-8")})
    return folder


def first_tokens(backbone: Backbone, documents: Sequence[Document], n_tokens: int) -> Tensor:
    """[n_tokens, d] float32: the content tokens of these documents in their order, cut there.

    Raises:
        InputError: they have fewer.
    """
    renderer = Renderer(backbone.tokenizer, max_tokens=_MAX_TOKENS, roles=ALL_ROLES)
    parts: list[Tensor] = []
    n_found = 0
    for start in range(0, len(documents), _CHUNK_DOCUMENTS):
        chunk = renderer.render_many(list(enumerate(documents[start : start + _CHUNK_DOCUMENTS], start)))
        found = [batch.acts.float() for batch in content_activations(backbone, chunk, _BATCH_TOKENS)]
        parts += found
        n_found += sum(len(part) for part in found)
        if n_found >= n_tokens:
            return torch.cat(parts)[:n_tokens]
    raise InputError(f"The corpus has {n_found} content tokens in one half, {n_tokens} are needed; give a larger one.")


def _fast_backbone() -> Backbone:
    slow = load_backbone("default", LAYER, dtype=torch.float32)
    fast = load_backbone("default", LAYER, dtype=torch.bfloat16)
    return fast if faster_dtype(slow, fast)[0] == torch.bfloat16 else slow


def _save(path: Path, rows: Tensor) -> None:
    with path.open("wb") as file:  # np.save appends .npy to a name that lacks it
        np.save(file, rows.numpy())
