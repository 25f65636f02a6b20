"""What all charts share: the template of each mode and the few marks they are drawn with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from textwrap import wrap
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from facviz.records import Floats, Ints
from facviz.views.format import interval_percent, number, percent, short
from facviz.views.palette import Mode, Palette, palette

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
CLEAR = "rgba(0,0,0,0)"
CONFIG = {"displayModeBar": False}
"""What `st.plotly_chart(config=)` wants: no tool bar over the picture."""
HATCH = {"shape": "/", "size": 7, "solidity": 0.25}

_SHARES = (0, 0.2, 0.4, 0.6, 0.8, 1)
_HOVER_LINE_CHARS = 60


def plain(text: str, n: int = 200) -> str:
    """Text that Plotly shows as it stands: no tags, entities or TeX, control characters visible, at most `n` long."""
    return escape(short(text, n), quote=False).replace("$", "&#36;")


def lines(text: str, n: int = 240) -> str:
    """`plain` text of a hover box, broken into lines."""
    return "<br>".join(plain(line) for line in wrap(short(text, n), _HOVER_LINE_CHARS))


def template(mode: Mode) -> go.layout.Template:
    """Transparent ground, faint horizontal grid, no box, no legend, the system's sans font."""
    colours = palette(mode)
    font = {"family": FONT, "size": 13, "color": colours.ink}
    quiet = {"family": FONT, "size": 13, "color": colours.muted}
    axis = {
        "title": {"standoff": 8, "font": quiet},
        "tickfont": {**quiet, "size": 12},
        "linecolor": colours.hairline,
        "tickcolor": colours.hairline,
        "zeroline": False,
        "automargin": True,
    }
    return go.layout.Template(
        layout={
            "font": font,
            "paper_bgcolor": CLEAR,
            "plot_bgcolor": CLEAR,
            "showlegend": False,
            "legend": {"orientation": "h", "y": -0.3, "x": 0},
            "margin": {"l": 8, "r": 28, "t": 32, "b": 8},
            "hoverlabel": {"bgcolor": colours.surface, "bordercolor": colours.hairline, "font": font, "align": "left"},
            "xaxis": {**axis, "showgrid": False, "showline": True, "ticks": "outside"},
            "yaxis": {**axis, "showgrid": True, "gridcolor": colours.hairline},
            "bargap": 0.3,
            "dragmode": False,
        }
    )


def new_figure(mode: Mode, height: int) -> go.Figure:
    """An empty figure in the mode's template, `height` in pixels."""
    return go.Figure(layout={"template": template(mode), "height": height})


def add_key(figure: go.Figure, entries: Sequence[tuple[str, str, str]]) -> None:
    """One line above the picture of (colour, sign, text) entries, each behind its coloured sign."""
    squares = (f'<span style="color:{colour}">{sign}</span> {plain(text)}' for colour, sign, text in entries)
    _add_note(figure, x=0, y=1, text="&nbsp;&nbsp;&nbsp;".join(squares), xanchor="left", yshift=4)


def add_line(
    figure: go.Figure,
    x: Sequence[float],
    fac: Sequence[float],
    colour: str,
    low: Sequence[float] = (),
    high: Sequence[float] = (),
) -> None:
    """A line, which becomes the last trace, over the band between `low` and `high` in the same hue."""
    if len(low) and len(high):
        band = {"x": [*x, *reversed(x)], "y": [*high, *reversed(low)], "fill": "toself", "fillcolor": colour}
        figure.add_scatter(**band, mode="lines", line={"width": 0}, opacity=0.18, hoverinfo="skip", showlegend=False)
    figure.add_scatter(x=list(x), y=list(fac), mode="lines", line={"color": colour, "width": 2.5})


def with_intervals(fac: Sequence[float], low: Sequence[float], high: Sequence[float]) -> list[str]:
    """Each share as text, with its interval where there is one."""
    if not (len(low) and len(high)):
        return [percent(y) for y in fac]
    return [interval_percent(*bounds) for bounds in zip(fac, low, high)]


def add_vertical(
    figure: go.Figure, x: float, words: str, colour: str, domain: Sequence[float] | Floats, *, raised: bool = False
) -> None:
    """A labelled vertical line, solid with its label above others where `raised`; `domain` keeps the label inside."""
    figure.add_vline(x=x, line={"color": colour, "width": 2, "dash": "solid" if raised else "dot"})
    left, right = min(domain, default=x), max(domain, default=x)
    share = (x - left) / (right - left) if right > left else 0.5
    anchor = "left" if share < 0.2 else "right" if share > 0.8 else "center"
    _add_note(figure, x=x, xref="x", y=1, text=words, xanchor=anchor, yshift=20 if raised else 3)


def share_axis(figure: go.Figure, axis: Literal["x", "y"], title: str) -> go.Figure:
    """An axis of shares from none to all, as per cent."""
    ticks = {"tickvals": list(_SHARES), "ticktext": [percent(share) for share in _SHARES]}
    figure.update_layout({f"{axis}axis": {"title": {"text": title}, "range": [0, 1.03], **ticks}})
    return figure


def label_ends(
    figure: go.Figure, ends: Sequence[tuple[float, float, str, str]], *, shown: Callable[[float], str] = percent
) -> None:
    """Names the lines at their last points (x, share, name, colour) far enough apart, right of an axis from 0."""
    lowest = 2.0
    for x, y, name, colour in sorted(ends, key=lambda end: -end[1]):
        lowest = min(y, lowest - 0.08)
        text = f'<span style="color:{colour}">●</span> {plain(name, 40)} {shown(y)}'
        _add_note(figure, x=x, xref="x", y=lowest, yref="y", text=text, xanchor="left", yanchor="middle", xshift=4)
    longest = max((len(name) for _, _, name, _ in ends), default=0)
    figure.update_layout(margin_r=64 + 8 * min(longest, 40))
    figure.update_xaxes(range=[0, max((x for x, *_ in ends), default=1)])


def add_bins(
    figure: go.Figure,
    edges: Sequence[float] | Floats,
    counts: Sequence[int] | Ints,
    shades: str | list[str],
    hover: Sequence[str],
) -> None:
    """Touching bars from edge to edge, none where the count is 0, with a hover text for each."""
    bounds = np.asarray(edges, dtype=np.float64)
    figure.add_bar(
        x=((bounds[:-1] + bounds[1:]) / 2).tolist(),
        width=(np.diff(bounds) * 0.94).tolist(),
        y=[int(n) or None for n in counts],
        marker={"color": shades, "line": {"width": 0}},
        hovertext=list(hover),
        hoverinfo="text",
    )


def outline(figure: go.Figure, colours: Palette) -> None:
    """Draws the last trace's bars as outlines: shown, not counted."""
    figure.data[-1].marker = {"color": CLEAR, "line": {"color": colours.muted, "width": 1.5}}


def per_cent_of_power(exponent: float) -> str:
    """10 to the exponent as per cent, with all its zeros: `0.001 %`."""
    value = 100 * 10.0**exponent
    return f"{number(value)} %" if exponent % 1 else f"{np.format_float_positional(value, precision=12, trim='-')} %"


def _add_note(figure: go.Figure, **place: Any) -> None:
    """Text without arrow, above its point unless told otherwise."""
    defaults = {"xref": "paper", "yref": "paper", "yanchor": "bottom", "showarrow": False, "align": "left"}
    figure.add_annotation(**{**defaults, **place})
