"""Charts of an evaluation: arms against floor and ceiling, quality over samples used, quality over coverage."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from facviz.views.evaluation import Arm, Meaning, Point, Result
from facviz.views.format import count, number, percent
from facviz.views.palette import Mode, palette
from facviz.views.plot import add_line, add_vertical, label_ends, new_figure, plain, share_axis

_SYMBOLS: dict[Meaning, str] = {"seed": "circle-open", "generated": "circle", "anchor": "diamond", "exhausted": "x"}
_ROW_PX = 46


def arm_intervals(result: Result, mode: Mode) -> go.Figure:
    """A dot and its interval for every arm, with the floor and the ceiling as labelled lines."""
    figure, colours = new_figure(mode, 96 + _ROW_PX * len(result.arms)), palette(mode)
    lowest = min([result.prevalence, *(arm.low for arm in result.arms)])
    span = (max(0.0, lowest - 0.08), 1.0)
    for place, arm in enumerate(result.arms):
        colour = getattr(colours, arm.meaning)
        ends = {"x": [arm.low, arm.high], "y": [place, place], "mode": "lines"}
        figure.add_scatter(**ends, line={"color": colour, "width": 8}, opacity=0.35, hoverinfo="skip")
        figure.add_scatter(
            x=[arm.auprc],
            y=[place],
            mode="markers",
            marker={
                "color": colour,
                "size": 13,
                "symbol": _SYMBOLS[arm.meaning],
                "line": {"color": colour, "width": 2},
            },
            hovertext=[f"{plain(arm.name)}<br>AUPRC {plain(arm.row['AUPRC'])}<br>FAC {plain(arm.row['FAC'])}"],
            hoverinfo="text",
        )
        _beside(figure, arm, place, is_left=2 * arm.auprc > sum(span))
    add_vertical(figure, result.prevalence, f"floor {number(result.prevalence)}", colours.muted, span)
    if result.ceiling is not None:
        add_vertical(figure, result.ceiling, f"all real texts {number(result.ceiling)}", colours.anchor, span)
    figure.update_xaxes(title_text="AUPRC on the test set", range=list(span))
    names = [plain(arm.name, 40) for arm in result.arms]
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, showgrid=False, ticklabelstandoff=8)
    return figure.update_yaxes(range=[len(names) - 0.5, -0.7])


def _beside(figure: go.Figure, arm: Arm, place: int, *, is_left: bool) -> None:
    """An arm's number at that end of its interval where there is more room."""
    figure.add_annotation(
        x=arm.low if is_left else arm.high,
        y=place,
        text=f"<b>{number(arm.auprc)}</b>",
        showarrow=False,
        xanchor="right" if is_left else "left",
        xshift=-12 if is_left else 12,
    )


def quality_over_samples(result: Result, mode: Mode) -> go.Figure:
    """AUPRC against texts added, a line an arm with its interval as a band."""
    figure, colours = new_figure(mode, 320), palette(mode)
    ends = []
    for name, meaning, points in _lines(result.points):
        colour = getattr(colours, meaning)
        x, y = [p.n_added for p in points], [p.auprc for p in points]
        add_line(figure, x, y, colour, [p.low for p in points], [p.high for p in points])
        hover = [f"{plain(name)}<br>{count(p.n_added)} texts<br>AUPRC {number(p.auprc)}" for p in points]
        figure.data[-1].update(mode="lines+markers", hovertext=hover, hoverinfo="text")
        figure.data[-1].marker = {"symbol": _SYMBOLS[meaning], "size": 8}
        ends.append((x[-1], y[-1], name, colour))
    label_ends(figure, ends, shown=number)
    lowest = min([result.prevalence, *(p.low for p in result.points)])
    figure.add_hline(y=result.prevalence, line={"color": colours.muted, "width": 1.5, "dash": "dot"})
    figure.update_yaxes(title_text="AUPRC", range=[max(0.0, lowest - 0.05), 1.0])
    return figure.update_xaxes(title_text="texts added")


def coverage_over_samples(result: Result, mode: Mode) -> go.Figure:
    """Share of the missing features that the added texts activate, against how many were added."""
    figure, colours = new_figure(mode, 320), palette(mode)
    ends = []
    for name, meaning, points in _lines([p for p in result.points if p.missing_coverage is not None]):
        colour = getattr(colours, meaning)
        x, y = [0, *(p.n_added for p in points)], [0.0, *(p.missing_coverage or 0.0 for p in points)]
        add_line(figure, x, y, colour)
        hover = [
            f"{plain(name)}<br>{count(n)} texts<br>{percent(share)} of the missing features" for n, share in zip(x, y)
        ]
        figure.data[-1].update(mode="lines+markers", hovertext=hover, hoverinfo="text")
        figure.data[-1].marker = {"symbol": _SYMBOLS[meaning], "size": 8}
        ends.append((x[-1], y[-1], name, colour))
    label_ends(figure, ends)
    figure.update_xaxes(title_text="texts added")
    return share_axis(figure, "y", "missing features covered")


def quality_over_coverage(result: Result, mode: Mode) -> go.Figure:
    """Every mix as a point: FAC of the seed set with what was added against AUPRC; larger marks added more."""
    figure, colours = new_figure(mode, 340), palette(mode)
    most = max([1, *(p.n_added for p in result.points)])
    seed = [arm for arm in result.arms if arm.key == "seed"]
    marks = [(p.name, p.meaning, p.fac, p.auprc, p.n_added) for p in result.points]
    marks = [*((a.name, a.meaning, a.fac, a.auprc, 0) for a in seed), *marks]
    for name, meaning in {name: meaning for name, meaning, *_ in marks}.items():
        colour, own = getattr(colours, meaning), [mark for mark in marks if mark[0] == name]
        figure.add_scatter(
            x=[fac for _, _, fac, _, _ in own],
            y=[auprc for _, _, _, auprc, _ in own],
            name=plain(name, 40),
            mode="markers",
            marker={
                "color": colour,
                "symbol": _SYMBOLS[meaning],
                "size": [8 + 8 * n / most for *_, n in own],
                "line": {"color": colour, "width": 1.5},
            },
            hovertext=[
                f"{plain(name)}<br>{count(n)} texts added<br>FAC {percent(fac)}<br>AUPRC {number(auprc)}"
                for _, _, fac, auprc, n in own
            ],
            hoverinfo="text",
        )
    figure.update_layout(showlegend=True, legend={"itemsizing": "constant"})
    shares = [fac for _, _, fac, _, _ in marks] or [0.0]
    room = 0.06 * (max(shares) - min(shares) or 1)
    figure.update_xaxes(title_text="FAC of the seed set with what was added", tickformat=".0%")
    figure.update_xaxes(range=[min(shares) - room, max(shares) + room])
    return figure.update_yaxes(title_text="AUPRC", rangemode="normal")


def _lines(points: Sequence[Point]) -> list[tuple[str, Meaning, list[Point]]]:
    """Points by arm, in the order arms first come."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.key, []).append(point)
    return [(line[0].name, line[0].meaning, sorted(line, key=lambda p: p.n_added)) for line in found.values()]
