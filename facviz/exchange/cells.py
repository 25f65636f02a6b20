"""Cells that a spreadsheet would run as a formula, made harmless on the way out and restored on the way in."""

from __future__ import annotations

import re

_RISKY = re.compile(r"'*[=+\-@\t\r]")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")


def guard(text: str) -> str:
    """The cell behind an apostrophe where its first character could start a formula; `unguard` undoes exactly this.

    >>> guard("=1+1"), guard("a=b"), unguard(guard("'=1+1"))
    ("'=1+1", 'a=b', "'=1+1")
    """
    return f"'{text}" if _RISKY.match(text) else text


def unguard(text: str) -> str:
    """The cell as it was before `guard`; any other leading apostrophe stays."""
    return text[1:] if _GUARDED.match(text) else text
