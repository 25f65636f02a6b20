"""A second opinion on explanations: do they fit held-out spans, and do their features matter to a task.

One prompt frame serves every question; the rubric is its only variable. Judge and explainer are both named, because
one model in both roles shows that it agrees with itself and no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facviz import prompts
from facviz.errors import InputError
from facviz.explain.asking import Answer, ask, clean, read_choice, read_text
from facviz.explain.prompting import make_request, numbered, object_schema, quote, show
from facviz.explain.sampling import HeldOutSpans, sample_intervals
from facviz.protocols import LLMClient
from facviz.records import Explanation, ExplanationOutcome, LLMRequest, Outcome, Relevance, TaskGuideline, Verdict

FRAME_TEMPLATE, FEATURE_TEMPLATE = "judge_frame.v1", "judge_feature.v1"
VERIFY_TEMPLATE, TASK_TEMPLATE = "judge_verify.v1", "judge_task.v1"

VERIFY = "verify"
"""Name of the rubric that asks whether an explanation fits."""

MAX_RATIONALE_CHARS, MAX_RUBRIC_CHARS = 1000, 6000

VERDICT_SCORES = {Verdict.YES: 1.0, Verdict.PROBABLY: 2 / 3, Verdict.MAYBE: 1 / 3, Verdict.NO: 0.0}
"""`Relevance.score` of a judged feature: the verdict's place on its scale, no measurement."""

_SCHEMA = object_schema(
    rationale={"type": "string", "description": "At most two sentences."},
    verdict={"type": "string", "enum": [verdict.value for verdict in Verdict]},
)


@dataclass(frozen=True, slots=True)
class Rubric:
    """What is asked of a judge; `name` is `verify` or a task."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How much is shown, and how often is asked."""

    n_examples: int = 10
    n_attempts: int = 2
    max_tokens: int = 400


@dataclass(frozen=True, slots=True)
class Judgement:
    """One verdict, or why there is none; without an outcome nothing was asked."""

    feature_id: int
    rubric: str
    verdict: Verdict | None
    rationale: str
    outcome: Outcome | None
    detail: str
    judge: str
    explainer: str
    prompt: str = FRAME_TEMPLATE
    call_ids: tuple[str, ...] = ()

    @property
    def is_self_judged(self) -> bool:
        """Whether explainer and judge are the same model."""
        return self.judge == self.explainer


@dataclass(frozen=True, slots=True)
class Subject:
    """An explanation and spans of its feature that it was not written from."""

    explanation: Explanation
    spans: HeldOutSpans

    def __post_init__(self) -> None:
        if any(span.feature_id != self.explanation.feature_id for span in self.spans.spans):
            raise InputError(
                f"Feature {self.explanation.feature_id} is judged by its own spans alone; pass only those."
            )

    @property
    def obstacle(self) -> str:
        """Why there is nothing to judge; empty where there is."""
        if self.explanation.outcome is not ExplanationOutcome.EXPLAINED:
            return "the feature has no explanation"
        return "" if self.spans.spans else "the feature has no held-out spans"


def verify_rubric() -> Rubric:
    """Does the explanation fit the spans?"""
    return Rubric(VERIFY, prompts.render(VERIFY_TEMPLATE))


def task_rubric(task: TaskGuideline) -> Rubric:
    """Does the feature matter to a packaged or parsed task?"""
    return _task_rubric(task.name, task.title, f"{task.description}\n\n" + "\n".join(f"- {p}" for p in task.points))


def custom_rubric(name: str, text: str) -> Rubric:
    """Does the feature matter to a task somebody describes in their own words?

    Raises:
        InputError: no name or no description, one that is too long, or the name of the verify rubric.
    """
    name, text = clean(name), text.strip()
    if not name or not text or name == VERIFY:
        raise InputError("A task needs a name other than verify and a description of what counts as relevant.")
    if len(text) > MAX_RUBRIC_CHARS:
        raise InputError(f"The task {name} is described in {len(text)} characters; use at most {MAX_RUBRIC_CHARS}.")
    return _task_rubric(name, name, text)


def _task_rubric(name: str, title: str, description: str) -> Rubric:
    return Rubric(name, prompts.render(TASK_TEMPLATE, title=title, description=description))


def judge_requests(
    subjects: Sequence[Subject], rubric: Rubric, *, settings: JudgeSettings, rng_seed: int
) -> list[LLMRequest]:
    """What `judge_explanations` sends first: one request for every subject without an obstacle."""
    frame = prompts.render(FRAME_TEMPLATE, rubric=rubric.text)
    return [
        make_request(
            FRAME_TEMPLATE,
            frame,
            _block(subject, settings.n_examples, rng_seed),
            schema=_SCHEMA,
            max_tokens=settings.max_tokens,
            rng_seed=rng_seed,
        )
        for subject in subjects
        if not subject.obstacle
    ]


def _block(subject: Subject, n_examples: int, rng_seed: int) -> str:
    sample = sample_intervals(subject.spans, n_examples, rng_seed=rng_seed)
    return prompts.render(
        FEATURE_TEMPLATE, explanation=quote(subject.explanation.text), examples=numbered(map(show, sample))
    )


def judge_explanations(
    subjects: Sequence[Subject], rubric: Rubric, client: LLMClient, *, settings: JudgeSettings, rng_seed: int
) -> list[Judgement]:
    """One judgement a subject, in order; a feature without an explanation is never sent to the judge."""
    requests = judge_requests(subjects, rubric, settings=settings, rng_seed=rng_seed)
    answers = iter(ask(client, requests, [_read] * len(requests), n_attempts=settings.n_attempts))
    return [_judgement(s, rubric.name, client.name, None if s.obstacle else next(answers)) for s in subjects]


def _read(reply: Mapping[str, Any]) -> tuple[Verdict, str]:
    verdict = Verdict(read_choice(reply, "verdict", [v.value for v in Verdict]))
    return verdict, read_text(reply, "rationale", MAX_RATIONALE_CHARS)


def _judgement(subject: Subject, rubric: str, judge: str, answer: Answer[tuple[Verdict, str]] | None) -> Judgement:
    explanation = subject.explanation
    verdict, rationale = answer.value if answer and answer.value else (None, "")
    return Judgement(
        feature_id=explanation.feature_id,
        rubric=rubric,
        verdict=verdict,
        rationale=rationale,
        outcome=answer.outcome if answer else None,
        detail=answer.detail if answer else subject.obstacle,
        judge=judge,
        explainer=explanation.author,
        call_ids=answer.call_ids if answer else (),
    )


def to_relevance(judgement: Judgement) -> Relevance | None:
    """The verdict on a task as a record; None where there is none, which is not a no (known defect 26).

    Raises:
        InputError: the judgement says whether an explanation fits, not whether a task needs the feature.
    """
    if judgement.rubric == VERIFY:
        raise InputError("Whether an explanation fits says nothing about a task; judge it by a task's rubric.")
    if judgement.verdict is None:
        return None
    score = VERDICT_SCORES[judgement.verdict]
    return Relevance(judgement.feature_id, "llm", judgement.verdict, score, judgement.rationale)
