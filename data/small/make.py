"""Writes `messages.jsonl`: short user messages on ten everyday themes, from the sentence parts beside this file.

    python data/small/make.py

Every sentence in `parts/` was written by hand for this project. `[a|b]` in one offers alternatives, `{slot}` takes one
value a message. A message joins a few sentences. Parts are dealt like cards, so all are used about equally often. The
same parts always give the same file.
"""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).resolve().parent
THEMES = (
    "astronomy", "cooking", "gardening", "history", "money", "music", "pets", "programming", "sports", "travel",
)  # fmt: skip
LABELLED = ("astronomy", "gardening", "music")
"""Themes whose messages carry the label 1; the seed set of the example is drawn from the others."""
MESSAGES_PER_THEME = 150
MIN_WORDS, MAX_WORDS = 8, 60
PATTERNS = (
    ("question",),
    ("situation", "question"),
    ("opening", "question"),
    ("question", "detail", "closing"),
    ("situation", "detail", "question"),
    ("situation", "question", "detail"),
    ("opening", "situation", "question"),
    ("situation", "question", "closing"),
    ("situation", "detail", "question", "detail"),
    ("opening", "situation", "detail", "question", "closing"),
)
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")

T = TypeVar("T")
Deal = Callable[[], str]


def make_messages(rng_seed: int = 0) -> list[dict[str, str]]:
    """All messages in their final order, as rows of `messages.jsonl`."""
    rng = random.Random(rng_seed)
    shared = _dealers(_parts("any")["sentences"], rng)
    rows = [row for theme in THEMES for row in _theme_rows(theme, shared, rng)]
    rng.shuffle(rows)
    return rows


def _theme_rows(theme: str, shared: Mapping[str, Deal], rng: random.Random) -> Iterator[dict[str, str]]:
    parts = _parts(theme)
    deal = {**shared, **_dealers(parts["sentences"], rng)}
    slots = _dealers(parts["slots"], rng)
    next_pattern = _dealer(PATTERNS, rng)
    seen: set[str] = set()
    while len(seen) < MESSAGES_PER_THEME:
        text = _fill(_choose(" ".join(deal[kind]() for kind in next_pattern()), rng), slots)
        if text in seen or not MIN_WORDS <= len(text.split()) <= MAX_WORDS:
            continue
        seen.add(text)
        label = "1" if theme in LABELLED else "0"
        yield {"id": f"{theme}-{len(seen):03d}", "text": text, "theme": theme, "label": label}


def _choose(text: str, rng: random.Random) -> str:
    """One of the alternatives of every `[a|b]`."""
    return _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)


def _fill(text: str, slots: Mapping[str, Deal]) -> str:
    values = {name: slots[name]() for name in dict.fromkeys(_SLOT.findall(text))}
    filled = _SLOT.sub(lambda match: values[match[1]], text)
    return filled[0].upper() + filled[1:]


def _parts(name: str) -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((HERE / "parts" / f"{name}.toml").read_text(encoding="utf-8"))


def _dealers(lists: Mapping[str, Sequence[str]], rng: random.Random) -> dict[str, Deal]:
    return {name: _dealer(values, rng) for name, values in lists.items()}


def _dealer(values: Sequence[T], rng: random.Random) -> Callable[[], T]:
    """Deals all values in random order, then shuffles and deals them again."""
    hand: list[T] = []

    def deal() -> T:
        if not hand:
            hand.extend(values)
            rng.shuffle(hand)
        return hand.pop()

    return deal


def main() -> None:
    """Write the file."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in make_messages()]
    (HERE / "messages.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
