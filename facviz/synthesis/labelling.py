"""Does a sample belong to its task? Asked of a judge that is not told which feature the text was written for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from facviz.records import Candidate, Document, Encoded, TaskGuideline, Verdict
from facviz.synthesis.plan import FeatureBrief

OFF_TASK = "judged off task"
NOT_JUDGED, FAILED = "not judged", "failed"


@dataclass(frozen=True, slots=True)
class SampleVerdict:
    """What a judge said of one text; without a verdict `detail` says why there is none."""

    verdict: Verdict | None
    rationale: str
    judge: str
    detail: str = ""
    call_ids: tuple[str, ...] = ()


class SampleJudge(Protocol):
    """Judges texts by a task's rubric; knows nothing of features."""

    def judge(self, document: Document, task: TaskGuideline) -> SampleVerdict:
        """A verdict on one text."""


@dataclass(frozen=True, slots=True)
class LabelGate:
    """Turns down what is judged `no`; a judge that gave no usable answer turns down nothing, and is recorded."""

    judge: SampleJudge
    generator: str
    """Who wrote the samples: a judge of the same name judges itself, and the record says so."""

    def check(
        self,
        brief: FeatureBrief,
        candidate: Candidate,
        shown: Sequence[str],  # noqa: ARG002 - the judge sees the text alone
        alone: Encoded,  # noqa: ARG002
    ) -> tuple[dict[str, Any], str | None]:
        """`label_verdict` with its rationale and who gave it."""
        found = self.judge.judge(brief.document_of(candidate), brief.task)
        measures: dict[str, Any] = {
            "label_verdict": str(found.verdict) if found.verdict is not None else FAILED,
            "label_rationale": found.rationale or found.detail,
            "label_judge": found.judge,
            "label_self_judged": found.judge == self.generator,
        }
        if found.call_ids:
            measures["label_calls"] = list(found.call_ids)
        return measures, OFF_TASK if found.verdict is Verdict.NO else None

    def accept(self, text: str) -> None:
        """What was accepted before does not matter here."""
