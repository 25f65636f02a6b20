"""Numbers, times and texts as people read them: three digits, thousands, honest rounding, unknown as a dash."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.views.format import (
    UNKNOWN,
    ago,
    count,
    count_of,
    duration,
    interval_percent,
    number,
    percent,
    short,
    signed_points,
    size,
    visible,
)

NOW = datetime(2026, 3, 31, 12, 0, tzinfo=UTC)
BIDI = "\u202e\u2066\u200b\ufeff\u00ad"


@pytest.mark.parametrize("show", [number, count, percent, signed_points, duration, size])
@pytest.mark.parametrize("nothing", [None, math.nan, np.float32("nan"), math.inf, -math.inf])
def test_what_is_unknown_is_a_dash_and_never_a_zero(show, nothing):
    assert show(nothing) == UNKNOWN


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (-0.0, "0"),
        (7, "7"),
        (np.int64(7), "7"),
        (-7, "−7"),
        (1234567, "1,230,000"),
        (12.345, "12.3"),
        (9.996, "10.0"),
        (999.6, "1,000"),
        (0.5, "0.500"),
        (0.012345, "0.0123"),
        (-3.14159, "−3.14"),
        (np.float32(2.5), "2.50"),
        (0.0000123, "1.23 × 10⁻⁵"),
        (1.5e20, "1.50 × 10²⁰"),
    ],
)
def test_a_number_has_three_significant_digits(x, text):
    assert number(x) == text


@given(st.floats(1e-4, 1e14))
def test_the_shown_number_is_within_half_a_unit_of_its_third_digit(x):
    assert float(number(x).replace(",", "")) == pytest.approx(x, rel=0.00501)


@pytest.mark.parametrize(("n", "text"), [(0, "0"), (65536, "65,536"), (-1200, "−1,200"), (np.int32(1000), "1,000")])
def test_a_count_has_thousands_separators(n, text):
    assert count(n) == text


@pytest.mark.parametrize(("n", "text"), [(0, "0 features"), (1, "1 feature"), (2000, "2,000 features")])
def test_a_number_has_its_noun_in_the_right_form(n, text):
    assert count_of(n, "feature") == text


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0, "0 %"),
        (0.62, "62 %"),
        (0.1, "10 %"),
        (0.0996, "10 %"),
        (0.0994, "9.9 %"),
        (0.031, "3.1 %"),
        (1, "100 %"),
        (0.98765, "99 %"),
        (1.5, "150 %"),
    ],
)
def test_a_percentage_has_a_decimal_only_below_ten(x, text):
    assert percent(x) == text


@given(st.floats(1e-12, 1 - 1e-12))
def test_rounding_never_turns_some_into_none_or_all(x):
    assert percent(x) not in {"0 %", "0.0 %", "100 %"}


def test_an_interval_stands_in_brackets_with_the_digits_of_its_value():
    assert interval_percent(0.62, 0.58, 0.66) == "62 % (58–66)"
    assert interval_percent(0.095, 0.081, 0.11) == "9.5 % (8.1–11.0)"


def test_an_unknown_interval_is_left_out_and_an_unknown_value_is_unknown():
    assert interval_percent(0.62, None, 0.66) == "62 %"
    assert interval_percent(0.62, 0.58, math.nan) == "62 %"
    assert interval_percent(None, 0.58, 0.66) == UNKNOWN


@pytest.mark.parametrize(
    ("x", "text"),
    [(0.12, "+12 points"), (-0.034, "−3.4 points"), (0.0, "±0 points"), (-0.0000001, "±0 points"), (0.5, "+50 points")],
)
def test_a_difference_of_shares_is_in_signed_points(x, text):
    assert signed_points(x) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.3, "< 1 s"),
        (12.4, "12 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (47 * 3600, "47 h 00 min"),
        (51 * 3600, "2 d 03 h"),
        (-1, UNKNOWN),
    ],
)
def test_a_duration_uses_the_two_largest_units(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (timedelta(seconds=0), "just now"),
        (timedelta(seconds=-20), "just now"),
        (timedelta(seconds=50), "1 min ago"),
        (timedelta(minutes=59, seconds=40), "1 h ago"),
        (timedelta(hours=26), "26 h ago"),
        (timedelta(days=3), "3 d ago"),
        (timedelta(days=40), "2026-02-19"),
        (timedelta(days=-1), "2026-04-01"),
    ],
)
def test_a_moment_is_told_by_its_distance(before, text):
    assert ago(NOW - before, NOW) == text
    assert ago((NOW - before).isoformat(), NOW) == text


def test_moments_of_other_zones_and_without_a_zone_are_compared_in_utc():
    east = datetime(2026, 3, 31, 14, 0, tzinfo=timezone(timedelta(hours=5)))
    assert ago(east, NOW) == "3 h ago"
    assert ago("2026-03-31T09:00:00", NOW.replace(tzinfo=None)) == "3 h ago"


@pytest.mark.parametrize("damaged", [None, "", "yesterday", "<b>"])
def test_a_damaged_moment_is_unknown(damaged):
    assert ago(damaged, NOW) == UNKNOWN


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9_437_184, "9.44 MB"), (999_999, "1.00 MB"), (3.2e18, "3,200 PB")],
)
def test_a_size_is_in_decimal_units(n, text):
    assert size(n) == text


def test_a_long_text_is_cut_at_a_word():
    assert short("the quick brown fox jumps", 16) == "the quick brown…"
    assert short("the quick brown fox", 14) == "the quick…"
    assert short("fits", 4) == "fits"


def test_a_long_word_is_cut_inside():
    assert short("a" * 50, 10) == "a" * 9 + "…"
    assert short("to " + "a" * 50, 10) == "to aaaaaa…"


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_text_is_unknown(nothing):
    assert short(nothing, 10) == UNKNOWN


@given(st.text(min_size=1), st.integers(2, 40))
def test_a_short_text_is_never_longer_than_asked_and_always_visible(text, n):
    line = short(text, n)
    assert 0 < len(line) <= n
    assert line == visible(line)


def test_control_and_direction_characters_become_visible():
    assert visible("a\nb\tc\x00\x1b\x7f\r") == "a↵b→c␀␛␡␍"
    assert visible(BIDI) == r"\u202e\u2066\u200b\ufeff\xad"
    assert visible("\ud800") == r"\ud800"


def test_letters_marks_emoji_and_joiners_stay_as_they_are():
    text = "naïve שלום 漢字 e\u0301 👩\u200d🔬 می\u200cخواهم \u3000"
    assert visible(text) == text


@given(st.text())
def test_visible_text_can_be_written_as_utf8_and_has_no_line_end(text):
    line = visible(text)
    assert line.encode().decode() == line
    assert len(line.splitlines()) <= 1
    assert visible(line) == line
