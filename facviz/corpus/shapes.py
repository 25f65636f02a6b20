"""From one row to documents. Only the shapes `transcript` and `chosen_rejected` read speaker markers inside a text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from facviz.corpus.fields import FieldMapping
from facviz.corpus.transcript import has_markers, parse_transcript, starts_with_marker
from facviz.corpus.wording import clean_text, quote_name
from facviz.records import CONTENT_SEPARATOR, Document, Message

MAX_TEXT_CHARS = 1_000_000

_ROLES = {
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant",
    "ai": "assistant", "system": "system", "text": "text",
}  # fmt: skip
ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value", "text")

Turns = tuple[Message, ...]


class RowError(Exception):
    """A row cannot become a document; the message is the reason under which it is counted."""


def build_documents(row: Mapping[str, Any], mapping: FieldMapping) -> list[Document]:
    """One document, or two for chosen and rejected.

    Raises:
        RowError: the row is dropped as a whole, with this reason.
    """
    if mapping.shape == "chosen_rejected":
        turns = [(_read_preference(row, mapping, field), field) for field in mapping.text_fields]
        return [Document(_check(messages), label) for messages, label in turns]
    return [Document(_check(_BUILDERS[mapping.shape](row, mapping)), _read_label(row, mapping.label_field))]


def to_role(name: object) -> str | None:
    """The role that a speaker's name stands for, in any letter case; None for an unknown one."""
    return _ROLES.get(name.strip().lower()) if isinstance(name, str) else None


def as_message_list(value: object) -> list[Mapping[str, Any]] | None:
    """The value as a non-empty list of message objects, also from a JSON string of one; None if it is none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or not value:
        return None
    return value if all(isinstance(m, Mapping) and any(k in m for k in ROLE_KEYS) for m in value) else None


def _read_plain(row: Mapping[str, Any], mapping: FieldMapping) -> Turns:
    role = _require_role(_require(row, mapping.role_field)) if mapping.role_field else mapping.text_role
    return (Message(role, _read_text(row, mapping.text_fields[0])),)


def _read_messages(row: Mapping[str, Any], mapping: FieldMapping) -> Turns:
    field = mapping.text_fields[0]
    messages = as_message_list(_require(row, field))
    if messages is None:
        raise RowError(f"field {quote_name(field)} is not a list of messages")
    return tuple(_read_message(m) for m in messages)


def _read_transcript(row: Mapping[str, Any], mapping: FieldMapping) -> Turns:
    return parse_transcript(_read_text(row, mapping.text_fields[0]))


def _read_prompt_completion(row: Mapping[str, Any], mapping: FieldMapping) -> Turns:
    prompt = _read_prompt(row, mapping.prompt_fields)
    return _continue(prompt, _read_turns(row, mapping.text_fields[0], role="assistant"))


def _read_alpaca(row: Mapping[str, Any], mapping: FieldMapping) -> Turns:
    """A row without an answer is its user turn alone: there is no reply to keep, and the question is one."""
    for field in (mapping.prompt_fields[0], mapping.text_fields[0]):
        if field not in row:
            raise RowError(f"missing field {quote_name(field)}")
    prompt = [text for field in mapping.prompt_fields if (text := _read_if_given(row, field))]
    if not prompt:
        raise RowError("no instruction and no input")
    system = _read_if_given(row, mapping.system_field) if mapping.system_field else ""
    output = _read_if_given(row, mapping.text_fields[0])
    turns = (("system", system), ("user", CONTENT_SEPARATOR.join(prompt)), ("assistant", output))
    return tuple(Message(role, content) for role, content in turns if content)


_BUILDERS: dict[str, Callable[[Mapping[str, Any], FieldMapping], Turns]] = {
    "text": _read_plain,
    "messages": _read_messages,
    "transcript": _read_transcript,
    "prompt_completion": _read_prompt_completion,
    "alpaca": _read_alpaca,
}


def _read_preference(row: Mapping[str, Any], mapping: FieldMapping, field: str) -> Turns:
    prompt = _read_prompt(row, mapping.prompt_fields) if mapping.prompt_fields else ()
    if isinstance(_require(row, field), str):
        text = _read_text(row, field)
        # After a prompt, a reply that quotes a dialogue further down is still one reply.
        if starts_with_marker(text) or (not prompt and has_markers(text)):
            return _continue(prompt, parse_transcript(text))
    return _continue(prompt, _read_turns(row, field, role="assistant"))


def _continue(prompt: Turns, turns: Turns) -> Turns:
    """The prompt before the turns, unless they already begin with it, as many published pairs do."""
    return turns if turns[: len(prompt)] == prompt else prompt + turns


def _read_prompt(row: Mapping[str, Any], fields: tuple[str, ...]) -> Turns:
    first = _read_turns(row, fields[0], role="user")
    extra = [text for field in fields[1:] if (text := _read_if_given(row, field))]
    if not extra:
        return first
    *earlier, last = first
    return (*earlier, Message(last.role, CONTENT_SEPARATOR.join([last.content, *extra])))


def _read_turns(row: Mapping[str, Any], field: str, role: str) -> Turns:
    """A field that is either one text, spoken by `role`, or a list of messages."""
    value = _require(row, field)
    messages = as_message_list(value) if isinstance(value, list) else None
    if messages is not None:
        return tuple(_read_message(m) for m in messages)
    return (Message(role, _read_text(row, field)),)


def _read_message(message: Mapping[str, Any]) -> Message:
    names = [message[key] for key in ROLE_KEYS if message.get(key) is not None]
    content = next((message[key] for key in CONTENT_KEYS if message.get(key) is not None), None)
    if not names:
        raise RowError("a message without a speaker")
    role = _require_role(names[0])
    if any(to_role(name) not in (None, role) for name in names[1:]):
        raise RowError("a message with two speakers")
    if not isinstance(content, str):
        raise RowError("a message without text content")
    return Message(role, clean_text(content))


def _require_role(name: object) -> str:
    role = to_role(name)
    if role is None:
        raise RowError(f"unknown role {quote_name(str(name))}")
    return role


def _require(row: Mapping[str, Any], field: str) -> object:
    if row.get(field) is None:
        raise RowError(f"missing field {quote_name(field)}")
    return row[field]


def _read_text(row: Mapping[str, Any], field: str) -> str:
    value = _require(row, field)
    if not isinstance(value, str):
        raise RowError(f"field {quote_name(field)} is not text")
    return clean_text(value)


def _read_if_given(row: Mapping[str, Any], field: str) -> str:
    """The text of a field that may be absent; empty also for white space alone."""
    text = _read_text(row, field) if row.get(field) is not None else ""
    return text if text.strip() else ""


def _read_label(row: Mapping[str, Any], field: str | None) -> str | None:
    """Labels are strings: `True` and `1.0` become "1"; null, NaN and the empty string are no label."""
    value = row.get(field) if field else None
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if isinstance(value, (int, float)):
        return str(value)
    raise RowError(f"label {quote_name(str(field))} is not a single value")


def _check(messages: Turns) -> Turns:
    if not any(m.content.strip() for m in messages):
        raise RowError("empty text")
    if sum(len(m.content) for m in messages) > MAX_TEXT_CHARS:
        raise RowError("too long")
    if any("\0" in m.content for m in messages):
        raise RowError("text holds a NUL character")
    return messages
