"""What is asked for and how things are named: briefs, positions in the plan, and the seeds that follow from them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facviz.records import Candidate, Document, Span, TaskGuideline
from facviz.synthesis.formats import SampleFormat, format_of

VERIFICATION_MARGIN = 1.05
"""A sample is accepted above this multiple of δ, so that rounding elsewhere cannot undo it (design §3)."""


def sample_bar(act_threshold: float) -> float:
    """Activation a sample must exceed where a feature counts as active above `act_threshold` (δ)."""
    return max(VERIFICATION_MARGIN * act_threshold, 0.0)


@dataclass(frozen=True, slots=True)
class FeatureBrief:
    """Everything synthesis may know about one missing feature; spans are measured evidence, never text to copy."""

    feature_id: int
    act_threshold: float
    explanation: str
    words: tuple[str, ...]
    spans: tuple[Span, ...]
    task: TaskGuideline
    n_anchor_docs: int = 0
    """Anchor documents that activate the feature."""
    anchor_max: float = math.inf
    """Highest activation in an anchor document; infinite where it is not known."""

    @property
    def bar(self) -> float:
        """Activation a sample must exceed."""
        return sample_bar(self.act_threshold)

    @property
    def is_beyond_anchor(self) -> bool:
        """Whether a sample must fire more strongly than any anchor document does; hardly ever does one."""
        return self.anchor_max <= self.bar

    @property
    def format(self) -> SampleFormat:
        """How the task's samples are written and read."""
        return format_of(self.task)

    def document(self, text: str, fields: Mapping[str, Any] | None = None) -> Document:
        """What a stored text and its fields are measured, and later exported, as."""
        return self.format.restore(text, fields or {}).document

    def document_of(self, candidate: Candidate) -> Document:
        """The document a candidate is, with all its parts."""
        return self.document(candidate.text, candidate.fields)


@dataclass(frozen=True, slots=True)
class BatchPlace:
    """Where a batch of candidates stands in the plan; ids and seeds come from here, never from the text (defect 4)."""

    synth_id: str
    feature_id: int
    step: str  # "pairs", "guided", "one-step", "tune"
    round: int
    strategy: str = "paper"

    def candidate_id(self, slot: int) -> str:
        """Stable id of one candidate of the batch."""
        return _digest(self.synth_id, self.feature_id, self.strategy, self.step, self.round, slot)[:16]

    def rng_seed(self, base: int, part: int = 0) -> int:
        """Seed of the batch's sampling, 0 … 2³¹−1; every request but its first names its number as `part`."""
        parts = [base, self.synth_id, self.feature_id, self.step, self.round, *([part] if part else [])]
        return int(_digest(*parts)[:8], 16) & 0x7FFFFFFF


def _digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
