"""The map's picture and areas, against loops and numbers on paper."""

from __future__ import annotations

import json

import numpy as np
import pytest

from facviz.views.feature_map import (
    COLOURS,
    MAX_CORNERS,
    SHOW_WORDS,
    FeatureMap,
    inside,
    map_figure,
    map_words,
    parse_area,
    selected,
    write_area,
)

SQUARE = ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0))
HOSTILE = "<img src=x onerror=alert(1)> $x$"


def made_map(x, y, **columns):
    n = len(x)
    made = {
        "cluster": np.zeros(n, np.int32),
        "density": np.full(n, 0.01),
        "max_act": np.arange(n, dtype=np.float32),
        "score": np.full(n, np.nan),
        "verdict": np.array([None] * n, object),
        "status": np.array(["unreviewed"] * n, object),
        "state": np.array([""] * n, object),
        "is_dead": np.zeros(n, bool),
        "is_always_on": np.zeros(n, bool),
        "explanation": np.array(["words"] * n, object),
    }
    names = columns.pop("names", {0: "first"})
    return FeatureMap(np.arange(n) + 100, np.array(x, np.float32), np.array(y, np.float32), made | columns, names)


def drawn(figure):
    return json.loads(figure.to_json())


def test_an_area_goes_into_the_address_and_comes_back():
    text = write_area([0, 4, 4], [0, 0, 4])
    assert text == "0.00,0.00;4.00,0.00;4.00,4.00"
    assert parse_area(text) == ((0.0, 0.0), (4.0, 0.0), (4.0, 4.0))
    assert parse_area(write_area([0, 4], [0, 4])) == SQUARE


def test_a_long_outline_is_thinned_to_what_an_address_holds():
    angle = np.linspace(0, 2 * np.pi, 900)
    corners = parse_area(write_area(np.cos(angle).tolist(), np.sin(angle).tolist()))
    assert len(corners) == MAX_CORNERS
    assert all(abs(np.hypot(x, y) - 1) < 0.02 for x, y in corners)


@pytest.mark.parametrize("text", ["", "1,2", "1,2;3,4", "a,b;c,d;e,f", "1,2;3;4,5", "nan,1;2,3;4,5", "1e9,0;1,1;2,2"])
def test_no_area_where_the_address_makes_no_sense(text):
    assert parse_area(text) == ()


def test_an_outline_longer_than_an_address_holds_is_no_area():
    assert parse_area(";".join(["1,2"] * (MAX_CORNERS + 1))) == ()


def test_features_in_a_polygon_are_those_a_loop_finds():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-10, 10, (2, 400))
    area = ((-5.0, -5.0), (6.0, -4.0), (0.0, 0.5), (5.0, 7.0), (-6.0, 3.0))

    def is_inside(px, py):
        odd = False
        for (ax, ay), (bx, by) in zip(area, [*area[1:], area[0]]):
            if (ay > py) != (by > py) and px < (bx - ax) * (py - ay) / (by - ay) + ax:
                odd = not odd
        return odd

    found = made_map(x, y)
    expected = [is_inside(float(a), float(b)) for a, b in zip(found.x, found.y)]
    assert inside(found, area).tolist() == expected
    assert 50 < sum(expected) < 350
    assert list(selected(found, area)) == (100 + np.flatnonzero(expected)).tolist()


def test_words_say_how_many_lie_where():
    found = made_map([1, 2, 9], [1, 2, 9], cluster=np.array([0, 0, -1]))
    assert map_words(found, 2) == "2 features of 3 in the area"
    assert map_words(found).startswith("3 features by what they write into the model; 1 cluster, 1 ")


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_feature_is_drawn_once_in_webgl_whatever_the_colour(colour, mode):
    found = made_map(
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5],
        verdict=np.array([None, "no", "maybe", "probably", "yes"], object),
        status=np.array(["unreviewed", "accepted", "edited", "rejected", "flagged"], object),
        state=np.array(["", "covered", "filled", "exhausted", "missing"], object),
        density=np.array([0, 1e-4, 1e-3, 1e-2, 0.5]),
        score=np.array([np.nan, 0.5, 0.6, 0.7, 0.9]),
        is_dead=np.array([True, False, False, False, False]),
        is_always_on=np.array([False, True, False, False, False]),
        cluster=np.array([-1, 0, 0, 1, 11]),
    )
    figure = map_figure(found, colour, mode)
    assert {trace.type for trace in figure.data} == {"scattergl"}
    assert sorted(i for trace in figure.data for i in trace.customdata.tolist()) == [100, 101, 102, 103, 104]


def test_an_area_is_drawn_and_a_new_one_lets_go_of_the_old_outline():
    found = made_map([1], [1])
    assert not map_figure(found, "cluster", "light").layout.shapes
    figure = map_figure(found, "cluster", "light", SQUARE)
    assert figure.layout.shapes[0].path == "M 0.00 0.00 L 4.00 0.00 L 4.00 4.00 L 0.00 4.00 Z"
    assert figure.layout.selectionrevision != map_figure(found, "cluster", "light").layout.selectionrevision


def test_hostile_explanations_and_names_stay_text():
    found = made_map([1], [1], explanation=np.array([HOSTILE], object), names={0: HOSTILE})
    text = json.dumps(drawn(map_figure(found, "cluster", "light")))
    assert "<img" not in text
    assert "&lt;img" in text


def test_of_very_many_features_only_the_number_shows_so_that_the_picture_stays_light():
    n = SHOW_WORDS + 1
    rng = np.random.default_rng(0)
    figure = map_figure(made_map(rng.normal(size=n), rng.normal(size=n)), "density", "light")
    assert len(figure.to_json()) < 60 * n
    assert "%{customdata}" in figure.data[-1].hovertemplate


def test_names_that_would_touch_are_not_all_drawn():
    found = made_map([0, 0.1, 8], [0, 0.1, 8], cluster=np.array([0, 1, 2]), names={0: "a", 1: "b", 2: "c"})
    figure = map_figure(found, "density", "light")
    assert {"a", "c"} <= {a.text for a in figure.layout.annotations}
    assert "b" not in {a.text for a in figure.layout.annotations}
