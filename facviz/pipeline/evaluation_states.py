"""What an evaluation computes once and keeps: pooled states of documents, and the scores of every trained head.

Both lie under `evaluation/` of the workspace, named by what they follow from, so a killed run loses at most one part.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from facviz.config import fingerprint
from facviz.files import write_files
from facviz.pipeline.sae import open_sae
from facviz.pipeline.session import CODE_VERSION, Session
from facviz.records import Document, Floats

PART_DOCS = 256
"""Documents per file of states: the unit of resumption."""

Arrays = Mapping[str, npt.NDArray[Any]]


class StateReader:
    """Documents to the states a head reads, mean and last content token side by side, and their feature maxima."""

    def __init__(self, session: Session, sae_id: str, roles: tuple[str, ...]) -> None:
        self._session, self._sae_id, self._roles = session, sae_id, roles
        self._encoder: Any = None
        self.name = fingerprint("states", CODE_VERSION, session.encoding_fingerprint(), sae_id, roles)

    def read(self, documents: Sequence[Document], note: str) -> tuple[Floats, sparse.csr_matrix]:
        """[n_docs, 2 · d_in] and [n_docs, d_sae]; parts read before come from disk."""
        starts = range(0, len(documents), PART_DOCS)
        parts = []
        for start in starts:
            parts.append(self._part(documents[start : start + PART_DOCS]))
            done = min(start + PART_DOCS, len(documents))
            self._session.progress.update("read texts", done, len(documents), note)
        states = np.concatenate([np.concatenate([p["mean"], p["last"]], axis=1) for p in parts])
        maxima = [sparse.csr_matrix((p["act"], p["feature_id"], p["offsets"]), shape=tuple(p["shape"])) for p in parts]
        return states, sparse.vstack(maxima).tocsr()

    def _part(self, documents: Sequence[Document]) -> Arrays:
        name = fingerprint(self.name, [d.doc_id for d in documents])
        return kept(
            self._session.workspace.root / "evaluation" / "states" / f"{name}.npz", lambda: self._make(documents)
        )

    def _make(self, documents: Sequence[Document]) -> Arrays:
        if self._encoder is None:
            self._encoder = self._session.encoder(open_sae(self._session, self._sae_id), self._roles)
        states, encoded = self._encoder.pool(documents)
        csr = encoded.max_acts
        maxima = {"act": csr.data, "feature_id": csr.indices, "offsets": csr.indptr, "shape": np.array(csr.shape)}
        return {"mean": states.mean, "last": states.last, **maxima}


def kept(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """Arrays of a file, or made now and written whole; a damaged file is made again."""
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), path.open("rb") as raw:
        file = np.load(raw, allow_pickle=False)
        return {name: file[name] for name in file.files}
    arrays = make()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    write_files({path: write})
    return arrays
