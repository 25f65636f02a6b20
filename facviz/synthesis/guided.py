"""Step 2 (paper Algorithm 2): candidates guided by the pair, or by measured anchor spans where no pair formed."""

from __future__ import annotations

from facviz.prompts import render
from facviz.records import Candidate, Message
from facviz.synthesis.pairs import pair_messages, request_text
from facviz.synthesis.plan import FeatureBrief

CONTRAST_TEMPLATE = "synthesize_contrast.v1"
GUIDED_TEMPLATE = "synthesize_guided.v1"
SPANS_BESIDE_PAIR = 2


def guided_messages(
    brief: FeatureBrief, strong: Candidate | None, weak: Candidate | None
) -> tuple[tuple[Message, ...], list[str]]:
    """The conversation that asks for step-2 candidates, and the texts it shows.

    The pair stands in it as an answer that was turned down and one that was praised: a model that can only continue
    the conversation then continues from the strong one. Quoting both in one request made a small model copy them.
    Without a pair the step-1 conversation is used again: its spans are evidence with measured activations.
    """
    messages, shown = pair_messages(brief)
    if strong is None or weak is None:
        return messages, shown
    request = request_text(brief)
    turns = [
        *messages[: 1 + 2 * SPANS_BESIDE_PAIR],
        Message("user", request),
        Message("assistant", weak.text),
        Message("user", render(CONTRAST_TEMPLATE, request=request)),
        Message("assistant", strong.text),
        Message("user", render(GUIDED_TEMPLATE, request=request)),
    ]
    return tuple(turns), [*shown[:SPANS_BESIDE_PAIR], weak.text, strong.text]
