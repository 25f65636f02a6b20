"""What of a model's reply is the sample."""

from __future__ import annotations

import re

from facviz.records import LLMReply, Outcome
from facviz.synthesis.cleaning import clean_sample


def clean_reply(reply: LLMReply) -> str:
    """The sample inside a reply: marks and quotes around it off, a cut-off one shortened to its last whole sentence."""
    text = clean_sample(reply.text)
    if reply.outcome is Outcome.TRUNCATED:
        ends = [m.end() for m in re.finditer(r"[.!?](?=\s|$)|\n", text)]
        text = text[: ends[-1]].strip() if ends else text
    if len(text) > 1 and text[0] in "\"“'" and text[-1] in "\"”'":
        text = clean_sample(text[1:-1])
    return text
