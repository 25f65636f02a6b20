r"""Marks of the asking that must not reach a sample: prefixes, leaked headers, written-out line ends, enclosing quotes.

A classifier would learn them in place of the content (known defects 9 and 31). What marks belong to is decided by
fixed rules; a reply that needs more than those is no sample.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from facviz.synthesis.cleaning import clean_sample

MAX_REPLY_CHARS = 20_000

_FENCED = re.compile(r"```[a-zA-Z]*[ \t]*\n?(.*?)\s*```", re.DOTALL)
_HEADER = re.compile(
    r"\A\s*(?:<\|[^|<>\n]{1,40}\|>\s*)*(?:(?:assistant|user|system)[ \t]*(?:<\|[^|<>\n]{1,40}\|>|\n)\s*)?"
)
_MARKER = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|^#{2,4} (?:Instruction|Response|Input):",
    re.MULTILINE,
)
_UNREADABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_PREFIX = re.compile(r"^[ \t]*(?:query|sample|message)[ -]?\d{1,3}[ \t]*:", re.IGNORECASE | re.MULTILINE)
_LABEL = re.compile(r"\t+[ \t]*[01][ \t]*\Z")
_QUOTES = {'"': '"', "“": "”", "'": "'"}
_REFUSAL = re.compile(
    r"\A\W*(?:(?:i(?:'|’)?m|i am|we(?:'|’)?re|we are) (?:really |very |so )?sorry\b[^.\n]{0,40}\b(?:can|not|unable)|"
    r"(?:sorry|unfortunately|apologies)?,?\W*"
    r"i (?:can(?:'|’)?t|can ?not|won(?:'|’)?t|will not|am (?:not able|unable) to) "
    r"(?:assist|help|fulfil\w*|comply|create|generate|provide|write|answer|do (?:that|this))\b|"
    r"as an? (?:ai|language model)\b)",
    re.IGNORECASE,
)


class BadSample(ValueError):  # noqa: N818 - caught by the format, never raised at a user
    """A reply that breaks its format; the message is ours and quotes nothing of the reply."""


def unwrap(reply: str) -> str:
    """A reply without a leaked role header in front.

    Raises:
        BadSample: it holds characters that are no text.
    """
    text = reply.replace("\r\n", "\n").replace("\r", "\n")
    return _HEADER.sub("", readable(text), count=1).strip()


def readable(text: str) -> str:
    """The text itself.

    Raises:
        BadSample: it holds control characters or halves of characters, which no table can keep.
    """
    if _UNREADABLE.search(text):
        raise BadSample("it held characters that are no text")
    return text


def printable(text: str) -> str:
    """A reply that is no sample, as it can be kept for people to look at."""
    return _UNREADABLE.sub("\ufffd", text[:MAX_REPLY_CHARS]).strip()


def clean_text(text: str) -> str:
    r"""A message without its `Query-1:` prefix, label column, enclosing quotes and written-out `\n`.

    Raises:
        BadSample: it is several messages, or holds marks of a chat template.
    """
    text = _LABEL.sub("", text.strip())
    if len(_PREFIX.findall(text)) > 1:
        raise BadSample("it held several samples")
    return without_markers(clean_sample(unquoted(clean_sample(text))))


def unquoted(text: str) -> str:
    """A text without the one pair of quotation marks around all of it."""
    closing = _QUOTES.get(text[:1])
    return text[1:-1].strip() if closing and len(text) > 1 and text[-1] in (closing, '"') else text


def without_markers(text: str) -> str:
    """The text itself.

    Raises:
        BadSample: it holds marks of a chat template, which a tokenizer would read as such.
    """
    if _MARKER.search(readable(text)):
        raise BadSample("it held marks of a chat template")
    return text


def is_refusal(text: str) -> bool:
    """Whether a text turns the request down in the usual words."""
    return _REFUSAL.match(text) is not None


def cut_back(text: str) -> str:
    """A text that broke off, up to the end of its last whole sentence or line; without one, as it is."""
    ends = [m.end() for m in re.finditer(r"[.!?](?=\s|$)|\n", text)]
    return text[: ends[-1]].strip() if ends else text


def find_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a reply is, bare or in one code fence; None where it begins with anything else.

    Raises:
        BadSample: it begins like an object and is none, names a field twice, or is followed by more.
    """
    body = text.strip()
    if fenced := _FENCED.fullmatch(body):
        body = fenced[1].strip()
    if not body.startswith("{"):
        return None
    try:
        # Line ends inside strings are left as they are by many models; everything else is held to the letter.
        value = json.loads(body, object_pairs_hook=_fields_once, strict=False)
    except (ValueError, RecursionError) as error:
        raise (error if isinstance(error, BadSample) else BadSample("it was not one JSON object")) from None
    return value if isinstance(value, dict) else None


def _fields_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise BadSample("it named a field twice")
    return dict(pairs)


def check_fields(found: Mapping[str, Any], wanted: Sequence[str]) -> None:
    """Exactly the wanted fields.

    Raises:
        BadSample: one is missing or unknown.
    """
    if absent := [name for name in wanted if name not in found]:
        raise BadSample(f"`{absent[0]}` was missing")
    if len(found) > len(wanted):
        raise BadSample(f"it had fields beside {', '.join(wanted)}")


def read_text(found: Mapping[str, Any], name: str) -> str:
    """A field that is a text, not empty.

    Raises:
        BadSample: it is something else.
    """
    value = found.get(name)
    if not isinstance(value, str):
        raise BadSample(f"`{name}` was not a text")
    return filled(value.strip(), name)


def filled(text: str, name: str) -> str:
    """The text itself.

    Raises:
        BadSample: it is empty.
    """
    if not text:
        raise BadSample(f"`{name}` was empty")
    return text


def read_sections(text: str, labels: Sequence[str]) -> list[tuple[str, str]]:
    """Label and text of every labelled part, in the order they stand; a part reaches to the next label.

    Raises:
        BadSample: text stands before the first label, which belongs to no part.
    """
    names = "|".join(re.escape(label) for label in labels)
    marks = list(re.finditer(rf"^[ \t]*(?:\*\*)?({names})(?:\*\*)?[ \t]*:(?:\*\*)?[ \t]*", text, re.I | re.M))
    if not marks:
        raise BadSample(f"`{labels[0]}:` was missing")
    if text[: marks[0].start()].strip():
        raise BadSample(f"it had text before `{marks[0][1].capitalize()}:`")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    known = {label.lower(): label for label in labels}
    return [(known[m[1].lower()], text[m.end() : end].strip()) for m, end in zip(marks, ends)]


def read_once(text: str, labels: Sequence[str]) -> dict[str, str]:
    """Labelled parts that each stand there once, in this order, none empty.

    Raises:
        BadSample: one is missing, repeated, empty or out of order.
    """
    sections = read_sections(text, labels)
    for label in labels:
        n = sum(found == label for found, _ in sections)
        if n != 1:
            raise BadSample(f"`{label}:` was missing" if n == 0 else f"`{label}:` stood there more than once")
    if [found for found, _ in sections] != list(labels):
        raise BadSample(f"its parts did not follow the order {', '.join(labels)}")
    return {label: filled(part, label) for label, part in sections}


def object_schema(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema of an object whose fields are all required, in this order."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def text_schema(description: str) -> dict[str, Any]:
    """A JSON schema of a text."""
    return {"type": "string", "description": description}
