"""Text as it is kept (newlines, lone surrogates) and as it is shown in one-line messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

EXCERPT_CHARS = 200
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_MAX_NAMES = 20


def clean_text(text: str) -> str:
    """The one normalisation at import: CRLF becomes LF, and a lone surrogate, which no encoding takes, U+FFFD."""
    return _LONE_SURROGATES.sub("\ufffd", text.replace("\r\n", "\n"))


def one_line(text: str, limit: int = EXCERPT_CHARS) -> str:
    """The beginning of `text` without line breaks, at most `limit` characters."""
    return " ".join(clean_text(text[: 2 * limit]).split())[:limit]


def excerpt_of(row: Mapping[str, Any]) -> str:
    """The beginning of a row as `field: value` pairs, at most 200 characters."""
    shown = ((name, value if isinstance(value, str) else repr(value)) for name, value in row.items())
    return one_line(", ".join(f"{name}: {value[:EXCERPT_CHARS]}" for name, value in shown))


def quote_name(name: str) -> str:
    """A field, role or file name in backticks, safe to print on one line."""
    return f"`{one_line(name, 60)}`"


def quote_names(names: Iterable[str]) -> str:
    """Up to 20 names in backticks, comma-separated."""
    quoted = [quote_name(n) for n in names]
    more = f" and {len(quoted) - _MAX_NAMES} more" if len(quoted) > _MAX_NAMES else ""
    return ", ".join(quoted[:_MAX_NAMES]) + more
