"""What all charts share: a quiet template in each mode, and text that Plotly cannot take for markup."""

from __future__ import annotations

import re
from html import unescape
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.views.format import short, visible
from facviz.views.palette import palette
from facviz.views.plot import (
    add_bins,
    add_vertical,
    label_ends,
    lines,
    new_figure,
    per_cent_of_power,
    plain,
    share_axis,
    template,
)

MODES = ("light", "dark")


@given(st.text(min_size=1) | st.sampled_from(["<b>", '<a href="x">', "$\\alpha$", "&lt;i&gt;", "a & b", "%{x}"]))
def test_plain_text_has_no_tag_or_formula_and_reads_back_as_it_was(text):
    shown = plain(text, 60)
    assert not set("<>$") & set(shown)
    assert re.fullmatch(r"(?:[^&]|&(?:amp|lt|gt|#36);)*", shown, re.DOTALL)
    assert unescape(shown) == short(text, 60)


@given(st.text(min_size=1))
def test_hover_lines_hold_no_markup_but_their_breaks(text):
    shown = lines(text)
    assert not set("<>$") & set(shown.replace("<br>", ""))
    assert all(len(unescape(line)) <= 60 for line in shown.split("<br>"))


@pytest.mark.parametrize("mode", MODES)
def test_the_template_has_a_clear_ground_and_only_a_faint_horizontal_grid(mode):
    layout = template(mode).layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert (layout.xaxis.showgrid, layout.yaxis.showgrid) == (False, True)
    assert layout.yaxis.gridcolor == palette(mode).hairline
    assert layout.font.color == palette(mode).ink
    assert "system-ui" in layout.font.family
    assert (layout.showlegend, layout.title.text) == (False, None)


def test_the_modes_have_their_own_templates():
    assert template("light") != template("dark")


def test_empty_bins_draw_nothing_on_a_log_axis():
    figure = new_figure("light", 200)
    add_bins(figure, [0, 1, 2, 4], [10, 0, 1], "#000000", ["a", "b", "c"])
    assert figure.data[0].y == (10, None, 1)
    assert figure.data[0].x == (0.5, 1.5, 3.0)
    assert figure.data[0].width == pytest.approx((0.94, 0.94, 1.88))


@pytest.mark.parametrize(("x", "anchor"), [(0.0, "left"), (5.0, "center"), (10.0, "right")])
def test_the_label_of_a_vertical_line_stays_inside_the_picture(x, anchor):
    figure = new_figure("light", 200)
    add_vertical(figure, x, "δ", "#000000", [0.0, 10.0])
    assert figure.layout.annotations[0].xanchor == anchor
    assert figure.layout.shapes[0].x0 == figure.layout.shapes[0].x1 == x


def test_a_share_axis_is_labelled_in_per_cent_from_none_to_all():
    axis = share_axis(new_figure("light", 200), "y", "FAC").layout.yaxis
    assert axis.ticktext == ("0 %", "20 %", "40 %", "60 %", "80 %", "100 %")
    assert axis.range[0] == 0
    assert axis.range[1] >= 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=4))
def test_names_at_line_ends_never_overlap_and_keep_their_order(shares):
    figure = new_figure("light", 320)
    label_ends(figure, [(100, share, f"set {i}", "#000000") for i, share in enumerate(shares)])
    heights = [note.y for note in figure.layout.annotations]
    assert all(above - below >= 0.0799 for above, below in pairwise(heights))
    order = [int(re.search(r"set (\d)", note.text).group(1)) for note in figure.layout.annotations]
    assert [shares[i] for i in order] == sorted(shares, reverse=True)


@pytest.mark.parametrize(
    ("exponent", "text"), [(0, "100 %"), (-1, "10 %"), (-5, "0.001 %"), (-8, "0.000001 %"), (-0.2, "63.1 %")]
)
def test_a_power_of_ten_is_named_in_per_cent(exponent, text):
    assert per_cent_of_power(exponent) == text


def test_what_plain_makes_visible_is_what_the_tables_show():
    assert plain("a\nb\u202e") == visible("a\nb\u202e")
