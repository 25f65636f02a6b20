"""Where each message's content stands in a rendered chat template, learnt by rendering, never by a constant.

Each structure of roles is rendered once with sentinels for contents; what stands between them is template text. The
real rendering must then be exactly that text around the contents, so nothing a content says can mislead the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from facviz.backbone.quiet import one_line
from facviz.errors import BackboneError
from facviz.records import CONTENT_SEPARATOR, RAW_TEXT_ROLE, Document, Message

DATE = "26 Jul 2024"
"""Llama templates print today's date unless they are given one; results must not depend on the day."""


class Slot(NamedTuple):
    """A content inside the rendered text; it begins at `doc_start` of `Document.text`, None for an added prompt."""

    start: int
    end: int
    doc_start: int | None
    role: str


class Rendered(NamedTuple):
    """What the model reads, and the contents in it from left to right."""

    text: str
    slots: tuple[Slot, ...]


class _Turn(NamedTuple):
    message: Message
    doc_start: int | None


@dataclass(frozen=True, slots=True)
class _Layout:
    """`pieces[i]` stands before the content of turn `order[i]`; the last piece ends the text."""

    pieces: tuple[str, ...]
    order: tuple[int, ...]

    def find(self, text: str, turns: Sequence[_Turn]) -> tuple[Slot, ...] | None:
        """Where the contents stand in `text`; None unless it is exactly the pieces around them."""
        return _fit(text, self.pieces, [turns[i] for i in self.order])


class ChatTemplate:
    """The chat template of one tokenizer with one system prompt (None keeps the template's default)."""

    def __init__(self, tokenizer: Any, system_prompt: str | None) -> None:
        self._tokenizer = tokenizer
        self._system_prompt = system_prompt
        self._layouts: dict[tuple[Message, ...], _Layout] = {}

    def render(self, document: Document) -> Rendered:
        """The document as the model reads it; `text` documents stay as they are."""
        turns = _turns_of(document.messages)
        n_raw = sum(m.role == RAW_TEXT_ROLE for m in document.messages)
        if n_raw == len(turns):
            return Rendered(document.text, tuple(_slot(t, t.doc_start or 0, t.message.content) for t in turns))
        if n_raw:
            raise BackboneError("A document mixes raw `text` with chat roles; make them documents of their own.")
        turns = self._with_system_prompt(turns)
        text = self._apply([t.message for t in turns])
        return Rendered(text, self._place(text, turns))

    def generation_prompt(self, messages: Sequence[Message]) -> str:
        """The conversation up to where the assistant's reply begins."""
        turns = self._with_system_prompt(_turns_of(messages))
        return self._apply([t.message for t in turns], generate=True)

    def query_prompt(self, messages: Sequence[Message]) -> str:
        """The conversation up to where the user's next message begins: a chat model continues it with a query."""
        turns = self._with_system_prompt(_turns_of(messages))
        query = _with_sentinel(Message("user", "?"), len(turns))
        before, _, _ = self._apply([*(t.message for t in turns), query]).rpartition(query.content)
        return before

    def _with_system_prompt(self, turns: list[_Turn]) -> list[_Turn]:
        if self._system_prompt is None or (turns and turns[0].message.role == "system"):
            return turns
        return [_Turn(Message("system", self._system_prompt), None), *turns]

    def _place(self, text: str, turns: list[_Turn]) -> tuple[Slot, ...]:
        structure = tuple(_with_sentinel(t.message, i) for i, t in enumerate(turns))
        known = self._layouts.get(structure)
        slots = known.find(text, turns) if known else None
        if slots is None:  # new, or a template that prints the date has seen midnight
            self._layouts[structure] = layout = self._learn(structure)
            slots = layout.find(text, turns)
        if slots is None:
            raise BackboneError(
                "The chat template rewrites the contents of a document, so its content tokens cannot be told apart; "
                "give such texts the role `text`, or choose another backbone."
            )
        return slots

    def _learn(self, structure: Sequence[Message]) -> _Layout:
        text = self._apply(structure)
        found: list[tuple[int, int]] = []
        for i, message in enumerate(structure):
            if not message.content.strip():
                continue
            if text.count(message.content) != 1:
                raise BackboneError(
                    f"The chat template does not show a {message.role} message exactly once; leave that role out, or "
                    "choose a backbone whose template knows it."
                )
            found.append((text.index(message.content), i))
        found.sort()
        pieces, end = [], 0
        for start, i in found:
            pieces.append(text[end:start])
            end = start + len(structure[i].content)
        return _Layout((*pieces, text[end:]), tuple(i for _, i in found))

    def _apply(self, messages: Sequence[Message], *, generate: bool = False) -> str:
        if not self._tokenizer.chat_template:
            raise BackboneError(
                "This backbone has no chat template; give the texts the role `text`, or take a chat model."
            )
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=generate, date_string=DATE
                )
            )
        except Exception as error:  # whatever Jinja or the template itself raises
            roles = ", ".join(m.role for m in messages) or "none"
            raise BackboneError(
                f"The chat template refuses the turns {roles} ({one_line(error)}); leave out the system prompt, "
                "change the roles, or give the texts the role `text`."
            ) from error


def _turns_of(messages: Sequence[Message]) -> list[_Turn]:
    turns, start = [], 0
    for message in messages:
        turns.append(_Turn(message, start))
        start += len(message.content) + len(CONTENT_SEPARATOR)
    return turns


def _with_sentinel(message: Message, i: int) -> Message:
    """Blank contents stay: templates treat them in ways of their own, and there is nothing to find."""
    return Message(message.role, f"Qz{i}facviz{i}zQ") if message.content.strip() else message


def _slot(turn: _Turn, start: int, shown: str) -> Slot:
    """`shown` is the content with or without its outer white space."""
    doc_start = None if turn.doc_start is None else turn.doc_start + turn.message.content.index(shown)
    return Slot(start, start + len(shown), doc_start, turn.message.role)


def _shown_forms(content: str) -> list[str]:
    """The content as templates show it: whole or stripped of white space or line breaks at either end."""
    forms = [content, content.strip(), content.lstrip(), content.rstrip()]
    forms += [content.strip("\n"), content.lstrip("\n"), content.rstrip("\n")]
    return list(dict.fromkeys(forms))


def _fit(text: str, pieces: Sequence[str], turns: Sequence[_Turn], at: int = 0) -> tuple[Slot, ...] | None:
    """Slots such that pieces and shown contents, in turn, are exactly `text[at:]`."""
    if not text.startswith(pieces[0], at):
        return None
    at += len(pieces[0])
    if not turns:
        return () if at == len(text) else None
    for shown in _shown_forms(turns[0].message.content):
        if text.startswith(shown, at):
            rest = _fit(text, pieces[1:], turns[1:], at + len(shown))
            if rest is not None:
                return (_slot(turns[0], at, shown), *rest)
    return None
