"""The charts as Plotly holds them: the numbers drawn, the words beside them, and states told without colour."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from facviz.errors import InputError
from facviz.views.charts import (
    MAX_POINTS,
    MAX_THEMES,
    Cell,
    Curve,
    ThemeShare,
    before_after,
    coverage_by_theme,
    density_histogram,
    fac_over_documents,
    fac_over_threshold,
    gap_cells,
    training_curves,
)
from facviz.views.palette import palette

MODES = ("light", "dark")
XSS = '<img src=x onerror=alert(1)> $\\alpha$ "q" &lt;'
THEMES = [
    ThemeShare("travel plans", covered=40, missing=2),
    ThemeShare("recipes and cooking", covered=11, missing=30, filled=12, exhausted=3),
]
CURVES = [
    Curve("seed", [1, 10, 100], [0.2, 0.5, 0.62], "seed", [0.1, 0.4, 0.58], [0.3, 0.6, 0.66]),
    Curve("anchor", [1, 10, 100], [0.3, 0.7, 0.97], "anchor"),
]
CELLS = [
    Cell(i, state, f"explanation {i}")
    for i, state in enumerate(["missing", "waiting", "filled", "filled", "exhausted", "refused", "budget"], start=70)
]
STEPS = list(range(0, 5000, 100))
SERIES = {name: [1 / (step + 1) for step in STEPS] for name in ("loss", "fvu", "l0", "n_dead")}


def every_chart(mode, text=""):
    """One figure of each kind, with `text` wherever a chart takes words from data."""
    yield coverage_by_theme([*THEMES, ThemeShare(text or "other", 1, 1)], mode)
    yield fac_over_threshold([(0.5, 0.9), (1.0, 0.62), (1.5, 0.4)], 1.0, mode, low=[0.8, 0.5, 0.3], high=[1, 0.7, 0.5])
    yield fac_over_documents([*CURVES, Curve(text or "generated", [1], [0.1], "generated")], mode)
    yield training_curves(STEPS, SERIES, mode)
    yield density_histogram([0.0, 1e-4, 2e-3, 0.5], mode)
    yield before_after(0.62, 0.9, mode, before_interval=(0.58, 0.66))
    yield gap_cells([*CELLS, Cell(9, "missing", text)], mode)


def strings(node) -> list[str]:
    """Every text anywhere in a figure's JSON."""
    if isinstance(node, str):
        return [node]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [text for child in children for text in strings(child)]


def shown(figure) -> list[str]:
    return strings(json.loads(figure.to_json()))


def notes(figure) -> str:
    return " | ".join(note.text for note in figure.layout.annotations)


@pytest.mark.parametrize("mode", MODES)
def test_every_chart_is_untitled_without_legend_and_of_a_fixed_height(mode):
    for figure in every_chart(mode):
        assert figure.layout.title.text is None
        assert not figure.layout.showlegend
        assert 60 <= figure.layout.height <= 600
        assert figure.layout.template.layout.dragmode is False
        assert figure.layout.template.layout.font.color == palette(mode).ink


@pytest.mark.parametrize("mode", MODES)
def test_text_from_data_reaches_plotly_only_escaped(mode):
    markup = re.compile(r'</?(?!span style="color:#\w{6}">|/?span>|b>|/b>|br>)[a-zA-Z!/]')
    for figure in every_chart(mode, XSS):
        texts = shown(figure)
        assert not [text for text in texts if "<img" in text or "$" in text]
        assert not [text for text in texts if markup.search(text)]


def test_every_hover_text_holds_at_most_three_digits_after_leading_zeros_and_no_raw_values():
    for figure in every_chart("light"):
        for text in (text for trace in figure.data for text in trace.hovertext or ()):
            assert all(len(decimal.replace(".", "").lstrip("0")) <= 3 for decimal in re.findall(r"\d+\.\d+", text)), (
                text
            )
            assert not re.search(r"(?<![\d.])\d{4}|nan|None", text), text


@pytest.mark.parametrize("mode", MODES)
def test_every_chart_stands_without_any_data(mode):
    empty = [
        coverage_by_theme([], mode),
        fac_over_threshold([], 1.0, mode),
        fac_over_documents([], mode),
        fac_over_documents([Curve("empty", [], [], "seed")], mode),
        training_curves([], {}, mode),
        training_curves([], {"loss": []}, mode),
        density_histogram([], mode),
        before_after(0.5, None, mode),
        gap_cells([], mode),
    ]
    assert all(len(figure.to_json()) > 100 for figure in empty)


def test_the_theme_with_the_biggest_gap_is_on_top():
    figure = coverage_by_theme(THEMES, "light")
    assert figure.layout.yaxis.ticktext == ("recipes and cooking", "travel plans")
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]


def test_theme_bars_carry_their_counts_and_their_states_without_colour():
    figure = coverage_by_theme(THEMES, "light")
    bars = {bar.name: bar for bar in figure.data}
    assert list(bars) == ["missing", "exhausted", "filled", "covered"]
    assert bars["missing"].text == ("30", "2")
    assert bars["filled"].text == ("12", "")
    assert bars["covered"].x == (11, 40)
    assert bars["exhausted"].marker.pattern.shape == "/"
    assert bars["exhausted"].marker.pattern.bgcolor == palette("light").exhausted
    assert bars["missing"].marker.pattern.shape is None
    assert bars["missing"].hovertext[0] == "recipes and cooking<br>30 missing of 56"
    assert [word for word in bars if word in notes(figure)] == list(bars)
    assert "32 missing" in notes(figure)


def test_a_state_that_no_feature_has_is_not_named():
    assert "exhausted" not in notes(coverage_by_theme(THEMES[:1], "light"))


def test_many_themes_end_in_one_bar_that_holds_the_rest():
    figure = coverage_by_theme([ThemeShare(f"theme {i}", covered=1, missing=100 - i) for i in range(60)], "light")
    assert len(figure.layout.yaxis.ticktext) == MAX_THEMES
    assert figure.layout.yaxis.ticktext[-1] == "41 more themes"
    assert sum(figure.data[0].x) == sum(100 - i for i in range(60))


def test_the_current_threshold_is_a_line_labelled_with_its_measured_fac():
    figure = fac_over_threshold([(0.5, 0.9), (1.0, 0.62)], 1.0, "light")
    assert figure.layout.shapes[0].x0 == 1.0
    assert notes(figure) == "δ 1.00 × p95 · FAC 62 %"
    assert figure.layout.xaxis.title.text == "activation threshold δ (× p95)"


def test_between_measured_thresholds_no_fac_is_claimed():
    assert notes(fac_over_threshold([(0.5, 0.9), (1.0, 0.62)], 0.7, "light", unit="activation")) == "δ 0.700 activation"


def test_an_interval_is_a_band_of_the_lines_own_hue():
    figure = fac_over_threshold([(0.5, 0.9), (1.0, 0.6)], 1.0, "dark", low=[0.8, 0.5], high=[1.0, 0.7])
    band, line = figure.data
    assert band.fillcolor == line.line.color == palette("dark").seed
    assert band.x == (0.5, 1.0, 1.0, 0.5)
    assert band.y == (1.0, 0.7, 0.5, 0.8)
    assert band.opacity < 0.3
    assert line.hovertext[1] == "δ 1.00 × p95<br>FAC 60 % (50–70)"


def test_curves_are_named_at_their_ends_in_the_colour_of_their_meaning():
    figure = fac_over_documents(CURVES, "light")
    assert figure.data[-1].line.color == palette("light").anchor
    assert "seed 62 %" in notes(figure)
    assert palette("light").seed in notes(figure)
    assert figure.data[1].hovertext[2] == "seed<br>100 documents drawn<br>FAC 62 % (58–66)"


def test_more_than_four_curves_get_a_legend_instead():
    figure = fac_over_documents([Curve(f"run {i}", [1, 2], [0.1, 0.2], "seed") for i in range(5)], "light")
    assert figure.layout.showlegend
    assert not figure.layout.annotations


def test_training_curves_are_panels_over_one_step_axis_with_their_latest_values():
    figure = training_curves(STEPS, SERIES | {"n_dead": [None] * len(STEPS)}, "light")
    assert len(figure.data) == 4
    assert {axis.matches for axis in (figure.layout.xaxis, figure.layout.xaxis2, figure.layout.xaxis3)} == {"x4"}
    assert "dead features <b>–</b>" in notes(figure)
    assert "FVU <b>0.000204</b>" in notes(figure)


def test_a_curve_that_was_not_recorded_gets_no_panel():
    figure = training_curves(STEPS, {"fvu": SERIES["fvu"]}, "light")
    assert len(figure.data) == 1
    assert figure.layout.height < training_curves(STEPS, SERIES, "light").layout.height


def test_long_training_curves_are_thinned_and_keep_their_ends():
    steps = list(range(50_001))
    figure = training_curves(steps, {"loss": [float(step) for step in steps]}, "light")
    assert len(figure.data[0].x) == MAX_POINTS
    assert (figure.data[0].x[0], figure.data[0].x[-1]) == (0, 50_000)


@pytest.mark.parametrize("series", [{"loss": [1.0]}, {"speed": [1.0, 2.0]}])
def test_a_curve_without_a_panel_or_of_another_length_is_refused(series):
    with pytest.raises(InputError, match="cannot be drawn; give one of loss, fvu, l0, n_dead"):
        training_curves([1, 2], series, "light")


def test_the_density_histogram_counts_every_feature_once_and_outlines_what_is_not_counted():
    densities = np.array([0.0] * 7 + [0.1, 0.03, 1e-5, 1e-5] + [0.11, 0.9, 1.0])
    counted, always_on, dead = density_histogram(densities, "light").data
    assert sum(n or 0 for n in counted.y) == 4
    assert sum(n or 0 for n in always_on.y) == 3
    assert dead.y == (7,)
    assert always_on.marker.color == dead.marker.color == "rgba(0,0,0,0)"
    assert counted.marker.color == palette("light").covered


def test_the_density_axis_is_in_decades_of_per_cent_with_the_dead_beside():
    axis = density_histogram([0.0, 2e-4, 0.5], "light").layout.xaxis
    assert axis.ticktext == ("dead", "100 %", "10 %", "1 %", "0.1 %", "0.01 %")
    assert axis.tickvals[1:] == (0, -1, -2, -3, -4)
    assert axis.tickvals[0] < -4
    assert "log scale" in axis.title.text


def test_65536_densities_are_binned_before_they_are_sent():
    densities = np.random.default_rng(0).lognormal(-8, 2, 65_536)
    assert len(density_histogram(np.minimum(densities, 1), "light").to_json()) < 40_000


def test_before_and_after_are_labelled_dots_on_one_share_axis():
    figure = before_after(0.62, 0.9, "light", after_interval=(0.85, 0.95))
    dots = [trace for trace in figure.data if trace.text]
    assert [(dot.text[0], dot.x[0], dot.textposition) for dot in dots] == [
        ("before 62 %", 0.62, "top left"),
        ("after 90 %", 0.9, "top right"),
    ]
    assert dots[1].hovertext == ("FAC after 90 % (85–95)",)
    assert [trace.x for trace in figure.data if trace.opacity == 0.3] == [(0.85, 0.95)]
    assert dots[0].marker.color != dots[1].marker.color


def test_labels_swap_sides_when_fac_fell_and_stay_apart_when_nothing_changed():
    sides = [[dot.textposition for dot in before_after(0.6, x, "light").data if dot.text] for x in (0.5, 0.6)]
    assert sides == [["top right", "top left"], ["top left", "top right"]]


def test_without_a_measured_after_only_before_is_drawn():
    dots = [trace.text[0] for trace in before_after(0.62, None, "light").data if trace.text]
    assert dots == ["before 62 %"]


def squares_of(figure):
    """Feature id → trace and place in it, column and row."""
    return {
        feature: (trace, i, (trace.x[i], trace.y[i]))
        for trace in figure.data
        for i, feature in enumerate(trace.customdata or ())
    }


def test_each_missing_feature_is_a_square_that_names_itself():
    squares = squares_of(gap_cells(CELLS, "light"))
    assert [squares[cell.feature_id][2] for cell in CELLS] == [(i, 0) for i in range(7)]
    assert len(squares) == len(CELLS)
    trace, i, _ = squares[72]
    assert trace.hovertext[i] == "feature 72 · filled<br>explanation 72"


def test_the_states_of_cells_differ_in_colour_and_in_sign_or_symbol():
    figure = gap_cells(CELLS, "light")
    squares = {cell.state: squares_of(figure)[cell.feature_id][0] for cell in CELLS}
    assert len({(trace.marker.symbol, trace.text) for trace in squares.values()}) == len(squares)
    assert all(squares[s].marker.color == getattr(palette("light"), s) for s in ("missing", "filled", "exhausted"))
    assert "2 filled" in notes(figure)
    assert "1 waiting" in notes(figure)


def test_the_cross_of_an_exhausted_cell_is_drawn_in_another_colour_than_its_ground():
    marker = squares_of(gap_cells(CELLS, "dark"))[CELLS[4].feature_id][0].marker
    assert marker.symbol == "square-x"
    assert marker.line.color != marker.color


@pytest.mark.parametrize("n", [1, 24, 25, 115, 376, 3000])
def test_cells_fill_a_grid_without_overlap_that_is_never_taller_than_wide(n):
    figure = gap_cells([Cell(i, "missing", "") for i in range(n)], "light")
    squares, layout = figure.data[0], figure.layout
    assert len(set(zip(squares.x, squares.y, strict=True))) == n
    columns = layout.xaxis.range[1] + 0.5
    assert squares.marker.size < 600 / columns
    assert layout.height <= layout.width + 40
    assert max(squares.x) < columns


def test_drawing_needs_no_model_library_no_streamlit_and_no_database(run_python):
    program = """
import sys
import facviz.views.charts, facviz.views.heat
heavy = ("torch", "transformers", "streamlit", "sentence_transformers", "duckdb", "pandas")
print(*(name for name in heavy if name in sys.modules), "plotly" in sys.modules)
"""
    assert run_python(program).split() == ["True"]
