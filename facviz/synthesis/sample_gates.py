"""All gates that need more than a sample's words, as one: every measure is taken, the first failure is the reason.

They run after the target was seen to fire. Only the judge, which costs money, is spared a text that failed before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from facviz.records import Candidate, Encoded
from facviz.synthesis.labelling import NOT_JUDGED
from facviz.synthesis.plan import FeatureBrief


class Gate(Protocol):
    """One of them."""

    def check(
        self, brief: FeatureBrief, candidate: Candidate, shown: Sequence[str], alone: Encoded
    ) -> tuple[dict[str, Any], str | None]:
        """Measures, and the reason for rejection or None."""

    def accept(self, text: str) -> None:
        """Remember an accepted sample."""


class Calibrated(Protocol):
    """A gate whose limits come from the corpus."""

    def calibration(self) -> dict[str, Any]:
        """What they rest on."""


@dataclass(frozen=True, slots=True)
class SampleGates:
    """Gates in the order in which their reasons count, and the judge asked last, or None for nobody."""

    gates: tuple[Gate, ...]
    judge: Gate | None = None
    calibrated: Mapping[str, Calibrated] | None = None

    def check(
        self, brief: FeatureBrief, candidate: Candidate, shown: Sequence[str], alone: Encoded
    ) -> tuple[dict[str, Any], str | None]:
        """What every gate measured, and the first reason for rejection or None."""
        measures: dict[str, Any] = {}
        reasons = []
        for gate in self.gates:
            found, reason = gate.check(brief, candidate, shown, alone)
            measures |= found
            reasons.append(reason)
        first = next((reason for reason in reasons if reason is not None), None)
        if self.judge is None or first is not None:
            return measures | {"label_verdict": NOT_JUDGED}, first
        found, reason = self.judge.check(brief, candidate, shown, alone)
        return measures | found, reason

    def accept(self, text: str) -> None:
        """Remember an accepted sample in every gate."""
        for gate in (*self.gates, *([self.judge] if self.judge else [])):
            gate.accept(text)

    def calibration(self) -> dict[str, Any]:
        """What every calibrated limit rests on, for the run's record."""
        return {name: gate.calibration() for name, gate in (self.calibrated or {}).items()}
