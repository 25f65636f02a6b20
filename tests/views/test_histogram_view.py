"""The histogram's picture: every place between 0 and 1, pale below δ, round ticks, and words for who cannot see it."""

from __future__ import annotations

import json
import math

import pytest

from facviz.views.histogram import Histogram, Marked, picture, tick_words, ticks
from facviz.views.palette import palette

FOUND = Histogram([0.0, 1.0, 2.0, 4.0], [100, 0, 1], 101)
DELTA = Marked(1.0, "δ 1.00")


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_bars_stand_where_their_bins_are_and_are_pale_below_the_threshold(mode):
    drawn = picture(FOUND, mode, [DELTA, Marked(3.0, "your text 3.00", is_own=True)])
    low, high = drawn["bars"]  # the empty bin has none
    assert (low["x"], low["width"], high["x"], high["width"]) == (0.0, 0.25, 0.5, 0.5)
    assert (low["height"], 0 < high["height"] < 0.2) == (1.0, True)
    assert high["colour"] == palette(mode).covered != low["colour"]
    assert low["title"] == "activation 0 to 1.00: 100 texts"
    assert [(line["x"], line["words"], line["solid"]) for line in drawn["lines"]] == [
        (0.25, "δ 1.00", False),
        (0.75, "your text 3.00", True),
    ]
    assert drawn["alt"] == ("Histogram of the highest activation in each of 101 texts. δ 1.00. your text 3.00.")
    assert json.loads(json.dumps(drawn)) == drawn


def test_a_value_beyond_the_last_bin_makes_room_for_itself():
    drawn = picture(FOUND, "light", [Marked(8.0, "your text 8.00", is_own=True)])
    assert drawn["top"] == 8.0
    assert max(bar["x"] + bar["width"] for bar in drawn["bars"]) == 0.5
    assert drawn["lines"][0]["x"] == 1.0


def test_a_feature_that_never_fires_has_an_empty_picture():
    drawn = picture(None, "dark", [DELTA])
    assert (drawn["bars"], drawn["y_ticks"], drawn["hint"]) == ([], [], "")
    assert drawn["alt"] == "The feature fires on none of these texts."
    assert picture(None, "dark")["top"] == 1.0


@pytest.mark.parametrize("top", [1e-4, 0.037, 0.9, 1.0, 5.0, 22.7, 41.5, 999.0, 123456.0])
def test_ticks_are_few_round_and_inside(top):
    found = ticks(top)
    assert found[0] == 0
    assert 3 <= len(found) <= 6
    assert found[-1] <= top * 1.001
    step = found[1] / 10 ** math.floor(math.log10(found[1]) + 1e-9)
    assert min(abs(step - s) for s in (1, 2, 2.5, 5, 10)) < 1e-6


@pytest.mark.parametrize(
    ("top", "words"),
    [
        (22.7, ["0", "5", "10", "15", "20"]),
        (0.9, ["0", "0.2", "0.4", "0.6", "0.8"]),
        (12000, ["0", "2,500", "5,000", "7,500", "10,000"]),
        (11.0, ["0", "2.5", "5.0", "7.5", "10.0"]),
    ],
)
def test_ticks_are_written_alike(top, words):
    assert tick_words(ticks(top)) == words


def test_no_range_has_one_tick():
    assert ticks(0.0) == [0.0]
