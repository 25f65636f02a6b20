"""Items of one large JSON list, decoded one at a time so that memory does not grow with the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from facviz.corpus.wording import quote_name
from facviz.errors import InputError

MAX_ITEM_CHARS = 32_000_000
_CHUNK_CHARS = 1 << 16
_WHITESPACE = " \t\r\n"
_LOOKAHEAD_CHARS = 3
"""A number cut by the end of a chunk decodes too early: `1` of `1e+5` is certain only with three characters more."""


def read_json_items(stream: TextIO, file_name: str) -> Iterator[Any]:
    """Items of a top-level list, or of the one list of objects inside a top-level object.

    Raises:
        InputError: the file is not JSON, or holds no such list, or several.
    """
    cursor = _Cursor(stream, file_name)
    opening = cursor.peek()
    if opening == "[":
        cursor.take("[")
        yield from _read_items(cursor)
    elif opening == "{":
        yield from _read_wrapped(cursor)
    elif opening:
        raise cursor.not_a_list()
    if cursor.peek():
        raise cursor.not_a_list()


def _read_items(cursor: _Cursor) -> Iterator[Any]:
    """Items up to the closing bracket; the opening one is already taken."""
    if cursor.peek() == "]":
        cursor.take("]")
        return
    while True:
        yield cursor.value()
        if cursor.take(",]") == "]":
            return


def _read_wrapped(cursor: _Cursor) -> Iterator[Any]:
    cursor.take("{")
    row_lists: list[str] = []
    while cursor.peek() != "}":
        key = cursor.value()
        cursor.take(":")
        if cursor.peek() != "[":
            cursor.value()
        else:
            cursor.take("[")
            holds_rows = cursor.peek() == "{"
            row_lists += [str(key)] * holds_rows
            if len(row_lists) > 1:
                names = " and ".join(quote_name(name) for name in row_lists)
                raise InputError(
                    f"{cursor.file_name} holds several lists of objects ({names}); give one file for each."
                )
            yield from (item for item in _read_items(cursor) if holds_rows)
        if cursor.take(",}") == "}":
            break
    if not row_lists:
        raise cursor.not_a_list()


class _Cursor:
    """A position in a JSON text of which only the part being decoded is in memory."""

    def __init__(self, stream: TextIO, file_name: str) -> None:
        self.file_name = file_name
        self._stream = stream
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._at = 0
        self._n_dropped = 0
        self._is_complete = False

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _WHITESPACE:
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if self._is_complete:
                return ""
            self._grow()

    def take(self, expected: str) -> str:
        """The next character, which must be one of `expected`."""
        char = self.peek()
        if not char or char not in expected:
            raise self._invalid()
        self._at += 1
        return char

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except (ValueError, RecursionError):
                if self._is_complete or len(self._buffer) - self._at > MAX_ITEM_CHARS:
                    raise self._invalid() from None
            else:
                if end + _LOOKAHEAD_CHARS <= len(self._buffer) or self._is_complete:
                    self._at = end
                    return value
            self._grow()

    def _grow(self) -> None:
        pending = self._buffer[self._at :]
        self._n_dropped += self._at
        # Doubling keeps the repeated decoding of one long item linear.
        chunk = self._stream.read(max(_CHUNK_CHARS, len(pending)))
        self._is_complete = not chunk
        self._buffer, self._at = pending + chunk, 0

    def _invalid(self) -> InputError:
        where = self._n_dropped + self._at + 1
        return InputError(f"{self.file_name} is not valid JSON in the value at character {where:,}; repair the file.")

    def not_a_list(self) -> InputError:
        return InputError(
            f"{self.file_name} must hold one list of objects, or one object with one such list;"
            " name a file with one object a line .jsonl instead."
        )
