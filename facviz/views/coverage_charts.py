"""The coverage page's own charts: growth beyond the set, sets at equal tokens, themes as a treemap and as a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from facviz.coverage import EqualTokens
from facviz.records import Floats
from facviz.views.charts import Curve, ThemeShare, ThemeState, fac_over_documents
from facviz.views.format import count, interval_percent, number, percent
from facviz.views.palette import Mode, Palette, ink_on, palette
from facviz.views.plot import HATCH, add_key, lines, new_figure, plain, share_axis

STATES: tuple[ThemeState, ...] = ("covered", "missing", "filled", "exhausted")
_SIGNS = {"covered": "■", "missing": "■", "filled": "■", "exhausted": "▨"}
_SYMBOLS = {"covered": "circle", "missing": "circle", "filled": "circle-dot", "exhausted": "x"}
_ROW_PX = 40
_MAP_PX = 440
_MAX_LABELS = 12


@dataclass(frozen=True, slots=True)
class MapPoint:
    """One feature on the map of explanations."""

    feature_id: int
    state: ThemeState
    theme: str
    label: str


def growth_chart(curves: Sequence[Curve], beyond: Curve, mode: Mode) -> go.Figure:
    """Expected FAC of ever more documents; the seed set's line goes on dashed to twice its size."""
    figure = fac_over_documents(curves, mode, x_title="texts drawn")
    if len(beyond.sizes) < 2:
        return figure
    line = {"color": palette(mode).seed, "width": 2.5, "dash": "dot"}
    hover = [
        f"with {count(n)} texts of the same kind<br>FAC about {percent(y)}" for n, y in zip(beyond.sizes, beyond.fac)
    ]
    figure.add_scatter(
        x=list(beyond.sizes), y=list(beyond.fac), mode="lines", line=line, hovertext=hover, hoverinfo="text"
    )
    for label in figure.layout.annotations:
        if label.x == beyond.sizes[0] and "seed" in (label.text or ""):  # at the end of the dots, not across them
            words = f"{label.text}<br>twice as many {percent(beyond.fac[-1])}"
            label.update(x=beyond.sizes[-1], y=beyond.fac[-1], text=words, align="left")
    furthest = max(beyond.sizes[-1], *(c.sizes[-1] for c in curves if len(c.sizes)))
    return figure.update_xaxes(range=[0, furthest])


def equal_tokens_chart(rows: Sequence[tuple[str, str, float, EqualTokens]], mode: Mode) -> go.Figure:
    """A row for each (name, meaning, FAC of the whole set, FAC at equal tokens): dot, range and ring."""
    figure, colours = new_figure(mode, 96 + _ROW_PX * max(1, len(rows))), palette(mode)
    for place, (name, meaning, whole, equal) in enumerate(rows):
        shade = getattr(colours, meaning, colours.covered)
        band = {"color": shade, "width": 9}
        figure.add_scatter(
            x=[equal.low, equal.high], y=[place] * 2, mode="lines", line=band, opacity=0.25, hoverinfo="skip"
        )
        ring = {"color": "rgba(0,0,0,0)", "size": 13, "line": {"color": shade, "width": 2}}
        words = f"{plain(name)}<br>all of it: FAC {percent(whole)}"
        figure.add_scatter(x=[whole], y=[place], mode="markers", marker=ring, hovertext=[words], hoverinfo="text")
        words = (
            f"{plain(name)}<br>at equal tokens: FAC {interval_percent(equal.fac, equal.low, equal.high)}"
            f"<br>{number(equal.n_docs)} texts, {count(equal.n_tokens)} tokens on average"
        )
        marker = {"color": shade, "size": 12}
        figure.add_scatter(x=[equal.fac], y=[place], mode="markers", marker=marker, hovertext=[words], hoverinfo="text")
    add_key(figure, [(colours.ink, "●", "at equal tokens, with its range"), (colours.ink, "○", "the whole set")])
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[plain(name, 32) for name, *_ in rows],
        range=[max(1, len(rows)) - 0.5, -0.5],
        showgrid=False,
    )
    return share_axis(figure, "x", "FAC")


def theme_treemap(shares: Sequence[ThemeShare], mode: Mode) -> go.Figure:
    """Themes as areas of as many features, each split into covered, missing, filled and exhausted."""
    figure, colours = new_figure(mode, _MAP_PX), palette(mode)
    boxes: list[dict[str, Any]] = []
    for place, share in enumerate(sorted(shares, key=lambda s: (-s.gap, s.theme))):
        total = share.covered + share.gap
        title = f"<b>{plain(share.theme, 32)}</b>"
        words = f"{plain(share.theme)}<br>{count(share.covered)} of {count(total)} features covered"
        boxes.append(_box(f"{place}", "", title, total, colours.surface, colours.ink, words))
        for state in STATES:
            if n := getattr(share, state):
                colour = getattr(colours, state)
                words = f"{plain(share.theme)}<br>{count(n)} of {count(total)} {state}"
                box = _box(f"{place}{state}", f"{place}", count(n), n, colour, ink_on(colour), words)
                boxes.append(box | {"shape": "/" if state == "exhausted" else ""})
    columns = {key: [box[key] for box in boxes] for key in boxes[0]} if boxes else {}
    figure.add_treemap(
        ids=columns.get("id", []),
        labels=columns.get("label", []),
        parents=columns.get("parent", []),
        values=columns.get("n", []),
        branchvalues="total",
        marker={
            "colors": columns.get("colour", []),
            "line": {"color": colours.paper, "width": 2},
            "pad": {"t": 20, "l": 2, "r": 2, "b": 2},
            "pattern": {
                **HATCH,
                "shape": columns.get("shape", []),
                "fgcolor": colours.paper,
                "fillmode": "overlay",
            },
        },
        textfont={"color": columns.get("ink", []), "size": 12},
        hovertext=columns.get("words", []),
        hoverinfo="text",
        textinfo="label",
        tiling={"pad": 2},
        pathbar={"visible": False},
    )
    _add_states(figure, {state: sum(getattr(s, state) for s in shares) for state in STATES}, colours)
    return figure.update_layout(margin={"l": 0, "r": 0, "t": 32, "b": 0}, uniformtext={"mode": "hide", "minsize": 10})


def _box(ident: str, parent: str, label: str, n: int, colour: str, ink: str, words: str) -> dict[str, Any]:
    named = {"id": ident, "parent": parent, "label": label, "n": n, "words": words}
    return named | {"colour": colour, "ink": ink, "shape": ""}


def feature_map(points: Sequence[MapPoint], places: Floats, mode: Mode) -> go.Figure:
    """Features where their explanations lie, alike ones close; a point's `customdata` is its feature_id."""
    figure, colours = new_figure(mode, _MAP_PX), palette(mode)
    size = 11 if len(points) <= 400 else 7 if len(points) <= 4000 else 4
    for state in STATES:
        chosen = [i for i, point in enumerate(points) if point.state == state]
        colour = getattr(colours, state)
        figure.add_scattergl(
            x=[float(places[i, 0]) for i in chosen],
            y=[float(places[i, 1]) for i in chosen],
            mode="markers",
            marker={
                "color": colour,
                "size": size,
                "symbol": _SYMBOLS[state],
                "opacity": 0.6 if state == "covered" else 0.95,
                "line": {"color": colours.paper, "width": 1},
            },
            customdata=[points[i].feature_id for i in chosen],
            hovertext=[_words(points[i]) for i in chosen],
            hoverinfo="text",
            name=state,
        )
    _label_themes(figure, points, places, colours)
    _add_states(figure, Counter(point.state for point in points), colours)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure.update_layout(margin={"l": 0, "r": 0, "t": 32, "b": 0}, dragmode="pan")


def _words(point: MapPoint) -> str:
    theme = f" · {plain(point.theme, 40)}" if point.theme else ""
    return f"feature {point.feature_id} · {point.state}{theme}<br>{lines(point.label)}"


def _label_themes(figure: go.Figure, points: Sequence[MapPoint], places: Floats, colours: Palette) -> None:
    """The names of the largest themes at the middle of their features."""
    for theme, _ in Counter(p.theme for p in points if p.theme).most_common(_MAX_LABELS):
        x, y = np.median([places[i] for i, point in enumerate(points) if point.theme == theme], axis=0)
        figure.add_annotation(
            x=float(x),
            y=float(y),
            text=f"<b>{plain(theme, 30)}</b>",
            showarrow=False,
            font={"color": colours.ink, "size": 12},
        )


def _add_states(figure: go.Figure, totals: Mapping[ThemeState, int], colours: Palette) -> None:
    add_key(figure, [(getattr(colours, s), _SIGNS[s], f"{count(totals[s])} {s}") for s in STATES if totals.get(s)])
