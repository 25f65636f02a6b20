"""Charts that put SAEs beside each other: FVU against L0, densities overlaid, and FVU by layer and template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise

import plotly.graph_objects as go

from facviz.errors import InputError
from facviz.views.format import count, number, percent
from facviz.views.palette import Mode, Palette, palette
from facviz.views.plot import add_key, add_vertical, new_figure, per_cent_of_power, plain

MAX_CURVES = 4
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star", "cross")
_SIGNS = ("●", "◆", "■", "▲", "✖", "★", "✚")
_DASHES = ("solid", "dash", "dot", "dashdot")
_HUES: dict[Mode, tuple[str, ...]] = {
    "light": ("#334155", "#7C3AED", "#0369A1", "#BE185D", "#4D7C0F", "#92400E", "#0E7490"),
    "dark": ("#CBD5E1", "#A78BFA", "#38BDF8", "#F472B6", "#A3E635", "#FDBA74", "#22D3EE"),
}
"""Hues for things without a meaning of their own; symbol, dash and words tell them apart too."""


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """One SAE: how many features it spends on a token, and what it leaves unexplained."""

    name: str
    architecture: str
    l0: float
    fvu: float


@dataclass(frozen=True, slots=True)
class DensityCurve:
    """Features of one SAE by log10 of their density: n + 1 edges, n counts, and those that never fired."""

    name: str
    edges: Sequence[float]
    counts: Sequence[int]
    n_dead: int


@dataclass(frozen=True, slots=True)
class FitPoint:
    """FVU at one layer, with the chat template or without; `low` and `high` bound it where that was measured."""

    layer: int
    template: bool
    fvu: float
    low: float | None
    high: float | None
    is_given: bool = False

    @property
    def name(self) -> str:
        """The place in words."""
        return f"layer {self.layer}, {'template' if self.template else 'no template'}"


def frontier(points: Sequence[FrontierPoint], mode: Mode) -> go.Figure:
    """FVU against L0, one labelled point an SAE, its colour and symbol the architecture's; down and left is better."""
    figure, looks = new_figure(mode, 320), _looks([p.architecture for p in points], mode)
    for architecture, (colour, symbol, _) in looks.items():
        own = [p for p in points if p.architecture == architecture]
        figure.add_scatter(
            x=[p.l0 for p in own],
            y=[p.fvu for p in own],
            mode="markers+text",
            text=[plain(p.name, 24) for p in own],
            textposition=[_side(p, points) for p in own],
            marker={"color": colour, "symbol": symbol, "size": 12},
            hovertext=[f"{plain(p.name)}<br>L0 {number(p.l0)} · FVU {number(p.fvu)}" for p in own],
            hoverinfo="text",
            cliponaxis=False,
        )
    add_key(figure, [(colour, sign, architecture[:40]) for architecture, (colour, _, sign) in looks.items()])
    figure.update_xaxes(title_text="L0, features active on a token", range=[0, 1.25 * _top([p.l0 for p in points])])
    return figure.update_yaxes(title_text="FVU", range=[0, 1.2 * _top([p.fvu for p in points])])


def overlaid_densities(curves: Sequence[DensityCurve], mode: Mode, *, always_on: float = 0.1) -> go.Figure:
    """Share of each SAE's features by density, as steps over a log axis; dead features are in the key.

    Raises:
        InputError: there are more curves than can be told apart, or edges and counts do not belong together.
    """
    if len(curves) > MAX_CURVES:
        raise InputError(
            f"{len(curves)} densities cannot be told apart in one chart; choose at most {MAX_CURVES} SAEs."
        )
    figure, key = new_figure(mode, 320), []
    for curve, colour, dash in zip(curves, _HUES[mode], _DASHES):
        _add_steps(figure, curve, colour, dash)
        key.append((colour, _DASH_SIGNS[dash], f"{curve.name}, {count(curve.n_dead)} dead"))
    lowest = min((_first_edge(c) for c in curves), default=-4)
    powers = range(0, lowest - 1, -1 - (lowest < -4))
    add_vertical(
        figure, math.log10(always_on), f"always on beyond {percent(always_on)}", palette(mode).muted, [lowest, 0]
    )
    _add_lines_of_key(figure, key)
    figure.update_xaxes(tickvals=list(powers), ticktext=[per_cent_of_power(p) for p in powers], range=[lowest, 0])
    figure.update_xaxes(title_text="share of content tokens with the feature (log scale)")
    return figure.update_yaxes(title_text="share of the SAE's features", ticksuffix=" %", rangemode="tozero")


def fit_chart(points: Sequence[FitPoint], mode: Mode) -> go.Figure:
    """FVU by layer and template with its interval, layers in order; the lowest is filled, the given one named."""
    shown = sorted(points, key=lambda p: (p.layer, p.template))
    figure, colours = new_figure(mode, 64 + 24 * max(2, len(shown))), palette(mode)
    best = min(shown, key=lambda p: p.fvu, default=None)
    for row, point in enumerate(shown):
        _add_fit(figure, row, point, point is best, colours)
    figure.update_xaxes(title_text="FVU, share of the variance not explained")
    names = [f"<b>{p.name}</b>" if p.is_given else p.name for p in shown]
    figure.update_yaxes(
        tickvals=list(range(len(shown))), ticktext=names, range=[len(shown) - 0.5, -0.5], showgrid=False
    )
    figure.update_layout(margin={"t": 8, "r": 150})
    return figure


def _looks(architectures: Sequence[str], mode: Mode) -> dict[str, tuple[str, str, str]]:
    looks = cycle(zip(_HUES[mode], _SYMBOLS, _SIGNS))
    return dict(zip(dict.fromkeys(architectures), looks))


def _side(point: FrontierPoint, points: Sequence[FrontierPoint]) -> str:
    """Where the label runs into no other point and not out of the picture."""
    width, height = _top([p.l0 for p in points]), _top([p.fvu for p in points])
    near = [
        p
        for p in points
        if p is not point and abs(p.l0 - point.l0) < 0.4 * width and abs(p.fvu - point.fvu) < 0.2 * height
    ]
    below = any((p.fvu, p.l0) > (point.fvu, point.l0) for p in near)
    return f"{'bottom' if below else 'top'} {'left' if point.l0 > 0.6 * width else 'right'}"


def _top(values: Sequence[float]) -> float:
    return max(values, default=1.0) or 1.0


_DASH_SIGNS = {"solid": "━━", "dash": "╍╍", "dot": "┄┄", "dashdot": "━╍"}


def _first_edge(curve: DensityCurve) -> int:
    """Power of ten below which the curve has nothing to show."""
    edges = [float(edge) for edge, n in zip(curve.edges, curve.counts) if n]
    return min(-1, math.floor(min(edges, default=-1.0)))


def _add_steps(figure: go.Figure, curve: DensityCurve, colour: str, dash: str) -> None:
    if len(curve.edges) != len(curve.counts) + 1:
        raise InputError(f"{curve.name} has {len(curve.counts)} counts for {len(curve.edges)} edges; measure it again.")
    n_features = sum(curve.counts) + curve.n_dead or 1
    shares = [n / n_features for n in curve.counts]
    bounds = [tuple(per_cent_of_power(round(float(e), 9)) for e in pair) for pair in pairwise(curve.edges)]
    hover = [
        f"{plain(curve.name)}<br>active on {low} to {high} of tokens<br>{count(n)} features, {percent(share)}"
        for (low, high), n, share in zip(bounds, curve.counts, shares)
    ]
    line = {"color": colour, "width": 2, "dash": dash, "shape": "hv"}
    figure.add_scatter(
        x=list(curve.edges),
        y=[*(100 * share for share in shares), 0.0],
        mode="lines",
        line=line,
        hovertext=[*hover, ""],
        hoverinfo="text",
        name=plain(curve.name, 40),
    )


def _add_lines_of_key(figure: go.Figure, entries: Sequence[tuple[str, str, str]]) -> None:
    """One line of the key a curve, above the picture: their names are too long for one line together."""
    for i, (colour, sign, words) in enumerate(reversed(entries)):
        text = f'<span style="color:{colour}">{sign}</span> {plain(words, 60)}'
        place = {"xref": "paper", "yref": "paper", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom"}
        figure.add_annotation(text=text, showarrow=False, yshift=22 + 18 * i, **place)
    figure.update_layout(margin_t=32 + 18 * len(entries), height=288 + 18 * len(entries))


def _add_fit(figure: go.Figure, row: int, point: FitPoint, is_best: bool, colours: Palette) -> None:
    """A dot on its interval, the words right of both."""
    interval = f" ({number(point.low)} to {number(point.high)})" if point.low is not None else ""
    colour = colours.ink if is_best else colours.covered
    if point.low is not None and point.high is not None:
        band = {"color": colour, "width": 2}
        figure.add_scatter(x=[point.low, point.high], y=[row, row], mode="lines", line=band, hoverinfo="skip")
    figure.add_scatter(
        x=[point.fvu],
        y=[row],
        mode="markers",
        marker={"size": 11, "color": colour if is_best else colours.paper, "line": {"color": colour, "width": 2}},
        cliponaxis=False,
        hovertext=[f"{point.name}<br>FVU {number(point.fvu)}{interval}"],
        hoverinfo="text",
    )
    words = " · ".join([number(point.fvu), *["lowest"] * is_best, *["as loaded"] * point.is_given])
    place = {"x": max(point.fvu, point.high or 0.0), "y": row, "xanchor": "left", "yanchor": "middle", "xshift": 9}
    figure.add_annotation(text=words, showarrow=False, **place)
