"""Reading `Human: … Assistant: …` transcripts so that no character of any turn is lost (known defect 27)."""

from __future__ import annotations

import re

from facviz.records import Message

_MARKER = re.compile(r"(?:\A|\n\n|\n)(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def has_markers(text: str) -> bool:
    """Whether a speaker marker stands at the start of any line."""
    return _MARKER.search(text) is not None


def starts_with_marker(text: str) -> bool:
    """Whether a speaker marker stands on the first line that is not empty."""
    return _MARKER.match(text.lstrip("\n")) is not None


def parse_transcript(text: str) -> tuple[Message, ...]:
    """Turns of a transcript; text before the first marker, or without any, is a user turn.

    A marker takes with it the line break or blank line before it and one space after it; all else stays content.
    """
    markers = list(_MARKER.finditer(text))
    ends = [m.start() for m in markers[1:]] + [len(text)]
    preamble = text[: markers[0].start()] if markers else text
    turns = [Message(_ROLES[m.group(1)], text[m.end() : end]) for m, end in zip(markers, ends)]
    return (*([Message("user", preamble)] if preamble.strip() else []), *turns)
