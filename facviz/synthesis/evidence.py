"""Spans as synthesis shows them: whole where their window broke off, no two alike, with their lines or on one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from facviz.overlap import ShingleIndex, words_of
from facviz.records import CONTENT_SEPARATOR, Span
from facviz.synthesis.gates import NEAR_JACCARD

LEAD_CHARS = 240
"""Most characters shown before a span's window, some 55 tokens of English."""
CHARS_A_TOKEN = 4
"""About so many of English; spans are kept as short as replies may be by it."""
_BEGINNING = re.compile(r"\n\s*|[.!?…][\"'”’»)\]]*\s+|[。！？][\"'”’」』）]*\s*")
"""After what a text may begin without breaking off another."""
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Evidence(Span):
    """A span and what stands before its window.

    A feature answers to all that was read before its token, so a text that begins in the middle of a sentence shows how
    it fires badly; and whoever is shown such texts writes such texts.
    """

    lead: str = ""

    @property
    def text(self) -> str:
        """From where the lead begins to the end of the window."""
        return self.lead + "".join(self.tokens)


def with_lead(span: Span, contents: Sequence[str], max_tokens: int) -> Evidence:
    """The span from where its message begins; in a long one from a line or a sentence not far before its window.

    `contents` are those of the document's messages, by which `Span.start_char` counts. The text is about as long as a
    reply of `max_tokens` at most, where its window allows: who is shown longer texts is cut off before the feature.
    """
    starts = accumulate((len(content) + len(CONTENT_SEPARATOR) for content in contents), initial=0)
    message_start = max(start for start in starts if start <= span.start_char)
    room = CHARS_A_TOKEN * max_tokens - len("".join(span.tokens))
    first = max(message_start, span.start_char - min(max(room, 0), LEAD_CHARS))
    before = CONTENT_SEPARATOR.join(contents)[first : span.start_char]
    if first > message_start:
        found = _BEGINNING.search(before)
        before = before[found.end() :] if found else ""
    fields = {field.name: getattr(span, field.name) for field in dataclasses.fields(Span)}
    return Evidence(**fields, lead=before)


def evidence(spans: Sequence[Span], contents: Mapping[int, Sequence[str]], n: int, max_tokens: int) -> tuple[Span, ...]:
    """The strongest `n` that differ from each other: one text under four questions shows what one of them does."""
    shown, index = list[Span](), ShingleIndex()
    for span in sorted(spans, key=lambda s: s.rank):
        led = with_lead(span, contents[span.doc_no], max_tokens)
        words = words_of(led.text)
        if all(led.text != other.text for other in shown) and index.nearest(words)[0] < NEAR_JACCARD:
            index.add(words)
            shown.append(led)
    return tuple(shown[:n])


def shown_text(span: Span) -> str:
    """A span as an earlier answer. Its lines stay: code, verse and lists are not what they are without them."""
    lines = (line.rstrip() for line in span.text.expandtabs(4).splitlines())
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def one_line(span: Span) -> str:
    """A span where it stands among others in a list."""
    return " ".join(span.text.split())
