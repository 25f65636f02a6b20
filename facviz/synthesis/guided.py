"""Step 2 (paper Algorithm 2): candidates guided by the pair, or by the strongest anchor span where no pair formed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from facviz.prompts import render
from facviz.records import Candidate, Message, Span
from facviz.synthesis.evidence import shown_text
from facviz.synthesis.pairs import REQUEST_TEMPLATE, request_text, system_message
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.safety import is_withheld

CONTRAST_TEMPLATE = "synthesize_contrast.v1"
GUIDED_TEMPLATE = "synthesize_guided.v1"
EVIDENCE_TEMPLATE = "synthesize_evidence.v1"


@dataclass(frozen=True, slots=True)
class Guided:
    """The conversation that asks for step-2 candidates, the texts it shows, and the template of its request."""

    messages: tuple[Message, ...]
    shown: tuple[str, ...]
    prompt: str


def guided_messages(brief: FeatureBrief, strong: Candidate | None, weak: Candidate | None) -> Guided:
    """Guided by a pair, or by anchor spans where the feature has none.

    The weak text stands first, as an answer that was turned down; then the strong one and all spans, the stronger the
    later, the last of them praised: a model that can only continue the conversation then continues from the strongest.
    Quoting both in one request made a small model copy them, and the strong one of a few tries is often weaker than
    the spans: with it last, texts fired less often than without any guidance.
    """
    if strong is None or weak is None:
        return _by_evidence(brief)
    spans = [(span.act, shown_text(span)) for span in brief.spans if not is_withheld(shown_text(span))]
    texts = [text for _, text in sorted([*spans, (strong.act, strong.text)])]
    request = request_text(brief)
    contrast = Message("user", render(CONTRAST_TEMPLATE, request=request))
    turns = [system_message(brief), Message("user", request), Message("assistant", weak.text)]
    for text in texts:
        turns += [contrast if len(turns) == 3 else Message("user", request), Message("assistant", text)]
    turns.append(Message("user", render(GUIDED_TEMPLATE, request=request)))
    return Guided(tuple(turns), (weak.text, *texts), GUIDED_TEMPLATE)


def _by_evidence(brief: FeatureBrief) -> Guided:
    """The strongest anchor span last, praised with its measured activation; it is shown, so copies are turned down.

    It is evidence alone: it has no candidate id, no invented score, and never counts as a candidate or as half of a
    pair (known defects 5 and 29). A feature without any span that may be shown is asked for as in step 1.
    """
    spans = shown_spans(brief)
    request = request_text(brief)
    if not spans:
        return Guided((system_message(brief), Message("user", request)), (), REQUEST_TEMPLATE)
    turns = [system_message(brief)]
    for span in spans:
        turns += [Message("user", request), Message("assistant", shown_text(span))]
    times = times_the_bar(spans[-1], brief)
    turns.append(Message("user", render(EVIDENCE_TEMPLATE, request=request, times=times)))
    return Guided(tuple(turns), tuple(map(shown_text, spans)), EVIDENCE_TEMPLATE)


def shown_spans(brief: FeatureBrief) -> list[Span]:
    """Anchor spans that may be shown, the strongest last."""
    return sorted((s for s in brief.spans if not is_withheld(shown_text(s))), key=lambda s: (s.act, -s.rank))


def evidence_of(brief: FeatureBrief) -> dict[str, Any]:
    """What stands in for a pair, for the record: how many spans, and the strongest with what was measured."""
    spans = shown_spans(brief)
    return {"spans": len(spans)} | ({"strongest": _origin(spans[-1])} if spans else {})


def times_the_bar(span: Span, brief: FeatureBrief) -> str:
    """The measured activation of a span, in words of a prompt."""
    return f"{span.act / brief.bar:.1f}" if brief.bar > 0 else "many"


def _origin(span: Span) -> dict[str, Any]:
    """Where the span stands in the anchor set and what was measured there."""
    return {"anchor_doc": span.doc_no, "peak_token": span.peak_token, "act": float(span.act)}
