"""The explainer that asks a language model: one prompt family, several candidates, every outcome typed.

Each candidate of a feature is written from another sample of its spans, because not every provider lets a reply be
drawn at random. Which candidate is kept is decided by a score on held-out spans, and all of them are handed back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from facviz import prompts
from facviz.errors import InputError
from facviz.explain.asking import Answer, BadReply, ask, ask_lines, read_choice, read_share, read_text
from facviz.explain.lexical import NO_PATTERN
from facviz.explain.plain import N_TEXTS, PLAIN_TEMPLATE, plain_request, read_plain, shown_texts
from facviz.explain.prompting import listed, make_request, numbered, object_schema, show
from facviz.explain.said import Said, is_sentinel
from facviz.explain.sampling import ExplainSpans, HeldOutSpans, sample_intervals
from facviz.explain.scorers import embedding_scores, to_scores
from facviz.protocols import Embedder, LLMClient
from facviz.records import Explanation, ExplanationOutcome, LLMRequest, Outcome

SYSTEM_TEMPLATE, FEATURE_TEMPLATE = "explain_system.v1", "explain_feature.v1"
"""They change version together; explanations name the second."""

MAX_TEXT_CHARS, MAX_REASONING_CHARS = 400, 1000

_FAILED = "no explanation: "
_SCHEMA = object_schema(
    reasoning={"type": "string", "description": "At most two sentences."},
    outcome={"type": "string", "enum": [ExplanationOutcome.EXPLAINED.value, ExplanationOutcome.CANNOT_TELL.value]},
    text={"type": "string", "description": "At most 30 words; empty when the outcome is cannot_tell."},
    confidence={"type": "number", "description": "From 0 to 1."},
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an explainer may know of one feature; `negatives` are spans on which it is silent."""

    spans: ExplainSpans
    negatives: ExplainSpans = field(default_factory=ExplainSpans)
    output_tokens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len({span.feature_id for span in self.spans.spans}) != 1:
            raise InputError("A feature is explained from spans of its own; pass at least one, and of one feature.")
        if any(span.feature_id == self.feature_id for span in self.negatives.spans):
            raise InputError(f"A span of feature {self.feature_id} cannot show where it is silent; leave it out.")

    @property
    def feature_id(self) -> int:
        """The feature whose spans these are."""
        return self.spans.spans[0].feature_id


@dataclass(frozen=True, slots=True)
class ExplainerSettings:
    """How much is shown, and how often is asked."""

    n_examples: int = 10
    n_negatives: int = 5
    n_output_tokens: int = 8
    n_candidates: int = 1
    n_attempts: int = 2
    """Requests per candidate, the first one included."""
    max_tokens: int = 600
    temperature: float = 0.7
    """Only where the provider samples."""
    is_plain: bool = False
    """Ask for one line instead of a JSON object, which small models cannot write."""

    @property
    def template(self) -> str:
        """Names the form of the question in every explanation."""
        return PLAIN_TEMPLATE if self.is_plain else FEATURE_TEMPLATE


@dataclass(frozen=True, slots=True)
class Proposal:
    """One candidate explanation, and how its reply ended."""

    explanation: Explanation
    outcome: Outcome
    detail: str
    """Why there is no explanation; empty where there is one, or an honest cannot tell."""
    reasoning: str
    n_attempts: int
    call_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The explanation a feature gets, and all candidates it was chosen from, in the order they were asked for."""

    best: Explanation
    candidates: tuple[Proposal, ...]


Scorer = Callable[[Sequence[Explanation]], Mapping[int, Mapping[str, float]]]
"""Scores by feature id, of at most one explanation a feature; a feature without a measure has no entry."""


def explain_requests(evidence: Sequence[Evidence], *, settings: ExplainerSettings, rng_seed: int) -> list[LLMRequest]:
    """What `propose_explanations` sends first, candidates of a feature side by side: for an estimate of the cost."""
    if settings.is_plain:
        n_texts = N_TEXTS if settings.n_candidates == 1 else N_TEXTS - 1
        return [
            plain_request(item.spans, temperature=0.0, rng_seed=rng_seed + candidate, n_texts=n_texts)
            for item in evidence
            for candidate in range(settings.n_candidates)
        ]
    system = prompts.render(SYSTEM_TEMPLATE)
    return [
        make_request(
            FEATURE_TEMPLATE,
            system,
            _block(item, settings, rng_seed + candidate),
            schema=_SCHEMA,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            rng_seed=rng_seed + candidate,
        )
        for item in evidence
        for candidate in range(settings.n_candidates)
    ]


def _block(evidence: Evidence, settings: ExplainerSettings, rng_seed: int) -> str:
    n_examples = settings.n_examples
    if settings.n_candidates > 1:  # all spans would make every candidate the same question
        n_examples = min(n_examples, max(1, 4 * len(evidence.spans.spans) // 5))
    sample = sample_intervals(evidence.spans, n_examples, rng_seed=rng_seed)
    strongest = sample[0].act
    return prompts.render(
        FEATURE_TEMPLATE,
        active=numbered(f"{100 * span.act / strongest:.0f}% {show(span)}" for span in sample),
        silent=numbered(show(span, ()) for span in evidence.negatives.spans[: settings.n_negatives]),
        promotes=listed(evidence.output_tokens[: settings.n_output_tokens]),
    )


def propose_explanations(
    evidence: Sequence[Evidence], client: LLMClient, *, settings: ExplainerSettings, rng_seed: int
) -> list[tuple[Proposal, ...]]:
    """`settings.n_candidates` proposals a feature, in the order of `evidence`.

    Raises:
        InputError: no candidate or no attempt is asked for.
    """
    if settings.n_candidates < 1 or settings.n_attempts < 1:
        raise InputError("An explainer needs at least one candidate and one attempt.")
    requests = explain_requests(evidence, settings=settings, rng_seed=rng_seed)
    asked = [item for item in evidence for _ in range(settings.n_candidates)]
    if settings.is_plain:
        lines = [partial(read_plain, shown=shown_texts(item.spans)) for item in asked]
        answers = ask_lines(client, requests, lines, n_attempts=settings.n_attempts)
    else:
        answers = ask(client, requests, [_read] * len(requests), n_attempts=settings.n_attempts)
    proposals = [_proposal(item.feature_id, a, client.name, settings.template) for item, a in zip(asked, answers)]
    n = settings.n_candidates
    return [tuple(proposals[i : i + n]) for i in range(0, len(proposals), n)]


def _read(reply: Mapping[str, Any]) -> Said:
    outcome = read_choice(reply, "outcome", [ExplanationOutcome.EXPLAINED, ExplanationOutcome.CANNOT_TELL])
    said = Said(
        text=read_text(reply, "text", MAX_TEXT_CHARS),
        confidence=read_share(reply, "confidence"),
        reasoning=read_text(reply, "reasoning", MAX_REASONING_CHARS),
    )
    if outcome == ExplanationOutcome.CANNOT_TELL or is_sentinel(said.text):
        return replace(said, text="")
    if not any(map(str.isalnum, said.text)):
        raise BadReply("`text` was empty although the outcome was explained")
    return said


def _proposal(feature_id: int, answer: Answer[Said], author: str, template: str) -> Proposal:
    said = answer.value
    if said is None:
        outcome, text = ExplanationOutcome.FAILED, f"{_FAILED}{answer.outcome}, {answer.detail}"
    elif said.text:
        outcome, text = ExplanationOutcome.EXPLAINED, said.text
    else:
        outcome, text = ExplanationOutcome.CANNOT_TELL, NO_PATTERN
    explanation = Explanation(
        feature_id=feature_id,
        text=text,
        outcome=outcome,
        author_kind="llm",
        author=author,
        prompt=template,
        scores={} if said is None or said.confidence is None else {"confidence": said.confidence},
    )
    reasoning = said.reasoning if said else ""
    return Proposal(explanation, answer.outcome, answer.detail, reasoning, answer.n_attempts, answer.call_ids)


def failure_of(text: str) -> str:
    """How the reply behind a failed explanation ended, from the text of that explanation."""
    outcome = text.removeprefix(_FAILED).partition(",")[0]
    return outcome if text.startswith(_FAILED) and outcome in set(Outcome) else str(Outcome.INVALID)


# Choosing -----------------------------------------------------------------------------------------------------------


def embedding_scorer(
    held_out: Mapping[int, HeldOutSpans], background: HeldOutSpans, embedder: Embedder, *, rng_seed: int
) -> Scorer:
    """Scores by embedding AUROC against spans of other features; needs no language model."""
    spans = {feature_id: half.spans for feature_id, half in held_out.items()}

    def score(explanations: Sequence[Explanation]) -> dict[int, dict[str, float]]:
        found = embedding_scores(explanations, spans, background.spans, embedder, rng_seed=rng_seed)
        return {feature_id: to_scores(value) for feature_id, value in found.items()}

    return score


def choose_explanations(
    proposals: Sequence[Sequence[Proposal]], scorer: Scorer, *, by: str = "embedding_auroc"
) -> list[Choice]:
    """The best candidate of each feature: explained before cannot tell before failed, then by held-out score.

    The best of several scores flatters; `n_candidates` in its scores says out of how many it was chosen.

    Raises:
        InputError: a feature without candidates, or whose candidates belong to several features.
    """
    for group in proposals:
        if len({proposal.explanation.feature_id for proposal in group}) != 1:
            raise InputError("Candidates are compared within one feature; pass at least one for each.")
    scored = [list(group) for group in proposals]
    for slot in range(max(map(len, proposals), default=0)):
        column = [group for group in scored if slot < len(group)]
        found = scorer([group[slot].explanation for group in column])
        for group in column:
            group[slot] = _with_scores(group[slot], found)
    return [_choice(group, by) for group in scored]


def _with_scores(proposal: Proposal, found: Mapping[int, Mapping[str, float]]) -> Proposal:
    explanation = proposal.explanation
    scores = {**explanation.scores, **found.get(explanation.feature_id, {})}
    return replace(proposal, explanation=replace(explanation, scores=scores))


def _choice(candidates: Sequence[Proposal], by: str) -> Choice:
    order = list(ExplanationOutcome)
    best = max(
        (proposal.explanation for proposal in candidates),
        key=lambda e: (-order.index(e.outcome), e.scores.get(by, -math.inf)),
    )
    best = replace(best, scores={**best.scores, "n_candidates": float(len(candidates))})
    return Choice(best, tuple(candidates))
