"""What synthesis comes to, whichever way features are filled, and where finished batches are kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from facviz.records import Candidate, ContrastivePair
from facviz.synthesis.plan import BatchPlace, FeatureBrief


class FeatureState(StrEnum):
    """How synthesis ended for a missing feature."""

    FILLED = "filled"
    EXHAUSTED = "exhausted"
    REFUSED = "refused"
    BUDGET = "budget"
    PAIRED_ONLY = "paired_only"


class BatchLedger(Protocol):
    """Finished batches, so that a killed run loses at most those of the unfinished wave."""

    def recall(self, place: BatchPlace) -> list[Candidate] | None:
        """The batch at this place if it was finished before, whatever was recorded before or after it."""

    def record(self, place: BatchPlace, candidates: Sequence[Candidate]) -> None:
        """Keep a finished batch durably."""


@dataclass(slots=True)
class FeatureResult:
    """Everything synthesis did for one feature."""

    brief: FeatureBrief
    pair: ContrastivePair | None
    state: FeatureState
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def accepted(self) -> list[Candidate]:
        """The verified samples."""
        return [c for c in self.candidates if c.accepted]


OnResult = Callable[[FeatureResult], None]


class Filler(Protocol):
    """What fills missing features, whichever way: the targeted engine below, or one that draws untargeted texts."""

    @property
    def stopped(self) -> str:
        """Why it ended before all features were tried, in one sentence; empty when it did not."""

    def fill_all(self, briefs: Sequence[FeatureBrief], on_result: OnResult | None = None) -> list[FeatureResult]:
        """One result a feature, in the order of the briefs; `on_result` sees each as soon as its feature ended."""


def restore_candidate(row: Mapping[str, Any]) -> Candidate:
    """A candidate from its dictionary form, or from its row in the tables, where mappings are JSON."""
    kept = {f.name: row[f.name] for f in dataclasses.fields(Candidate) if f.name in row}
    decoded = {name: json.loads(value) for name in ("gates", "fields") if isinstance(value := kept.get(name), str)}
    return Candidate(**kept | decoded)
