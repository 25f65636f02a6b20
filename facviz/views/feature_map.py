"""The map of an SAE's features: places read from the table, coloured by what is known of each; areas chosen on it.

An area is a polygon in the map's own units, short enough for an address; which features lie in it is worked out here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from facviz.records import Bools, Floats
from facviz.store.feature_table import TableScope, mapped
from facviz.store.queries import Queries
from facviz.views.format import count, count_of, number, percent, short
from facviz.views.palette import Mode, Palette, blend, palette
from facviz.views.plot import CLEAR, add_key, new_figure, plain

Area = Sequence[tuple[float, float]]

COLOURS = {
    "cluster": "Cluster",
    "state": "Coverage",
    "verdict": "Relevance",
    "status": "Review",
    "density": "Density",
    "max_act": "Max activation",
    "score": "Explanation score",
    "firing": "Always on, dead",
}
"""What the map can be coloured by → as people read it."""
MAX_CORNERS = 48
HEIGHT = 560
SHOW_WORDS = 20_000
"""Up to so many features pointing at one shows its explanation: the words of more would weigh several megabytes."""
_NAME_CHARS = 60
_N_LABELS = 22
_HUES = ("#6D5BA8", "#B5577A", "#4C86B8", "#8A7A3F", "#A0653C", "#8E6FC4", "#CF8AA4", "#7FA9CF", "#B3A25E", "#C28F6B")
"""Of clusters, beside each other on the picture; none of them means anything elsewhere."""
_EDGE = 10.4  # of the picture; places lie between -10 and 10


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMap:
    """Every feature that has a place, by feature id; the columns are those of the store."""

    feature_id: npt.NDArray[np.int64]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    columns: Mapping[str, npt.NDArray[Any]]
    names: Mapping[int, str]


def cluster_names(queries: Queries, sae_id: str) -> dict[int, str]:
    """Clusters of the map with their names and sizes, largest first and no two alike; empty before there is a map."""
    found: dict[int, str] = {}
    for row in queries.rows("feature_clusters", sae_id=sae_id):
        words = f"{_cluster_name(row)} · {count(row['n_features'])}"
        found[row["cluster"]] = words if words not in found.values() else f"{words} ({row['cluster'] + 1})"
    return found


def _cluster_name(row: Mapping[str, Any]) -> str:
    return short(row["name"], _NAME_CHARS) if row["name"] else f"cluster {row['cluster'] + 1}"


def read_map(queries: Queries, scope: TableScope) -> FeatureMap | None:
    """Places and columns; None before a map was made."""
    rows = mapped(queries, scope)
    if not rows.num_rows:
        return None
    columns = {name: rows[name].to_numpy(zero_copy_only=False) for name in rows.column_names}
    clusters = queries.rows("feature_clusters", sae_id=scope.sae_id)
    return FeatureMap(
        feature_id=columns.pop("feature_id").astype(np.int64),
        x=columns.pop("umap_x").astype(np.float32),
        y=columns.pop("umap_y").astype(np.float32),
        columns=columns,
        names={r["cluster"]: _cluster_name(r) for r in clusters},
    )


def parse_area(text: str) -> Area:
    """Corners written `x,y;x,y;…`; no area where it is not at least a triangle of finite numbers."""
    corners = []
    for part in text.split(";")[: MAX_CORNERS + 1]:
        x, comma, y = part.partition(",")
        try:
            corner = float(x), float(y)
        except ValueError:
            return ()
        if not comma or not all(math.isfinite(c) and abs(c) < 1e6 for c in corner):
            return ()
        corners.append(corner)
    return tuple(corners) if 3 <= len(corners) <= MAX_CORNERS else ()


def write_area(x: Sequence[float], y: Sequence[float]) -> str:
    """Corners for an address; of a long outline as many as fit, evenly spaced, and a box from two opposite corners."""
    if len(x) == len(y) == 2:
        x, y = [x[0], x[1], x[1], x[0]], [y[0], y[0], y[1], y[1]]
    n = min(len(x), len(y))
    if n < 3:
        return ""
    chosen = np.unique(np.linspace(0, n - 1, min(n, MAX_CORNERS)).round().astype(int))
    return ";".join(f"{float(x[i]):.2f},{float(y[i]):.2f}" for i in chosen)


def inside(found: FeatureMap, area: Area) -> Bools:
    """Which features lie in the polygon: a ray to the right crosses its outline an odd number of times."""
    within = np.zeros(len(found.x), bool)
    x, y = found.x.astype(np.float64), found.y.astype(np.float64)
    for (ax, ay), (bx, by) in zip(area, [*area[1:], area[0]]):
        if ay == by:
            continue
        crosses = (ay > y) != (by > y)
        within ^= crosses & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return within


def selected(found: FeatureMap, area: Area) -> dict[int, float]:
    """Ids of the features in the area, for a lens."""
    return dict.fromkeys(found.feature_id[inside(found, area)].tolist(), 0.0)


def map_words(found: FeatureMap, n_in_area: int | None = None) -> str:
    """How many features lie where, as a sentence without its end; None where no area is drawn."""
    if n_in_area is not None:
        return f"{count_of(n_in_area, 'feature')} of {count(len(found.x))} in the area"
    alone = int((found.columns["cluster"] < 0).sum())
    clusters = f"{count_of(len(found.names), 'cluster')}, {count(alone)} features in none"
    return f"{count_of(len(found.x), 'feature')} by what they write into the model; {clusters}"


def map_figure(found: FeatureMap, colour: str, mode: Mode, area: Area = ()) -> go.Figure:
    """The map as points in WebGL, coloured by one of `COLOURS`, with the largest clusters named."""
    colours = palette(mode)
    figure = new_figure(mode, HEIGHT)
    groups = _groups(found, colour, colours)
    for group in groups:
        _add_points(figure, found, group)
    if colour in _CATEGORIES:
        add_key(figure, [(g.shade, "●", f"{g.name} {count(int(g.members.sum()))}") for g in groups if g.members.any()])
    _name_clusters(figure, found, colours)
    if area:
        path = "M " + " L ".join(f"{x:.2f} {y:.2f}" for x, y in area) + " Z"
        red, green, blue = bytes.fromhex(colours.accent[1:])
        ground = f"rgba({red},{green},{blue},0.1)"
        figure.add_shape(type="path", path=path, line={"color": colours.accent, "width": 2}, fillcolor=ground)
    axis = {"visible": False, "range": [-_EDGE, _EDGE]}
    figure.update_layout(
        xaxis=axis,
        yaxis=axis,
        dragmode="lasso",
        margin={"l": 0, "r": 0, "t": 34, "b": 0},
        uirevision="map",
        selectionrevision=repr(area),
        newselection={"line": {"color": colours.accent, "width": 2}},
        modebar={"bgcolor": CLEAR, "color": colours.muted, "activecolor": colours.ink},
    )
    return figure


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Points drawn alike, or by a scale."""

    name: str
    members: Bools
    shade: str = ""
    values: Floats | None = None
    scale: Sequence[tuple[float, str]] = ()
    bar: Mapping[str, Any] | None = None
    opacity: float = 0.85
    is_marked: bool = False


_CATEGORIES: Mapping[str, Sequence[tuple[Any, str, str, float]]] = {
    "state": (
        ("", "not counted", "hairline", 1.0),
        ("covered", "covered", "covered", 1.0),
        ("filled", "filled", "filled", 1.0),
        ("exhausted", "exhausted", "exhausted", 1.0),
        ("missing", "missing", "missing", 1.0),
    ),
    "verdict": (
        (None, "not judged", "hairline", 1.0),
        ("no", "no", "exhausted", 0.6),
        ("maybe", "maybe", "seed", 0.4),
        ("probably", "probably", "seed", 0.7),
        ("yes", "yes", "seed", 1.0),
    ),
    "status": (
        ("unreviewed", "not reviewed", "hairline", 1.0),
        ("skipped", "skipped", "exhausted", 0.6),
        ("rejected", "rejected", "ink", 1.0),
        ("flagged", "flagged", "missing", 1.0),
        ("edited", "edited", "seed", 1.0),
        ("accepted", "accepted", "filled", 1.0),
    ),
    "firing": (
        ("live", "fires", "covered", 0.55),
        ("dead", "dead", "ink", 1.0),
        ("always on", "always on", "missing", 1.0),
    ),
}
"""Values of a column, least conspicuous first and so drawn below: (value, words, colour, its strength)."""


def _groups(found: FeatureMap, colour: str, colours: Palette) -> list[_Group]:
    if colour in _CATEGORIES:
        values = _firing(found) if colour == "firing" else found.columns[colour]
        groups = []
        for value, words, shade, strength in _CATEGORIES[colour]:
            members = np.array([v is None for v in values]) if value is None else np.asarray(values == value, bool)
            colour_of = blend(getattr(colours, shade), strength, colours.paper)
            groups.append(_Group(words, members, colour_of, is_marked=shade != "hairline" and strength == 1.0))
        return groups
    if colour == "cluster":
        return _by_cluster(found, colours)
    return _by_scale(found, colour, colours)


def _firing(found: FeatureMap) -> npt.NDArray[Any]:
    is_dead, is_on = found.columns["is_dead"], found.columns["is_always_on"]
    return np.where(is_dead, "dead", np.where(is_on, "always on", "live"))


def _by_cluster(found: FeatureMap, colours: Palette) -> list[_Group]:
    cluster = found.columns["cluster"].astype(np.int64)
    hues = [blend(hue, 0.85, colours.ink) for hue in _HUES]  # darker on light paper, lighter on dark
    scale = [(i / (len(hues) - 1), hue) for i, hue in enumerate(hues)]
    alone = cluster < 0
    return [
        _Group("in no cluster", alone, blend(colours.muted, 0.35, colours.paper), opacity=0.7),
        _Group("in a cluster", ~alone, values=(cluster % len(_HUES)).astype(np.float32), scale=scale),
    ]


def _by_scale(found: FeatureMap, colour: str, colours: Palette) -> list[_Group]:
    raw = np.asarray(found.columns[colour], np.float64)
    is_known = np.isfinite(raw) & (raw > 0 if colour == "density" else True)
    values = np.log10(np.where(is_known, raw, 1.0)) if colour == "density" else raw
    scale = [(i / 4, blend(colours.heat, 0.12 + 0.22 * i, colours.paper)) for i in range(5)]
    known = values[is_known]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    stops = np.linspace(low, high, 4)
    shown = [percent(10.0**s) if colour == "density" else number(s) for s in stops.tolist()]
    bar = {"title": {"text": COLOURS[colour]}, "tickvals": stops.tolist(), "ticktext": shown, "outlinewidth": 0}
    bar |= {"thickness": 10, "len": 0.5, "cmin": low, "cmax": high}
    return [
        _Group("unknown", ~is_known, blend(colours.muted, 0.25, colours.paper), opacity=0.6),
        _Group("known", is_known, values=values.astype(np.float32), scale=scale, bar=bar),
    ]


def _add_points(figure: go.Figure, found: FeatureMap, group: _Group) -> None:
    members = group.members
    n = len(found.x)
    size = 7 if n <= 5_000 else 5 if n <= SHOW_WORDS else 3
    marker: dict[str, Any] = {"size": size + 2 * group.is_marked, "opacity": group.opacity}
    if group.values is None:
        marker["color"] = group.shade
    else:
        marker |= {"color": group.values[members], "colorscale": [list(stop) for stop in group.scale]}
        bar = dict(group.bar or {})
        low, high = bar.pop("cmin", 0), bar.pop("cmax", len(_HUES) - 1)
        marker |= {"cmin": low, "cmax": high} | ({"colorbar": bar} if bar else {"showscale": False})
    figure.add_scattergl(
        x=found.x[members],
        y=found.y[members],
        mode="markers",
        marker=marker,
        customdata=found.feature_id[members].astype(np.int32),
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 0.3}},
        **_hover(found, members),
    )


def _hover(found: FeatureMap, members: Bools) -> dict[str, Any]:
    if len(found.x) > SHOW_WORDS:
        return {"hovertemplate": "feature %{customdata}<extra></extra>"}
    ids, words = found.feature_id[members].tolist(), found.columns["explanation"][members].tolist()
    texts = [f"{i} · {plain(text, 80)}" if text else f"{i} · not explained yet" for i, text in zip(ids, words)]
    return {"hovertext": texts, "hoverinfo": "text"}


def _name_clusters(figure: go.Figure, found: FeatureMap, colours: Palette) -> None:
    """The largest clusters that a name can stand on without touching another."""
    placed: list[tuple[float, float]] = []
    cluster = found.columns["cluster"]
    named = [(c, name) for c, name in sorted(found.names.items()) if not name.startswith("cluster ")]
    for number_, name in named:
        if len(placed) == _N_LABELS:
            return
        members = cluster == number_
        if not members.any():
            continue
        x, y = float(np.median(found.x[members])), float(np.median(found.y[members]))
        if any(abs(x - px) < 2.6 and abs(y - py) < 0.7 for px, py in placed):
            continue
        placed.append((x, y))
        ground = blend(colours.paper, 0.8, colours.paper)
        figure.add_annotation(
            x=x, y=y, text=plain(name, 34), showarrow=False, font={"size": 11, "color": colours.ink}, bgcolor=ground,
            opacity=0.88, borderpad=1,
        )  # fmt: skip
