r"""What a generator leaves around a text: taken off where that leaves the text, else found, so that a gate can refuse.

No mark of the generator may reach the model or a classifier: where only written texts carry `Query-1:` or a literal
`\n`, they are told from real ones by format (known defects 9 and 31).
"""

from __future__ import annotations

import re

_TEMPLATE_TOKEN = re.compile(
    r"<\|start_header_id\|>\w*<\|end_header_id\|>|<\|[^|<>\s]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|<unused\d+>"
)
_ROLE_LINE = re.compile(r"^[ \t]*(?:system|user|assistant|model|human)[ \t]*:?[ \t]*$", re.IGNORECASE | re.MULTILINE)
_LABEL = re.compile(
    r"^\s*(?:[-*•]\s+)?(?:(?:user|human|assistant|synthetic|new|next)[ _-]?)?"
    r"(?:query|message|prompt|sample|example|text|user|human|assistant)\s*[-#_]?\s*\d{0,3}\s*:\s*",
    re.IGNORECASE,
)
_SPELLED_OUT = re.compile(r"(?<!\\)(?:\\r)?\\n|(?<!\\)\\t(?![a-z])")
_CODE = re.compile(r"['\"`]\\[nrt]|\\[nrt]['\"`]|\b[A-Za-z]:\\")
"""A break beside a quotation mark, or a path of Windows: somebody writes about code, and means the letters."""


def clean_sample(text: str) -> str:
    """One written text without labels, spelled-out breaks, tabs and the turns that a model added around it.

    A model that goes on into another turn has ended its text there: what follows is cut off.
    """
    if not _CODE.search(text):
        text = _SPELLED_OUT.sub(lambda found: " " if found[0] == "\\t" else "\n", text)
    text = text.replace("\t", " ").strip()
    while text:
        before = text
        text = _without_opening(text)
        mark = _first_mark(text)
        if mark is not None:
            text = text[:mark].rstrip()
        if text == before:
            break
    return text


def artefact_in(text: str) -> str | None:
    """What of a generator still stands in a text, in words; None where nothing does."""
    if _TEMPLATE_TOKEN.search(text):
        return "template token"
    if _ROLE_LINE.search(text):
        return "role header"
    if _LABEL.match(text):
        return "label"
    if "\t" in text or (_SPELLED_OUT.search(text) and not _CODE.search(text)):
        return "tab or spelled-out line break"
    return None


def _without_opening(text: str) -> str:
    for opening in (_TEMPLATE_TOKEN, _ROLE_LINE, _LABEL):
        found = opening.match(text)
        if found:
            text = text[found.end() :].lstrip()
    return text


def _first_mark(text: str) -> int | None:
    places = [found.start() for mark in (_TEMPLATE_TOKEN, _ROLE_LINE) if (found := mark.search(text))]
    return min(places, default=None)
