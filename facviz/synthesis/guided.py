"""Step 2 (paper Algorithm 2): candidates guided by the pair, or by measured anchor spans where no pair formed."""

from __future__ import annotations

from facviz.prompts import render
from facviz.records import Candidate, Message
from facviz.synthesis.pairs import SYSTEM_TEMPLATE, pair_messages, request_text
from facviz.synthesis.plan import FeatureBrief

GUIDED_TEMPLATE = "synthesize_guided.v1"


def guided_messages(
    brief: FeatureBrief, strong: Candidate | None, weak: Candidate | None
) -> tuple[tuple[Message, ...], list[str]]:
    """The conversation that asks for step-2 candidates, and the texts it shows.

    Without a pair the step-1 conversation is used again: its spans are evidence with measured activations.
    """
    messages, shown = pair_messages(brief)
    if strong is None or weak is None:
        return messages, shown
    system = Message("system", render(SYSTEM_TEMPLATE, request=brief.task.sample_request))
    request = request_text(brief)
    guided = render(GUIDED_TEMPLATE, request=request, strong=strong.text, weak=weak.text)
    turns: list[Message] = [system]
    for text in shown[:2]:
        turns += [Message("user", request), Message("assistant", text)]
    turns += [Message("user", request), Message("assistant", strong.text), Message("user", guided)]
    return tuple(turns), [*shown[:2], strong.text, weak.text]
