"""A language model as judge of samples: the task's rubric, one text, and nothing of the feature it was written for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from facviz import prompts
from facviz.config import SynthesisConfig
from facviz.explain.asking import ask, read_choice, read_text
from facviz.explain.judging import MAX_RATIONALE_CHARS
from facviz.explain.prompting import make_request, object_schema, quote
from facviz.pipeline.models import language_model
from facviz.pipeline.session import Session
from facviz.protocols import LLMClient
from facviz.records import Document, LLMRequest, TaskGuideline, Verdict
from facviz.synthesis.labelling import LabelGate, SampleVerdict

SAMPLE_TEMPLATE = "judge_sample.v1"
_MAX_TOKENS, _N_ATTEMPTS = 300, 2
_SCHEMA = object_schema(
    rationale={"type": "string", "description": "At most two sentences."},
    verdict={"type": "string", "enum": [verdict.value for verdict in Verdict]},
)


@dataclass(frozen=True, slots=True)
class JudgeChoice:
    """Who judges, as stages choose their model; samples and verdicts of a run share one budget."""

    provider: str
    model: str | None
    budget_usd: float | None
    concurrency: int


@contextmanager
def judge_model(session: Session, config: SynthesisConfig, books: str) -> Iterator[LLMClient | None]:
    """The judge that a synthesis asked for, None for nobody; what it costs counts in the books of the samples."""
    if not config.judge_provider:
        yield None
        return
    choice = JudgeChoice(config.judge_provider, config.judge_model, config.budget_usd, config.concurrency)
    with language_model(session, choice, books) as client:
        yield client


def label_gate(client: LLMClient | None, generator: str, rng_seed: int) -> LabelGate | None:
    """The judge as a gate; None where nobody judges."""
    return None if client is None else LabelGate(LanguageModelJudge(client, rng_seed), generator)


@dataclass(frozen=True, slots=True)
class LanguageModelJudge:
    """Implements `SampleJudge`; an answer that cannot be used is asked for once more, then it is no verdict."""

    client: LLMClient
    rng_seed: int = 0

    def judge(self, document: Document, task: TaskGuideline) -> SampleVerdict:
        """One verdict on one text.

        Raises:
            LLMError: the provider cannot be reached, or the budget is spent.
        """
        [answer] = ask(self.client, [self.request(document, task)], [_read], n_attempts=_N_ATTEMPTS)
        verdict, rationale = answer.value or (None, "")
        return SampleVerdict(verdict, rationale, self.client.name, answer.detail, answer.call_ids)

    def request(self, document: Document, task: TaskGuideline) -> LLMRequest:
        """What is sent first."""
        points = "\n".join(f"- {point}" for point in task.points)
        frame = prompts.render(SAMPLE_TEMPLATE, title=task.title, description=f"{task.description}\n\n{points}")
        return make_request(
            SAMPLE_TEMPLATE,
            frame,
            _block(document),
            schema=_SCHEMA,
            max_tokens=_MAX_TOKENS,
            rng_seed=self.rng_seed,
        )


def _block(document: Document) -> str:
    """The text in quotes; the turns of a conversation one a line, each with who speaks."""
    if len(document.messages) == 1:
        return f"Text: {quote(document.text)}"
    return "\n".join(f"{message.role}: {quote(message.content)}" for message in document.messages)


def _read(reply: Mapping[str, Any]) -> tuple[Verdict, str]:
    verdict = Verdict(read_choice(reply, "verdict", [v.value for v in Verdict]))
    return verdict, read_text(reply, "rationale", MAX_RATIONALE_CHARS)
