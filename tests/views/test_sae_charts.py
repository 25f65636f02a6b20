"""Charts of SAEs beside each other, as Plotly holds them: what is drawn, and told without colour."""

from __future__ import annotations

import json

import pytest

from facviz.errors import InputError
from facviz.views.palette import MIN_CONTRAST, contrast, palette
from facviz.views.sae_charts import (
    _HUES,
    MAX_CURVES,
    DensityCurve,
    FitPoint,
    FrontierPoint,
    fit_chart,
    frontier,
    overlaid_densities,
)

MODES = ("light", "dark")
XSS = "<img src=x onerror=alert(1)> $\\alpha$"
POINTS = [
    FrontierPoint("aaa", "batchtopk", 32.0, 0.2),
    FrontierPoint("bbb", "topk", 16.0, 0.3),
    FrontierPoint("ccc", "batchtopk", 64.0, 0.1),
]
CURVES = [
    DensityCurve("one", [-2.0, -1.0, 0.0], [6, 2], n_dead=2),
    DensityCurve("two", [-2.0, -1.0, 0.0], [0, 5], n_dead=0),
]
FITS = [
    FitPoint(15, True, 0.2, 0.18, 0.22, is_given=True),
    FitPoint(14, True, 0.25, 0.21, 0.29),
    FitPoint(15, False, 0.3, None, None),
]


def markers(figure):
    return [trace for trace in figure.data if "markers" in (trace.mode or "")]


@pytest.mark.parametrize("mode", MODES)
def test_the_frontier_has_one_point_an_sae_and_one_look_an_architecture(mode):
    figure = frontier(POINTS, mode)
    assert [(list(t.x), list(t.y)) for t in figure.data] == [([32.0, 64.0], [0.2, 0.1]), ([16.0], [0.3])]
    assert len({t.marker.symbol for t in figure.data}) == len({t.marker.color for t in figure.data}) == 2
    assert [list(t.text) for t in figure.data] == [["aaa", "ccc"], ["bbb"]]
    [key] = figure.layout.annotations
    assert "batchtopk" in key.text
    assert "topk" in key.text
    assert figure.data[0].hovertext[0] == "aaa<br>L0 32.0 · FVU 0.200"
    assert figure.layout.xaxis.range[0] == figure.layout.yaxis.range[0] == 0


def test_labels_of_two_near_points_stand_on_different_sides():
    near = [FrontierPoint("aaa", "topk", 32.0, 0.2), FrontierPoint("bbb", "topk", 33.0, 0.205)]
    assert sorted(frontier(near, "light").data[0].textposition) == ["bottom left", "top left"]
    assert [t.textposition for t in frontier(POINTS, "light").data] == [("top right", "top left"), ("top right",)]


def test_densities_are_shares_of_all_features_so_that_widths_compare():
    figure = overlaid_densities(CURVES, "light")
    assert [list(t.y) for t in figure.data] == [[60.0, 20.0, 0.0], [0.0, 100.0, 0.0]]
    assert [t.line.shape for t in figure.data] == ["hv", "hv"]
    assert len({t.line.dash for t in figure.data}) == len({t.line.color for t in figure.data}) == 2
    words = [a.text for a in figure.layout.annotations]
    assert any("one, 2 dead" in text for text in words)
    assert any("always on beyond 10 %" in text for text in words)
    assert figure.data[0].hovertext[0] == "one<br>active on 1 % to 10 % of tokens<br>6 features, 60 %"
    assert list(figure.layout.xaxis.ticktext) == ["100 %", "10 %", "1 %"]
    rare = overlaid_densities([DensityCurve("rare", [-7.0, -6.0, -5.0, 0.0], [0, 3, 3], 0)], "light")
    assert list(rare.layout.xaxis.tickvals) == [0, -2, -4, -6]  # from the first bin with a feature on


def test_more_curves_than_eyes_tell_apart_and_counts_without_their_edges_are_refused():
    with pytest.raises(InputError, match="choose at most 4 SAEs"):
        overlaid_densities(CURVES * 3, "light")
    with pytest.raises(InputError, match="one has 2 counts for 2 edges"):
        overlaid_densities([DensityCurve("one", [0.0, 1.0], [1, 2], 0)], "light")
    assert overlaid_densities([], "light").data == ()


@pytest.mark.parametrize("mode", MODES)
def test_the_lowest_fvu_is_filled_and_the_loaded_place_is_named(mode):
    figure = fit_chart(FITS, mode)
    assert list(figure.layout.yaxis.ticktext) == [
        "layer 14, template",
        "layer 15, no template",
        "<b>layer 15, template</b>",
    ]
    shown = {t.hovertext[0].split("<br>")[0]: t for t in markers(figure)}
    colours = palette(mode)
    assert shown["layer 15, template"].marker.color == colours.ink
    assert shown["layer 14, template"].marker.color == colours.paper
    words = {(a.y, a.text, a.x) for a in figure.layout.annotations}
    assert words == {(0, "0.250", 0.29), (1, "0.300", 0.3), (2, "0.200 · lowest · as loaded", 0.22)}
    assert shown["layer 14, template"].hovertext == ("layer 14, template<br>FVU 0.250 (0.210 to 0.290)",)
    intervals = [list(t.x) for t in figure.data if t.mode == "lines"]
    assert intervals == [[0.21, 0.29], [0.18, 0.22]]


@pytest.mark.parametrize("mode", MODES)
def test_names_from_data_are_text_in_every_chart(mode):
    drawn = [
        frontier([FrontierPoint(XSS, XSS, 1.0, 0.5)], mode),
        overlaid_densities([DensityCurve(XSS, [-1.0, 0.0], [1], 0)], mode),
    ]
    for figure in drawn:
        text = json.dumps(figure.to_plotly_json(), default=str)
        assert "<img" not in text
        assert "$" not in text
        assert "&lt;img" in text


@pytest.mark.parametrize("mode", MODES)
def test_hues_read_on_their_ground_and_differ(mode):
    hues = _HUES[mode]
    assert len(set(hues)) == len(hues) >= MAX_CURVES
    assert all(contrast(hue, palette(mode).paper) >= MIN_CONTRAST for hue in hues)
