"""A feature's activations over texts as a picture that a hovered token can be marked on.

What is drawn is worked out here, as places between 0 and 1 and finished words; the browser only puts them down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from facviz.views.format import count, number, short
from facviz.views.palette import Mode, blend, palette

N_TICKS = 5
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Texts by their highest activation."""

    edges: Sequence[float]
    counts: Sequence[int]
    n_docs: int


@dataclass(frozen=True, slots=True)
class Marked:
    """A value that stands on the picture all the time."""

    value: float
    words: str
    is_own: bool = False  # the reader's own text, drawn solid in the colour of heat


def picture(found: Histogram | None, mode: Mode, marks: Sequence[Marked] = ()) -> dict[str, Any]:
    """Everything the component draws, JSON-ready; bars that end below the first mark (δ) are pale."""
    colours = palette(mode)
    edges, counts = (list(found.edges), list(found.counts)) if found else ([], [])
    top = max([*edges, *(mark.value for mark in marks)], default=0.0) or 1.0
    delta = next((mark.value for mark in marks if not mark.is_own), None)
    tallest = _height(max(counts, default=0), 1.0)
    pale = blend(colours.covered, 0.4, colours.paper)
    bars = [
        {
            "x": low / top,
            "width": (high - low) / top,
            "height": _height(n, tallest),
            "colour": pale if delta is not None and high <= delta else colours.covered,
            "title": f"activation {number(low)} to {number(high)}: {count(n)} texts",
        }
        for (low, high), n in zip(pairwise(edges), counts)
        if n
    ]
    lines = [
        {
            "x": mark.value / top,
            "words": short(mark.words, 40),
            "colour": colours.heat if mark.is_own else colours.ink,
            "solid": mark.is_own,
        }
        for mark in marks
    ]
    names = ("ink", "muted", "hairline", "paper", "heat", "surface")
    return {
        "top": top,
        "bars": bars,
        "lines": lines,
        "x_ticks": [{"x": tick / top, "words": words} for tick, words in zip(ticks(top), tick_words(ticks(top)))],
        "y_ticks": [{"y": _height(n, tallest), "words": count(n)} for n in _decades(max(counts, default=0))],
        "x_title": "activation of the feature",
        "y_title": "texts (log scale)",
        "hint": "Point at a token to mark it here." if bars else "",
        "alt": _alt(found, marks),
        "colours": {name: getattr(colours, name) for name in names},
    }


def ticks(top: float) -> list[float]:
    """At most `N_TICKS` + 1 round numbers from 0 to `top`."""
    if not top > 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(top / N_TICKS))
    step = next(power * s for s in _STEPS if power * s * N_TICKS >= top * 0.999)
    return [step * i for i in range(int(top / step + 1e-9) + 1)]


def tick_words(found: Sequence[float]) -> list[str]:
    """The ticks with as many decimals as their step needs."""
    step = found[1] if len(found) > 1 else 1.0
    decimals = next((n for n in range(9) if abs(round(step, n) - step) < 1e-9 * step), 9)
    return [f"{tick:,.{decimals}f}" if tick else "0" for tick in found]


def _decades(most: int) -> list[int]:
    return [10**i for i in range(len(str(most)))] if most > 0 else []


def _height(n: int, tallest: float) -> float:
    """On a log scale on which a single text is still seen; `tallest` makes it a share."""
    return math.log10(1.6 * n) / tallest if n > 0 else 0.0


def _alt(found: Histogram | None, marks: Sequence[Marked]) -> str:
    if found is None:
        return "The feature fires on none of these texts."
    said = "".join(f" {mark.words}." for mark in marks)
    return f"Histogram of the highest activation in each of {count(found.n_docs)} texts.{said}"
