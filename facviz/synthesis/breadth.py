"""How many features a sample lights up beside its target, against texts of the corpus that are about as long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from facviz.records import Candidate, Encoded, Floats, Ints
from facviz.synthesis.plan import FeatureBrief

BREADTH_PERCENTILE = 99.0
"""One honest text in a hundred of its length is broader."""
LENGTH_FACTOR = 1.25
"""Documents count as similar in length within this factor; a longer text fires more features."""
MIN_SIMILAR = 100
"""Where fewer are similar, so many of the nearest in length are compared with."""
TOO_BROAD = "fires too broadly"


class BreadthGate:
    """The anchor set's features above their δ by document, and where its documents point.

    A text that fires far more features than the corpus does fires its target along with everything else, and teaches it
    no better than a heap of words.
    """

    def __init__(self, anchor: Any, n_tokens: Ints, act_threshold: Floats) -> None:
        matrix = sparse.csr_matrix(anchor)
        has_tokens = np.asarray(n_tokens) > 0
        self._act_threshold = np.asarray(act_threshold)
        self._counts = np.asarray(self._active(matrix))[has_tokens]
        self._lengths = np.log(np.asarray(n_tokens)[has_tokens])
        norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
        self._directions = sparse.diags(1 / np.where(norms > 0, norms, 1)) @ matrix

    def check(
        self,
        brief: FeatureBrief,  # noqa: ARG002 - breadth is the same for every target
        candidate: Candidate,  # noqa: ARG002
        shown: Sequence[str],  # noqa: ARG002
        alone: Encoded,
    ) -> tuple[dict[str, Any], str | None]:
        """`n_features` above δ beside `n_features_limit`, and `anchor_cosine` to the nearest document of the anchor."""
        n_features = int(self._active(alone.max_acts)[0])
        limit = self.limit(int(alone.n_content_tokens[0]))
        measures = {"n_features": n_features, "n_features_limit": limit, "anchor_cosine": self._cosine(alone.max_acts)}
        return measures, TOO_BROAD if limit is not None and n_features > limit else None

    def accept(self, text: str) -> None:
        """What was accepted before does not matter here."""

    def limit(self, n_tokens: int) -> int | None:
        """Most features that a text of so many content tokens may fire; None where the anchor set shows too little."""
        if len(self._counts) < MIN_SIMILAR // 4 or n_tokens < 1:
            return None
        apart = np.abs(self._lengths - np.log(n_tokens))
        within = apart <= np.log(LENGTH_FACTOR)
        if within.sum() < MIN_SIMILAR:
            within = np.argsort(apart, kind="stable")[:MIN_SIMILAR]
        return int(np.ceil(np.percentile(self._counts[within], BREADTH_PERCENTILE)))

    def calibration(self) -> dict[str, Any]:
        """What the limits rest on, for the record."""
        lengths = np.exp(self._lengths)
        at = sorted({round(n) for n in np.percentile(lengths, (10, 50, 90))}) if len(lengths) else []
        return {"n_documents": len(self._counts), "limits": {str(n): self.limit(n) for n in at}}

    def _active(self, matrix: Any) -> Any:
        """Features above their δ of each row."""
        rows = sparse.csr_matrix(matrix)
        above = (rows.data > 0) & (rows.data > self._act_threshold[rows.indices])
        return np.diff(np.concatenate([[0], np.cumsum(above)])[rows.indptr])

    def _cosine(self, acts: Any) -> float | None:
        row = sparse.csr_matrix(acts)
        norm = float(np.sqrt(row.multiply(row).sum()))
        if not norm or not self._directions.shape[0]:
            return None
        return round(float((self._directions @ row.T).max()) / norm, 4)
