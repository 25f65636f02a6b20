"""Colours by meaning: every text keeps its contrast in both modes, and no two meanings of one picture look alike."""

from __future__ import annotations

import dataclasses
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.views.palette import MIN_CONTRAST, blend, contrast, ink_on, palette

MODES = ("light", "dark")
COLOURS = st.integers(0, 0xFFFFFF).map("#{:06X}".format)


def test_contrast_is_21_between_black_and_white_and_1_with_itself():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#FFFFFF", "#000000") == pytest.approx(21)
    assert contrast("#D97706", "#D97706") == 1


def test_contrast_follows_the_standard_on_a_known_grey():
    assert contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.005)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("mode", MODES)
def test_every_colour_is_six_hex_digits(mode):
    for field in dataclasses.fields(palette(mode)):
        assert re.fullmatch(r"#[0-9A-F]{6}", getattr(palette(mode), field.name)), field.name


@pytest.mark.parametrize("mode", MODES)
def test_ink_and_muted_text_read_on_paper_and_on_cards(mode):
    colours = palette(mode)
    for text, ground in itertools.product(
        (colours.ink, colours.muted, colours.accent), (colours.paper, colours.surface)
    ):
        assert contrast(text, ground) >= MIN_CONTRAST


@pytest.mark.parametrize("mode", MODES)
def test_the_gap_and_what_fills_it_stand_out_from_the_paper(mode):
    colours = palette(mode)
    for mark in (colours.covered, colours.missing, colours.filled, colours.anchor, colours.seed, colours.generated):
        assert contrast(mark, colours.paper) >= 3


@pytest.mark.parametrize("mode", MODES)
def test_no_two_meanings_of_one_picture_share_a_colour(mode):
    colours = palette(mode)
    states = [colours.covered, colours.missing, colours.filled, colours.exhausted, colours.accent, colours.paper]
    assert len(set(states)) == len(states)
    assert len({colours.anchor, colours.seed, colours.generated}) == 3


def test_the_modes_differ_in_every_colour():
    for field in dataclasses.fields(palette("light")):
        assert getattr(palette("light"), field.name) != getattr(palette("dark"), field.name), field.name


@given(COLOURS)
def test_some_ink_reads_on_every_background(background):
    assert contrast(ink_on(background), background) >= MIN_CONTRAST


def test_ink_is_the_palettes_own_where_that_reads():
    assert ink_on(palette("light").paper) == palette("light").ink
    assert ink_on(palette("dark").paper) == palette("dark").ink


@given(COLOURS, COLOURS)
def test_opacity_0_is_the_ground_and_1_the_colour(colour, ground):
    assert blend(colour, 0, ground) == ground
    assert blend(colour, 1, ground) == colour


def test_half_opacity_is_the_middle():
    assert blend("#FF0064", 0.5, "#010000") == "#800032"
