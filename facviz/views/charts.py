"""Every chart as a Plotly figure: no titles, numbers formatted, names beside the data instead of a legend.

Show a figure with `theme=None`, or Streamlit lays its own template over this one. Text that comes from data passes
`plain`: Plotly reads a small HTML and TeX in every label.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from facviz.errors import InputError
from facviz.records import Floats
from facviz.views.format import Real, count, interval_percent, number, percent
from facviz.views.palette import Mode, Palette, blend, ink_on, palette
from facviz.views.plot import CONFIG as CONFIG
from facviz.views.plot import (
    HATCH,
    add_bins,
    add_key,
    add_line,
    add_vertical,
    label_ends,
    lines,
    new_figure,
    outline,
    per_cent_of_power,
    share_axis,
    with_intervals,
)
from facviz.views.plot import plain as plain
from facviz.views.plot import template as template

ThemeState = Literal["missing", "exhausted", "filled", "covered"]
CellState = Literal["missing", "waiting", "filled", "exhausted", "refused", "budget"]

MAX_THEMES = 20
MAX_DIRECT_LABELS = 4
MAX_POINTS = 1000
BINS_PER_DECADE = 5
PANELS = {"loss": "loss", "fvu": "FVU", "l0": "L0, features per token", "n_dead": "dead features"}
"""The training curves that have a panel, in order, with the panel's label."""

_THEME_STATES: tuple[ThemeState, ...] = ("missing", "exhausted", "filled", "covered")
_GRID_PX = 600


@dataclass(frozen=True, slots=True)
class ThemeShare:
    """How the anchor set's features of one theme are split, in features."""

    theme: str
    covered: int
    missing: int
    filled: int = 0
    exhausted: int = 0

    @property
    def gap(self) -> int:
        """Features the seed set misses, filled since or not."""
        return self.missing + self.filled + self.exhausted


@dataclass(frozen=True, slots=True)
class Curve:
    """FAC of growing samples of one set; `low` and `high` bound it where an interval was measured."""

    name: str
    sizes: Sequence[float]
    fac: Sequence[float]
    meaning: Literal["seed", "anchor", "generated"]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """One missing feature: where synthesis stands with it and what it responds to."""

    feature_id: int
    state: CellState
    label: str


@dataclass(frozen=True, slots=True)
class _Mark:
    """How a cell's state looks; `look` names its colour, `symbol`, `sign` and `key` (for the totals) do without."""

    look: Literal["missing", "filled", "exhausted"]
    words: str
    key: str
    sign: str = ""
    symbol: str = "square"
    opacity: float = 1.0

    def shade(self, colours: Palette) -> str:
        """The square's colour."""
        return blend(getattr(colours, self.look), self.opacity, colours.paper)


_MARKS: dict[CellState, _Mark] = {
    "missing": _Mark("missing", "missing", "■"),
    "waiting": _Mark("missing", "waiting", "⊡", "•", opacity=0.3),
    "filled": _Mark("filled", "filled", "☑", "✓"),
    "exhausted": _Mark("exhausted", "exhausted", "☒", symbol="square-x"),
    "refused": _Mark("exhausted", "refused", "⊞", symbol="square-cross"),
    "budget": _Mark("missing", "budget ended", "⊟", "–", opacity=0.3),
}


def coverage_by_theme(rows: Sequence[ThemeShare], mode: Mode) -> go.Figure:
    """Stacked bars in features, biggest gap on top; beyond 20 themes the smallest gaps are summed in the last bar."""
    shown, colours = _fold(sorted(rows, key=lambda row: (-row.gap, row.theme))), palette(mode)
    figure = new_figure(mode, 106 + 34 * max(1, len(shown)))
    for state in _THEME_STATES:
        figure.add_bar(**_theme_bars(shown, state, colours))
    totals = {state: sum(getattr(row, state) for row in shown) for state in _THEME_STATES}
    signs = {state: "▨" if state == "exhausted" else "■" for state in totals}
    add_key(figure, [(getattr(colours, s), signs[s], f"{count(n)} {s}") for s, n in totals.items() if n])
    figure.update_layout(barmode="stack", uniformtext={"mode": "hide", "minsize": 11})
    figure.update_xaxes(title_text="features of the anchor set", rangemode="tozero", tickformat=",")
    names = [plain(row.theme, 40) for row in shown]
    figure.update_yaxes(tickvals=list(range(len(shown))), ticktext=names, showgrid=False, ticklabelstandoff=6)
    return figure.update_yaxes(range=[max(1, len(shown)) - 0.5, -0.5])


def fac_over_threshold(
    points: Sequence[tuple[float, float]],
    current: float,
    mode: Mode,
    *,
    low: Sequence[float] = (),
    high: Sequence[float] = (),
    unit: Literal["× p95", "activation"] = "× p95",
) -> go.Figure:
    """FAC against the activation threshold, with the current threshold as a labelled line."""
    figure, colours = new_figure(mode, 300), palette(mode)
    thresholds, fac = [x for x, _ in points], [y for _, y in points]
    add_line(figure, thresholds, fac, colours.seed, low, high)
    hover = [f"δ {number(x)} {unit}<br>FAC {text}" for x, text in zip(thresholds, with_intervals(fac, low, high))]
    figure.data[-1].update(hovertext=hover, hoverinfo="text", mode="lines+markers")
    here = "".join(f" · FAC {percent(y)}" for x, y in points if x == current)
    add_vertical(figure, current, f"δ {number(current)} {unit}{here}", colours.ink, [*thresholds, current])
    figure.update_xaxes(title_text=f"activation threshold δ ({unit})")
    return share_axis(figure, "y", "FAC of the seed set")


def fac_over_documents(curves: Sequence[Curve], mode: Mode, *, x_title: str = "documents drawn") -> go.Figure:
    """FAC of growing samples, one line a set, named at its end (in a legend beyond four)."""
    figure, direct = new_figure(mode, 320), len(curves) <= MAX_DIRECT_LABELS
    for curve in curves:
        add_line(figure, curve.sizes, curve.fac, getattr(palette(mode), curve.meaning), curve.low, curve.high)
        figure.data[-1].update(
            name=plain(curve.name, 40), hovertext=_curve_hover(curve, x_title), hoverinfo="text", showlegend=not direct
        )
    if direct:
        drawn = [curve for curve in curves if len(curve.sizes)]
        label_ends(figure, [(c.sizes[-1], c.fac[-1], c.name, getattr(palette(mode), c.meaning)) for c in drawn])
    figure.update_layout(showlegend=not direct)
    figure.update_xaxes(title_text=plain(x_title), tickformat=",")
    return share_axis(figure, "y", "FAC")


def training_curves(steps: Sequence[int], series: Mapping[str, Sequence[Real]], mode: Mode) -> go.Figure:
    """One thin panel a curve (`PANELS` names them) over the same steps, with its latest value.

    Raises:
        InputError: a curve has no panel or not one value for each step.
    """
    for name, values in series.items():
        if name not in PANELS or len(values) != len(steps):
            raise InputError(f"The curve {name!r} cannot be drawn; give one of {', '.join(PANELS)}, a value a step.")
    names, keep = [name for name in PANELS if name in series], _thin(len(steps))
    n_rows = max(1, len(names))
    figure = make_subplots(rows=n_rows, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    figure.layout.template = template(mode)
    figure.update_layout(height=64 + 104 * n_rows)
    for row, name in enumerate(names, start=1):
        _add_panel(figure, row, name, [steps[i] for i in keep], [series[name][i] for i in keep], mode)
    figure.update_xaxes(title_text="training step", row=n_rows, col=1)
    return figure.update_xaxes(tickformat=",")


def density_histogram(
    densities: Sequence[float] | Floats, mode: Mode, *, always_on_threshold: float = 0.1
) -> go.Figure:
    """Features by density on a log axis, binned here; dead and always-on features are outlines: shown, not counted."""
    figure, colours = new_figure(mode, 280), palette(mode)
    values = np.asarray(densities, dtype=np.float64)
    alive = values[values > 0]
    lowest = min(-1, math.floor(np.log10(alive.min()))) if len(alive) else -4
    edges = np.linspace(lowest, 0, -lowest * BINS_PER_DECADE + 1)
    is_always_on = alive > always_on_threshold
    _add_densities(figure, alive[~is_always_on], edges, colours)
    _add_densities(figure, alive[is_always_on], edges, colours, " · always on, not counted")
    outline(figure, colours)
    ticks = {float(power): per_cent_of_power(power) for power in range(0, lowest - 1, -1 - (lowest < -5))}
    if n_dead := int((values <= 0).sum()):
        add_bins(
            figure,
            [lowest - 0.6, lowest - 0.4],
            [n_dead],
            colours.covered,
            [f"{count(n_dead)} dead features, not counted"],
        )
        outline(figure, colours)
        ticks = {lowest - 0.5: "dead", **ticks}
    limit = f"always on beyond {percent(always_on_threshold)}"
    add_vertical(figure, math.log10(always_on_threshold), limit, colours.muted, edges)
    figure.update_xaxes(tickvals=list(ticks), ticktext=list(ticks.values()))
    figure.update_xaxes(title_text="share of content tokens on which a feature is active (log scale)")
    figure.update_yaxes(title_text="features", tickformat=",", rangemode="tozero")
    figure.update_layout(barmode="overlay")
    return figure


def before_after(
    fac_before: float,
    fac_after: float | None,
    mode: Mode,
    *,
    before_interval: tuple[float, float] | None = None,
    after_interval: tuple[float, float] | None = None,
) -> go.Figure:
    """FAC before and after as two dots on one slim axis of shares; without `fac_after` the first stands alone."""
    figure, colours = new_figure(mode, 136), palette(mode)
    ends = [("before", fac_before, before_interval, colours.seed)]
    ends += [("after", fac_after, after_interval, colours.filled)] if fac_after is not None else []
    line = {"color": colours.muted, "width": 2}
    figure.add_scatter(x=[x for _, x, _, _ in ends], y=[0] * len(ends), mode="lines", line=line, hoverinfo="skip")
    furthest = max(ends, key=lambda end: (end[1], end[0] == "after"))
    for end in ends:
        _add_end(figure, *end, side="right" if end is furthest else "left")
    share_axis(figure, "x", "FAC")
    figure.update_xaxes(range=[-0.22, 1.34])
    figure.update_yaxes(visible=False, range=[-1, 1.6])
    return figure


def gap_cells(cells: Sequence[Cell], mode: Mode, *, columns: int = 24) -> go.Figure:
    """One square a missing feature in the order given, coloured by state, on a grid 600 px wide; not to be stretched.

    A point's `customdata` is its feature_id, so that a selected cell names its feature. Of many cells the squares get
    smaller, so that the grid stays lower than wide.
    """
    columns = max(columns, math.ceil(math.sqrt(1.5 * len(cells))))
    n_rows, step, colours = max(1, math.ceil(len(cells) / columns)), _GRID_PX / columns, palette(mode)
    marks = [_MARKS[cell.state] for cell in cells]
    figure = new_figure(mode, round(n_rows * step) + 40)
    figure.update_layout(width=_GRID_PX + 16, margin={"l": 8, "r": 8, "t": 32, "b": 8})
    for mark in dict.fromkeys(marks):  # one colour for all squares of a state is checked once
        own = [i for i, found in enumerate(marks) if found is mark]
        figure.add_scatter(
            x=[i % columns for i in own],
            y=[i // columns for i in own],
            mode="markers+text" if step >= 14 and mark.sign else "markers",
            text=mark.sign,
            textfont={"color": ink_on(mark.shade(colours)), "size": max(8, round(step * 0.5))},
            marker=_cell_marker(mark, max(4, step - 4), colours),
            customdata=[cells[i].feature_id for i in own],
            hovertext=[f"feature {cells[i].feature_id} · {mark.words}<br>{lines(cells[i].label)}" for i in own],
            hoverinfo="text",
        )
    tally = Counter(marks)
    present = [mark for mark in _MARKS.values() if tally[mark]]
    add_key(figure, [(getattr(colours, m.look), m.key, f"{count(tally[m])} {m.words}") for m in present])
    figure.update_xaxes(visible=False, range=[-0.5, columns - 0.5])
    figure.update_yaxes(visible=False, range=[n_rows - 0.5, -0.5])
    return figure


def _fold(rows: list[ThemeShare]) -> list[ThemeShare]:
    """At most `MAX_THEMES` rows, the rest summed in the last."""
    if len(rows) <= MAX_THEMES:
        return rows
    kept, rest = rows[: MAX_THEMES - 1], rows[MAX_THEMES - 1 :]
    sums = {state: sum(getattr(row, state) for row in rest) for state in _THEME_STATES}
    return [*kept, ThemeShare(theme=f"{count(len(rest))} more themes", **sums)]


def _theme_bars(rows: Sequence[ThemeShare], state: ThemeState, colours: Palette) -> dict[str, Any]:
    colour = getattr(colours, state)
    numbers = [getattr(row, state) for row in rows]
    parts = [f"{count(n)} {state} of {count(row.covered + row.gap)}" for n, row in zip(numbers, rows)]
    return {
        "orientation": "h",
        "x": numbers,
        "y": list(range(len(rows))),
        "name": state,
        "text": [count(n) if n else "" for n in numbers],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "textfont": {"color": ink_on(colour)},
        "marker": {
            "color": colour,
            "line": {"color": colours.paper, "width": 1},
            "pattern": {**HATCH, "fgcolor": colours.paper, "bgcolor": colour} if state == "exhausted" else {},
        },
        "hovertext": [f"{plain(row.theme)}<br>{part}" for row, part in zip(rows, parts)],
        "hoverinfo": "text",
    }


def _curve_hover(curve: Curve, x_title: str) -> list[str]:
    shares = with_intervals(curve.fac, curve.low, curve.high)
    return [f"{plain(curve.name)}<br>{count(x)} {plain(x_title)}<br>FAC {y}" for x, y in zip(curve.sizes, shares)]


def _thin(n: int) -> list[int]:
    """At most `MAX_POINTS` of n positions, the first and the last among them."""
    kept: list[int] = np.linspace(0, n - 1, min(n, MAX_POINTS)).round().astype(int).tolist()
    return kept


def _add_panel(
    figure: go.Figure, row: int, name: str, steps: Sequence[int], values: Sequence[Real], mode: Mode
) -> None:
    colours, place = palette(mode), {"row": row, "col": 1}
    hover = [f"step {count(step)}<br>{PANELS[name]} {number(value)}" for step, value in zip(steps, values)]
    line = {"color": colours.anchor, "width": 2}
    figure.add_scatter(
        x=list(steps), y=list(values), mode="lines", line=line, hovertext=hover, hoverinfo="text", **place
    )
    text = f"{PANELS[name]} <b>{number(values[-1] if values else None)}</b>"
    above = {"xref": "x domain", "yref": "y domain", "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    figure.add_annotation(text=text, x=0, y=1, **above, **place)
    figure.update_yaxes(nticks=4, rangemode="normal" if name == "loss" else "tozero", **place)


def _add_densities(figure: go.Figure, densities: Floats, edges: Floats, colours: Palette, note: str = "") -> None:
    counts = np.histogram(np.log10(densities), edges)[0]
    names = [per_cent_of_power(round(float(edge), 9)) for edge in edges]
    hover = [
        f"active on {low} to {high} of tokens<br>{count(n)} features{note}"
        for (low, high), n in zip(pairwise(names), counts)
    ]
    add_bins(figure, edges, counts, colours.covered, hover)


def _add_end(
    figure: go.Figure, word: str, x: float, interval: tuple[float, float] | None, colour: str, *, side: str
) -> None:
    """One dot of the dumbbell with its label above and its interval behind."""
    if interval is not None:
        band = {"color": colour, "width": 10}
        figure.add_scatter(x=list(interval), y=[0, 0], mode="lines", line=band, opacity=0.3, hoverinfo="skip")
    figure.add_scatter(
        x=[x],
        y=[0],
        mode="markers+text",
        marker={"color": colour, "size": 14},
        text=[f"{word} {percent(x)}"],
        textposition=f"top {side}",
        hovertext=[f"FAC {word} {interval_percent(x, *(interval or (None, None)))}"],
        hoverinfo="text",
    )


def _cell_marker(mark: _Mark, side: float, colours: Palette) -> dict[str, Any]:
    """A square in its shade; a crossed one draws its cross in the colour of its line."""
    edge = getattr(colours, mark.look) if mark.symbol == "square" else colours.paper
    line = {"color": edge, "width": 1.5}
    return {"symbol": mark.symbol, "size": side, "color": mark.shade(colours), "opacity": 1, "line": line}
