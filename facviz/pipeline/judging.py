"""`facviz relevance`: by labels or guideline, or judged by a language model from explanation and held-out spans."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from facviz.config import RelevanceConfig, fingerprint
from facviz.errors import InputError
from facviz.explain.judging import (
    FEATURE_TEMPLATE,
    FRAME_TEMPLATE,
    TASK_TEMPLATE,
    Judgement,
    JudgeSettings,
    Rubric,
    Subject,
    judge_explanations,
    judge_requests,
    task_rubric,
    to_relevance,
)
from facviz.explain.sampling import split_spans
from facviz.pipeline.features import current_explanations, relevance_by_numbers
from facviz.pipeline.models import LOCAL, language_model, paid_model, spent_usd
from facviz.pipeline.session import CODE_VERSION, Session
from facviz.prompts import load_task, template_text
from facviz.protocols import LLMClient
from facviz.records import ExplanationOutcome, TaskGuideline, Verdict
from facviz.spans import spans_by_feature
from facviz.store.manifest import Scope
from facviz.store.schema import MODE, rows_to_arrow

FEATURES_AT_ONCE = 32
"""Judged between two reports of progress."""


def judge_relevance(session: Session, sae_id: str, task: str, config: RelevanceConfig) -> dict[str, Any]:
    """Which features matter to the task, by `config.source`."""
    if config.source != "llm":
        _refuse_model(config)
        return relevance_by_numbers(session, sae_id, task, config)
    stage = _Stage.read(session, sae_id, load_task(task), config)
    with language_model(session, config, stage.books, batch=config.batch) as client:
        return session.run_once(stage.scope(client), lambda: stage.run(client))


def estimate(session: Session, sae_id: str, task: str, config: RelevanceConfig) -> dict[str, Any]:
    """What `judge_relevance` would send and cost at most; nothing is sent."""
    if config.source != "llm":
        _refuse_model(config)
        return {"source": config.source, "n_calls": 0, "usd": 0.0}
    stage = _Stage.read(session, sae_id, load_task(task), config)
    requests = judge_requests(stage.subjects, stage.rubric, settings=JudgeSettings(), rng_seed=config.rng_seed)
    told = {"source": "llm", "n_features": len(stage.subjects)}
    if config.provider == LOCAL:
        return told | {"n_calls": len(requests), "usd": 0.0}
    with paid_model(session, config, stage.books, batch=config.batch) as client:
        return told | {"model": client.name, **dataclasses.asdict(client.estimate(requests))}


def _refuse_model(config: RelevanceConfig) -> None:
    if config.provider != "auto" or config.model is not None or config.budget_usd is not None or config.batch:
        raise InputError(f"No model is asked with the source {config.source}; name none, or choose the source llm.")


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """All that one run needs from the workspace, read once."""

    session: Session
    sae_id: str
    task: TaskGuideline
    config: RelevanceConfig
    source: str
    subjects: list[Subject]
    n_without_spans: int
    """Explained features that have no held-out span to be judged by."""

    @classmethod
    def read(cls, session: Session, sae_id: str, task: TaskGuideline, config: RelevanceConfig) -> _Stage:
        """Raises InputError where spans or explanations are missing."""
        with session.workspace.reader() as reader:
            dataset_id = reader.dataset(config.labels)["dataset_id"]
            source = session.workspace.manifest.latest_fingerprint(f"spans/{sae_id}/{dataset_id}/{MODE}")
            if source is None:
                raise InputError(f"There are no spans of {config.labels} for SAE {sae_id}; run `facviz spans` first.")
            explained = [
                e for e in current_explanations(reader, sae_id) if e.outcome is ExplanationOutcome.EXPLAINED and e.text
            ]
            spans = spans_by_feature(reader.rows("dataset_spans", sae_id=sae_id, dataset_id=dataset_id))
        halves = {feature: split_spans(found)[1] for feature, found in spans.items()}
        subjects = [Subject(e, halves[e.feature_id]) for e in explained if e.feature_id in halves]
        subjects = [subject for subject in subjects if not subject.obstacle]
        if not subjects:
            raise InputError(f"No feature of SAE {sae_id} is explained yet; run `facviz explain` first.")
        return cls(session, sae_id, task, config, source, subjects, len(explained) - len(subjects))

    @property
    def rubric(self) -> Rubric:
        return task_rubric(self.task)

    @property
    def books(self) -> str:
        """Every task has a budget of its own."""
        return f"relevance/{self.task.name}/{self.sae_id}"

    def scope(self, client: LLMClient) -> Scope:
        """Another judge, rubric, or explanation gives other verdicts."""
        told = [template_text(name) for name in (FRAME_TEMPLATE, FEATURE_TEMPLATE, TASK_TEMPLATE)]
        described = dataclasses.replace(self.config, labels="")
        texts = [(s.explanation.feature_id, s.explanation.text) for s in self.subjects]
        name = fingerprint("judging", CODE_VERSION, self.source, described, client.name, self.task, told, texts)
        return Scope("relevance", f"{self.task.name}/{self.sae_id}/llm", name)

    def run(self, client: LLMClient) -> dict[str, Any]:
        """A few features at a time; of a stopped run the replies are recorded, so only the rest is sent."""
        scope, told = self.scope(client), list[Judgement]()
        step = len(self.subjects) if self.config.batch else FEATURES_AT_ONCE
        for start in range(0, len(self.subjects), step):
            part = self.subjects[start : start + step]
            told += judge_explanations(
                part, self.rubric, client, settings=JudgeSettings(), rng_seed=self.config.rng_seed
            )
            self.session.progress.update("relevance", len(told), len(self.subjects), f"features by {client.name}")
        self.session.workspace.manifest.write_shard(
            scope, "relevance", "0", rows_to_arrow("relevance", self._rows(told, client.name))
        )
        counts = Counter(judgement.verdict for judgement in told)
        return {
            "task": self.task.name,
            "sae_id": self.sae_id,
            "source": "llm",
            "model": client.name,
            "explainers": sorted({s.explanation.author for s in self.subjects}),
            "n_judged": sum(n for verdict, n in counts.items() if verdict is not None),
            "n_failed": counts[None],
            "n_without_spans": self.n_without_spans,
            **{str(verdict): counts[verdict] for verdict in Verdict},
            "usd": spent_usd(client),
        }

    def _rows(self, told: Sequence[Judgement], judge: str) -> list[dict[str, Any]]:
        found = [relevance for judgement in told if (relevance := to_relevance(judgement)) is not None]
        return [
            dataclasses.asdict(r)
            | {"task": self.task.name, "sae_id": self.sae_id, "verdict": str(r.verdict), "author": judge}
            for r in found
        ]
