"""A preference pair: one conversation, a better and a worse last reply. Measured is the conversation with the better.

Both share everything before the last reply, so that a reward model can only learn from the reply.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from facviz.overlap import normalised, words_of
from facviz.records import Document, Message
from facviz.synthesis.formats.base import Fields, Parsed, SampleFormat
from facviz.synthesis.formats.cleaning import (
    BadSample,
    check_fields,
    clean_text,
    filled,
    find_object,
    is_refusal,
    object_schema,
    read_sections,
    read_text,
    text_schema,
)

MAX_TURNS = 7
MAX_LENGTH_RATIO = 2.0
"""Words of the longer last reply over those of the shorter: length must not give the answer away."""
MIN_REPLY_WORDS = 4

_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"^[ \t]*(?:Human|User|Assistant)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_LAZY = re.compile(
    r"\A\W*(?:i (?:don(?:'|’)?t|do not) know|no idea|i(?:'|’)?d rather not|i have no (?:idea|opinion)|not sure)\b",
    re.IGNORECASE,
)

_TURNS = {
    "type": "array",
    "description": "Everything said before the last reply; the user speaks first and last.",
    "items": object_schema(role={"type": "string", "enum": ["user", "assistant"]}, content=text_schema("The turn.")),
}


@dataclass(frozen=True, slots=True)
class PreferencePair(SampleFormat):
    """Conversation, chosen and rejected reply."""

    name: ClassVar[str] = "preference_pair"
    schema: ClassVar[Mapping[str, Any]] = object_schema(
        conversation=_TURNS,
        chosen=text_schema("The better last reply of the assistant."),
        rejected=text_schema("A last reply of the same length and tone with one concrete flaw, never a refusal."),
    )
    labels: ClassVar[tuple[str, ...]] = ("Human", "Assistant", "Better", "Worse")
    words: ClassVar[tuple[int, int]] = (8, 600)
    max_tokens: ClassVar[int] = 256
    max_json_tokens: ClassVar[int] = 1600

    def layout(self, sample: Parsed) -> str:
        """Turns with their speakers, then both replies."""
        speakers = {role: speaker for speaker, role in _SPEAKERS.items()}
        turns = [f"{speakers[turn['role']]}: {turn['content']}" for turn in sample.fields["prompt"]]
        return "\n".join([*turns, f"Better: {sample.fields['chosen']}", f"Worse: {sample.fields['rejected']}"])

    def as_json(self, sample: Parsed) -> dict[str, Any]:
        """Conversation, chosen and rejected."""
        names = {"conversation": "prompt", "chosen": "chosen", "rejected": "rejected"}
        return {name: sample.fields[kept] for name, kept in names.items()}

    def _read(self, text: str) -> Parsed:
        found = find_object(text)
        if found is None:
            prompt, chosen, rejected = _from_layout(text)
        elif "conversation" in found:
            check_fields(found, ("conversation", "chosen", "rejected"))
            prompt = _turns(found["conversation"], "conversation")
            chosen, rejected = (clean_text(read_text(found, name)) for name in ("chosen", "rejected"))
        else:
            check_fields(found, ("chosen", "rejected"))
            prompt, chosen, rejected = _shared(*(_turns(found[name], name) for name in ("chosen", "rejected")))
        _check(prompt, chosen, rejected)
        turns = [{"role": m.role, "content": m.content} for m in prompt]
        return self._parsed({"prompt": turns, "chosen": chosen, "rejected": rejected})

    def _document(self, fields: Fields) -> Document:
        prompt = tuple(Message(turn["role"], turn["content"]) for turn in fields["prompt"])
        return Document((*prompt, Message("assistant", fields["chosen"])))


def _from_layout(text: str) -> tuple[list[Message], str, str]:
    sections = read_sections(text, PreferencePair.labels)
    names = [label for label, _ in sections]
    if names[-2:] != ["Better", "Worse"] or not set(names[:-2]) <= set(_SPEAKERS):
        raise BadSample("it was not a conversation followed by one `Better:` and one `Worse:`")
    prompt = [Message(_SPEAKERS[label], clean_text(part)) for label, part in sections[:-2]]
    chosen, rejected = (clean_text(part) for _, part in sections[-2:])
    return prompt, chosen, rejected


def _turns(value: Any, name: str) -> list[Message]:
    """A conversation as a list of turns, or as text whose lines begin with `Human:` and `Assistant:`."""
    if isinstance(value, str):
        sections = read_sections(value, tuple(_SPEAKERS))
        return [Message(_SPEAKERS[label], clean_text(part)) for label, part in sections]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise BadSample(f"`{name}` was not a list of turns")
    for turn in value:
        check_fields(turn, ("role", "content"))
        if turn["role"] not in ("user", "assistant"):
            raise BadSample("a turn was neither the user's nor the assistant's")
    return [Message(turn["role"], clean_text(read_text(turn, "content"))) for turn in value]


def _shared(chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[list[Message], str, str]:
    """What two whole conversations share, and how each ends."""
    if len(chosen) != len(rejected):
        raise BadSample("the two conversations had different numbers of turns")
    if not chosen or chosen[:-1] != rejected[:-1]:
        raise BadSample("the two conversations differed before the last reply")
    if not chosen[-1].role == rejected[-1].role == "assistant":
        raise BadSample("a conversation did not end with the assistant's reply")
    return list(chosen[:-1]), chosen[-1].content, rejected[-1].content


def _check(prompt: Sequence[Message], chosen: str, rejected: str) -> None:
    roles = [message.role for message in prompt]
    if not roles or roles != [("user", "assistant")[i % 2] for i in range(len(roles))] or roles[-1] != "user":
        raise BadSample("the conversation before the reply did not alternate from the user to the user")
    if len(roles) > MAX_TURNS:
        raise BadSample(f"the conversation had more than {MAX_TURNS} turns before the reply")
    for text in [*(message.content for message in prompt), chosen, rejected]:
        if _TURN.search(filled(text, "turn")):
            raise BadSample("a turn held further turns")
    if normalised(chosen) == normalised(rejected):
        raise BadSample("both replies were the same")
    if is_refusal(rejected) or _LAZY.match(rejected):
        raise BadSample("the worse reply was a lazy refusal")
    short, long = sorted(len(words_of(reply)) for reply in (chosen, rejected))
    if short < MIN_REPLY_WORDS:
        raise BadSample(f"a reply had fewer than {MIN_REPLY_WORDS} words")
    if long > MAX_LENGTH_RATIO * short:
        raise BadSample(f"one reply was more than {MAX_LENGTH_RATIO:g} times as long as the other")
