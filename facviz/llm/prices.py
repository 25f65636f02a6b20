"""What a call costs: a dated price table shipped with the program, and one the user may put before it.

Prices change, so each entry says from which day it holds and where it was read, and each ledger row names the entry it
was counted with. A model without an entry costs an unknown amount, never nothing.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from facviz.errors import InputError
from facviz.llm.adapter import Usage

PRICES_VARIABLE = "FACVIZ_PRICES"
_SHIPPED = Path(__file__).with_name("prices.toml")
_PER_TOKEN = 1e-6
_DATED_MODEL = re.compile(r"-\d{8}$|-\d{4}-\d{2}-\d{2}$")
_REQUIRED = ("provider", "model", "effective_from", "input", "output")


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens of one model from one day on.

    Where `long_prompt_tokens` is set, a request whose prompt is longer costs `long_factor` times as much, all of it.
    """

    provider: str
    model: str
    effective_from: dt.date
    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    long_prompt_tokens: int | None = None
    long_factor: float = 1.0
    source: str = ""
    origin: str = "facviz"

    @property
    def version(self) -> str:
        """Names the entry in the ledger: whose table, and since when."""
        return f"{self.origin}@{self.effective_from.isoformat()}"

    def cost_usd(self, usage: Usage) -> float:
        """Dollars for the tokens of one call; cached tokens at the input price where no other is known."""
        read = self.input if self.cache_read is None else self.cache_read
        write = self.input if self.cache_write is None else self.cache_write
        prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        is_long = self.long_prompt_tokens is not None and prompt > self.long_prompt_tokens
        dollars = (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_read_tokens * read
            + usage.cache_write_tokens * write
        )
        return dollars * _PER_TOKEN * (self.long_factor if is_long else 1.0)


class PriceTable:
    """Entries in order of authority: of two that fit a model, the earlier-listed origin wins."""

    def __init__(self, entries: list[Price]) -> None:
        self._entries = entries

    def find(self, provider: str, model: str, on: dt.date | None = None) -> Price | None:
        """The entry that holds on a day (today), or None when nobody priced this model; a date in its name is ignored.

        Before the first known day the oldest entry is used, so that a wrong clock does not make a price unknown.
        """
        on = on or dt.datetime.now(dt.UTC).date()
        for name in dict.fromkeys((model, _DATED_MODEL.sub("", model))):
            named = [e for e in self._entries if (e.provider, e.model) == (provider, name)]
            if named:
                first = [e for e in named if e.origin == named[0].origin]
                dated = sorted(first, key=lambda e: e.effective_from)
                return next((e for e in reversed(dated) if e.effective_from <= on), dated[0])
        return None


def load_prices(user_file: Path | None = None) -> PriceTable:
    """The user's entries (a file, or the one `FACVIZ_PRICES` names) before the shipped ones.

    Raises:
        InputError: the user's file cannot be read or an entry lacks a field.
    """
    named = os.environ.get(PRICES_VARIABLE)
    path = user_file or (Path(named).expanduser() if named else None)
    return PriceTable([*(_read(path, "user") if path else []), *_read(_SHIPPED, "facviz")])


def _read(path: Path, origin: str) -> list[Price]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The price table {path} cannot be read ({error}); correct {PRICES_VARIABLE}.") from error
    entries = raw.get("price")
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
        raise InputError(f"The price table {path} has no [[price]] entries; write one for each model.")
    return [_price(entry, origin, f"{path.name}: price {i + 1}") for i, entry in enumerate(entries)]


def _price(entry: Mapping[str, Any], origin: str, where: str) -> Price:
    missing = [name for name in _REQUIRED if name not in entry]
    if missing:
        raise InputError(f"{where} lacks `{missing[0]}`; add it.")
    known = {f.name for f in fields(Price)} - {"origin"}
    if unknown := sorted(set(entry) - known):
        raise InputError(f"{where}: unknown key `{unknown[0]}`; known keys: {', '.join(sorted(known))}.")
    for name, value in entry.items():
        if name in ("provider", "model", "source"):
            fits = isinstance(value, str)
        elif name == "effective_from":
            fits = type(value) is dt.date
        else:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
        if not fits:
            raise InputError(f"{where}: `{name}` cannot be {value!r}; give {_expected(name)}.")
    return Price(**entry, origin=origin)


def _expected(name: str) -> str:
    if name == "effective_from":
        return "a day such as 2026-11-01"
    return "a text" if name in ("provider", "model", "source") else "a number that is not negative"
