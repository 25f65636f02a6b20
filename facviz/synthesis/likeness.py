"""Samples that say what a known text says in other words: nearest texts by embedding, where an embedder is at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from facviz.protocols import Embedder
from facviz.records import Candidate, Encoded
from facviz.synthesis.gates import overlaps
from facviz.synthesis.plan import FeatureBrief

NEAR_COSINE = 0.95
"""From here on two short texts ask or say the same.

Of 70 texts that passed all else on the demo, on themes its anchor set holds, half lay below .78 and 2 above .95.
"""
EVALUATION_COSINE = 0.9
"""Stricter, since a leak into a test costs more than a sample.

Against a test set as close by as that anchor set is, about one honest text in ten is lost.
"""
SAME_MEANING = "near duplicate in meaning"

Vectors = npt.NDArray[np.float32]


@dataclass(slots=True)
class LikenessGate:
    """Compares a sample with seed, anchor, accepted samples and evaluation sets; vectors are made when first needed."""

    embedder: Embedder
    known: Callable[[], Vectors]
    evaluation_sets: Mapping[str, Callable[[], Vectors]]
    _vectors: dict[str, Vectors] = field(default_factory=dict)
    _accepted: list[str] = field(default_factory=list)
    _accepted_vectors: list[Vectors] = field(default_factory=list)

    def check(
        self,
        brief: FeatureBrief,  # noqa: ARG002 - a meaning is the same for every target
        candidate: Candidate,
        shown: Sequence[str],  # noqa: ARG002
        alone: Encoded,  # noqa: ARG002
    ) -> tuple[dict[str, Any], str | None]:
        """`near_cosine` to the nearest known text, and `evaluation_cosine` to the nearest of any evaluation set."""
        [vector] = self.embedder.embed([candidate.text])
        near = max(_nearest(self._of("", self.known), vector), _nearest(self._samples(), vector))
        leaks = {name: _nearest(self._of(name, made), vector) for name, made in self.evaluation_sets.items()}
        measures = {
            "near_cosine": round(near, 4),
            "evaluation_cosine": round(max(leaks.values()), 4) if leaks else None,
            "embedder": self.embedder.name,
        }
        worst = max(leaks, key=lambda name: leaks[name], default="")
        if leaks and leaks[worst] >= EVALUATION_COSINE:
            return measures, overlaps(worst)
        return measures, SAME_MEANING if near >= NEAR_COSINE else None

    def accept(self, text: str) -> None:
        """Remember an accepted sample; it is embedded with the next check."""
        self._accepted.append(text)

    def _of(self, name: str, make: Callable[[], Vectors]) -> Vectors:
        if name not in self._vectors:
            self._vectors[name] = make()
        return self._vectors[name]

    def _samples(self) -> Vectors:
        if self._accepted:
            self._accepted_vectors.append(self.embedder.embed(self._accepted))
            self._accepted = []
        return np.concatenate(self._accepted_vectors) if self._accepted_vectors else np.empty((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class NoLikenessGate:
    """Stands in for the other where texts are compared by their words alone, so that every candidate says why."""

    why: str

    def check(
        self,
        brief: FeatureBrief,  # noqa: ARG002 - nothing is looked at
        candidate: Candidate,  # noqa: ARG002
        shown: Sequence[str],  # noqa: ARG002
        alone: Encoded,  # noqa: ARG002
    ) -> tuple[dict[str, Any], str | None]:
        """No cosine, and in place of the embedder why there is none."""
        return {"near_cosine": None, "embedder": self.why}, None

    def accept(self, text: str) -> None:
        """Nothing is compared with it."""


def _nearest(vectors: Vectors, vector: Vectors) -> float:
    return float((vectors @ vector).max()) if len(vectors) else 0.0
