"""What of a model's reply is the sample."""

from __future__ import annotations

import re

from facviz.records import LLMReply, Outcome


def clean_reply(reply: LLMReply) -> str:
    """The sample inside a reply: enclosing quotes off, and a cut-off reply shortened to its last whole sentence."""
    text = reply.text.strip()
    if reply.outcome is Outcome.TRUNCATED:
        ends = [m.end() for m in re.finditer(r"[.!?](?=\s|$)|\n", text)]
        text = text[: ends[-1]].strip() if ends else text
    if len(text) > 1 and text[0] in "\"“'" and text[-1] in "\"”'":
        text = text[1:-1].strip()
    return text
