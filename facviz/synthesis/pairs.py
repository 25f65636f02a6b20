"""Step 1 (paper Algorithm 2): candidates from explanation and spans, and the contrastive pair among them."""

from __future__ import annotations

from collections.abc import Sequence

from facviz.prompts import render
from facviz.records import Candidate, ContrastivePair, Message, PairState
from facviz.synthesis.evidence import shown_text
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.safety import is_withheld

SYSTEM_TEMPLATE = "synthesize_system.v1"
REQUEST_TEMPLATE = "synthesize_request.v1"
WORDS_SHOWN = 4
STEP_ONE = "step one"
"""Why a step-1 candidate that passed the text gates is no sample: it only serves the pair."""


def pair_messages(brief: FeatureBrief) -> tuple[tuple[Message, ...], list[str]]:
    """The conversation that asks for step-1 candidates, and the texts it shows.

    Spans appear as earlier answers: a small model continues a pattern far better than it obeys a description.
    """
    shown = [text for text in map(shown_text, brief.spans) if not is_withheld(text)]
    messages = [system_message(brief)]
    for text in shown:
        messages += [Message("user", request_text(brief)), Message("assistant", text)]
    return (*messages, Message("user", request_text(brief))), shown


def system_message(brief: FeatureBrief) -> Message:
    """The task, and what all texts have in common."""
    common = brief.explanation or "see the earlier texts"
    return Message("system", render(SYSTEM_TEMPLATE, request=brief.task.sample_request, explanation=common))


def request_text(brief: FeatureBrief) -> str:
    """The one request that is repeated: what the sample should express."""
    return render(REQUEST_TEMPLATE, words=", ".join(brief.words[:WORDS_SHOWN]) or "what the earlier ones use")


def make_pair(brief: FeatureBrief, candidates: Sequence[Candidate], min_margin: float) -> ContrastivePair:
    """Highest and lowest activation of step 1 among texts that passed the gates, at least `min_margin` × δ apart.

    `none_active` and `no_contrast` are states of their own: no corpus span and no invented score takes the pair's
    place (known defects 5 and 29).
    """
    usable = [c for c in candidates if c.reject_reason == STEP_ONE]
    if not any(c.act > 0 for c in usable):
        return ContrastivePair(brief.feature_id, None, None, 0.0, PairState.NONE_ACTIVE)
    strong = max(usable, key=lambda c: (c.act, c.candidate_id))
    weak = min(usable, key=lambda c: (c.act, c.candidate_id))
    margin = strong.act - weak.act
    needed = min_margin * brief.act_threshold
    if strong.candidate_id == weak.candidate_id or margin <= 0 or margin < needed:
        return ContrastivePair(brief.feature_id, None, None, margin, PairState.NO_CONTRAST)
    return ContrastivePair(brief.feature_id, strong.candidate_id, weak.candidate_id, margin, PairState.PAIRED)
