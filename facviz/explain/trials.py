"""Scores a language model gives an explanation by answering questions about held-out spans.

Detection: in which of these texts is the feature active? Fuzzing: are the marked tokens the right ones? Intruder:
which text does not belong (no explanation needed)? Every score comes with its n, class balance, chance level, 95 %
interval, what could not be read, and the same measure of another feature's explanation on the same questions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from facviz import prompts
from facviz.errors import InputError
from facviz.explain.asking import ask, read_flags, read_number
from facviz.explain.prompting import make_request, numbered, object_schema, quote
from facviz.explain.sampling import HeldOutSpans
from facviz.explain.scorers import IntervalScore, stranger_texts, wilson_interval
from facviz.explain.trial_items import Item, detection_items, fuzzing_items, lineups
from facviz.protocols import LLMClient
from facviz.records import Explanation, ExplanationOutcome, LLMRequest

DETECTION, FUZZING, INTRUDER = "detection", "fuzzing", "intruder"

_TEMPLATES = {DETECTION: "score_detection.v1", FUZZING: "score_fuzzing.v1", INTRUDER: "score_intruder.v1"}
_ITEMS_TEMPLATE, _LINEUP_TEMPLATE = "score_items.v1", "score_lineup.v1"
_FLAGS = {DETECTION: "active", FUZZING: "right"}


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """How much is asked."""

    n_items: int = 20
    """Texts per feature in detection and fuzzing; half of them each way."""
    items_per_request: int = 5
    """One text a request leaks least between texts; five cost a fifth."""
    n_lineups: int = 10
    lineup_size: int = 5
    with_shuffled: bool = True
    """Ask everything again with another feature's explanation; doubles the cost of detection and fuzzing."""
    max_tokens: int = 500

    def __post_init__(self) -> None:
        if self.items_per_request < 1 or self.lineup_size < 3 or min(self.n_items, self.n_lineups) < 1:
            raise InputError("Trials need at least one item, one item a request and line-ups of three texts.")


@dataclass(frozen=True, slots=True)
class TrialScore:
    """How often a judge was right about one feature; accuracy is None where no answer could be read."""

    feature_id: int
    kind: str
    judge: str
    explainer: str
    """Who wrote the explanation; empty for intruder, which needs none."""
    chance: float
    n: int
    """Answers that could be read: what accuracy is a share of."""
    n_invalid: int
    """Questions without a usable answer: neither right nor wrong."""
    n_positive: int | None
    """Of n, how many should be answered by yes; None where the answer is a number."""
    accuracy: float | None
    low: float | None
    high: float | None
    sensitivity: float | None
    """Share of right answers where the answer is yes."""
    specificity: float | None
    shuffled_accuracy: float | None
    """The same with another feature's explanation; None where there is none."""
    n_shuffled: int
    by_interval: tuple[IntervalScore, ...]
    interval_method: str = "wilson 95 %"

    @property
    def is_self_judged(self) -> bool:
        """Whether explainer and judge are the same model."""
        return self.judge == self.explainer


@dataclass(frozen=True, slots=True)
class Question:
    """One request and the true answers to it, with the activation interval of each item."""

    feature_id: int
    is_shuffled: bool
    request: LLMRequest
    read: Callable[[Mapping[str, Any]], tuple[int, ...]]
    truth: tuple[int, ...]
    intervals: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """All questions of one kind of score; `explainers` holds every feature asked for, also one without questions."""

    kind: str
    chance: float
    explainers: Mapping[int, str]
    questions: tuple[Question, ...]

    @property
    def requests(self) -> list[LLMRequest]:
        """What is sent first, for an estimate of the cost."""
        return [question.request for question in self.questions]


def trial_templates() -> list[str]:
    """Every template a question is made of, for fingerprints."""
    return [*_TEMPLATES.values(), _ITEMS_TEMPLATE, _LINEUP_TEMPLATE]


# Planning -----------------------------------------------------------------------------------------------------------


def plan_detection(
    explanations: Sequence[Explanation],
    held_out: Mapping[int, HeldOutSpans],
    silent: Mapping[int, HeldOutSpans],
    *,
    settings: TrialSettings,
    rng_seed: int,
    strangers: Sequence[Explanation] = (),
) -> TrialPlan:
    """Questions about explained features; `silent` holds random or nearest negatives of each (see sampling).

    `strangers` lend the other feature's explanation where only one is scored.

    Raises:
        InputError: a feature has two explanations, or a span on the wrong side.
    """
    explained = _explained(explanations)
    items = {
        e.feature_id: detection_items(_half(held_out, e), _half(silent, e), n=settings.n_items, rng_seed=rng_seed)
        for e in explained
    }
    return _plan_flags(DETECTION, explained, items, settings, rng_seed, strangers)


def plan_fuzzing(
    explanations: Sequence[Explanation],
    held_out: Mapping[int, HeldOutSpans],
    *,
    settings: TrialSettings,
    rng_seed: int,
    strangers: Sequence[Explanation] = (),
) -> TrialPlan:
    """Questions about explained features, on their own spans alone.

    Raises:
        InputError: a feature has two explanations, or spans of another feature.
    """
    explained = _explained(explanations)
    items = {e.feature_id: fuzzing_items(_half(held_out, e), n=settings.n_items, rng_seed=rng_seed) for e in explained}
    return _plan_flags(FUZZING, explained, items, settings, rng_seed, strangers)


def plan_intruder(
    held_out: Mapping[int, HeldOutSpans],
    silent: Mapping[int, HeldOutSpans],
    *,
    settings: TrialSettings,
    rng_seed: int,
) -> TrialPlan:
    """Line-ups of every feature in `held_out`, explained or not: can anyone see what its spans share?"""
    system = prompts.render(_TEMPLATES[INTRUDER])
    size = settings.lineup_size
    schema = object_schema(
        reasoning={"type": "string", "description": "At most two sentences."},
        odd_one_out={"type": "integer", "enum": list(range(1, size + 1))},
    )
    read = partial(_read_odd, n=size)
    questions = []
    for feature_id, active in held_out.items():
        others = silent.get(feature_id, HeldOutSpans())
        for lineup in lineups(active, others, n=settings.n_lineups, size=size, rng_seed=rng_seed):
            block = prompts.render(_LINEUP_TEMPLATE, texts=numbered(lineup.texts))
            request = make_request(
                _TEMPLATES[INTRUDER], system, block, schema=schema, max_tokens=settings.max_tokens, rng_seed=rng_seed
            )
            questions.append(Question(feature_id, False, request, read, (lineup.odd,), (lineup.interval,)))
    return TrialPlan(INTRUDER, 1 / size, dict.fromkeys(held_out, ""), tuple(questions))


def _explained(explanations: Sequence[Explanation]) -> list[Explanation]:
    explained = [e for e in explanations if e.outcome is ExplanationOutcome.EXPLAINED]
    if len({e.feature_id for e in explained}) < len(explained):
        raise InputError("A feature has more than one explanation to score; score one version at a time.")
    return explained


def _half(spans: Mapping[int, HeldOutSpans], explanation: Explanation) -> HeldOutSpans:
    return spans.get(explanation.feature_id, HeldOutSpans())


def _plan_flags(
    kind: str,
    explained: Sequence[Explanation],
    items: Mapping[int, Sequence[Item]],
    settings: TrialSettings,
    rng_seed: int,
    strangers: Sequence[Explanation],
) -> TrialPlan:
    """The items of each feature asked with its own explanation, and again in the same order with a stranger's."""
    asked = [e for e in explained if items[e.feature_id]]
    questions: list[Question] = []
    for own, stranger in zip(asked, stranger_texts(asked, strangers, rng_seed)):
        questions += _flag_questions(kind, own, own.text, items[own.feature_id], settings)
        if settings.with_shuffled and stranger is not None and stranger != own.text:
            questions += _flag_questions(kind, own, stranger, items[own.feature_id], settings)
    return TrialPlan(kind, 0.5, {e.feature_id: e.author for e in explained}, tuple(questions))


def _flag_questions(
    kind: str, own: Explanation, text: str, items: Sequence[Item], settings: TrialSettings
) -> Iterator[Question]:
    flag, system = _FLAGS[kind], prompts.render(_TEMPLATES[kind])
    schema = _flags_schema(flag)
    for start in range(0, len(items), settings.items_per_request):
        chunk = items[start : start + settings.items_per_request]
        block = prompts.render(_ITEMS_TEMPLATE, explanation=quote(text), texts=numbered(item.text for item in chunk))
        yield Question(
            feature_id=own.feature_id,
            is_shuffled=text != own.text,
            request=make_request(_TEMPLATES[kind], system, block, schema=schema, max_tokens=settings.max_tokens),
            read=partial(read_flags, name="answers", flag=flag, n=len(chunk)),
            truth=tuple(item.answer for item in chunk),
            intervals=tuple(item.interval for item in chunk),
        )


def _flags_schema(flag: str) -> dict[str, object]:
    entry = object_schema(**{"item": {"type": "integer"}, flag: {"type": "boolean"}})
    return object_schema(answers={"type": "array", "items": entry})


def _read_odd(reply: Mapping[str, Any], n: int) -> tuple[int]:
    return (read_number(reply, "odd_one_out", n),)


# Scoring ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Mark:
    """One question's item after the judge: the true answer, and whether it was hit; None is no usable answer."""

    truth: int
    is_right: bool | None
    interval: int | None


def run_trials(plans: Sequence[TrialPlan], client: LLMClient, *, n_attempts: int = 2) -> list[TrialScore]:
    """One score per plan and feature, in order; the questions of all plans go out together.

    A feature without enough spans has a score with n 0 and no accuracy.
    """
    questions = [question for plan in plans for question in plan.questions]
    answers = ask(client, [q.request for q in questions], [q.read for q in questions], n_attempts=n_attempts)
    verdicts = iter(answer.value for answer in answers)
    scores: list[TrialScore] = []
    for plan in plans:
        marks: dict[tuple[int, bool], list[_Mark]] = defaultdict(list)
        for question in plan.questions:
            marks[question.feature_id, question.is_shuffled] += _marks(question, next(verdicts))
        scores += (
            _score(plan, feature_id, client.name, marks[feature_id, False], marks[feature_id, True])
            for feature_id in plan.explainers
        )
    return scores


def _marks(question: Question, said: tuple[int, ...] | None) -> Iterator[_Mark]:
    answers: Iterable[int | None] = said if said is not None else [None] * len(question.truth)
    for truth, answer, interval in zip(question.truth, answers, question.intervals):
        yield _Mark(truth, None if answer is None else answer == truth, interval)


def _score(
    plan: TrialPlan, feature_id: int, judge: str, marks: Sequence[_Mark], shuffled: Sequence[_Mark]
) -> TrialScore:
    read = [mark for mark in marks if mark.is_right is not None]
    has_sides = plan.kind != INTRUDER
    accuracy = _accuracy(read)
    low, high = (None, None) if accuracy is None else wilson_interval(accuracy, len(read))
    stranger = [mark for mark in shuffled if mark.is_right is not None]
    return TrialScore(
        feature_id=feature_id,
        kind=plan.kind,
        judge=judge,
        explainer=plan.explainers[feature_id],
        chance=plan.chance,
        n=len(read),
        n_invalid=len(marks) - len(read),
        n_positive=sum(mark.truth for mark in read) if has_sides else None,
        accuracy=accuracy,
        low=low,
        high=high,
        sensitivity=_accuracy([m for m in read if m.truth]) if has_sides else None,
        specificity=_accuracy([m for m in read if not m.truth]) if has_sides else None,
        shuffled_accuracy=_accuracy(stranger),
        n_shuffled=len(stranger),
        by_interval=tuple(_by_interval(read)),
    )


def _accuracy(marks: Sequence[_Mark]) -> float | None:
    return sum(mark.is_right is True for mark in marks) / len(marks) if marks else None


def _by_interval(marks: Sequence[_Mark]) -> Iterator[IntervalScore]:
    groups: dict[int, list[_Mark]] = defaultdict(list)
    for mark in marks:
        if mark.interval is not None:
            groups[mark.interval].append(mark)
    for interval, group in sorted(groups.items()):
        accuracy = sum(mark.is_right is True for mark in group) / len(group)
        yield IntervalScore(interval, len(group), accuracy, *wilson_interval(accuracy, len(group)))


def to_scores(score: TrialScore) -> dict[str, float]:
    """The entries of `Explanation.scores`, each beginning with the kind; what was not measured has no entry."""
    whole = {
        "accuracy": score.accuracy,
        "low": score.low,
        "high": score.high,
        "chance": score.chance,
        "n": score.n,
        "n_invalid": score.n_invalid,
        "n_positive": score.n_positive,
        "sensitivity": score.sensitivity,
        "specificity": score.specificity,
        "shuffled": score.shuffled_accuracy,
        "n_shuffled": score.n_shuffled,
    }
    parts = chain.from_iterable(
        ((f"interval_{part.interval}_accuracy", part.accuracy), (f"interval_{part.interval}_n", part.n))
        for part in score.by_interval
    )
    return {f"{score.kind}_{name}": float(v) for name, v in (*whole.items(), *parts) if v is not None}
