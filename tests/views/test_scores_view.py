"""Scores as people read them: the baseline beside, the judge named, an earlier wording marked, everything escaped."""

import json

import pytest

from facviz.views.scores import read_scores, scores_html

ROW = {
    "kind": "detection",
    "judge": "anthropic/<b>m</b>",
    "explainer": "facviz",
    "negatives": "nearest",
    "chance": 0.5,
    "n": 20,
    "n_invalid": 2,
    "n_positive": 10,
    "accuracy": 0.8,
    "low": 0.58,
    "high": 0.92,
    "sensitivity": 0.9,
    "specificity": 0.7,
    "shuffled": 0.55,
    "n_shuffled": 20,
    "intervals": json.dumps([{"interval": 3, "n": 5, "accuracy": 1.0, "low": 0.5, "high": 1.0}]),
    "is_current": True,
}


class Rows:
    def __init__(self, *rows):
        self._rows = rows

    def rows(self, query, **parameters):
        assert query == "feature_scores"
        return list(self._rows)


def scores(*changes):
    return read_scores(Rows(*[ROW | change for change in changes]), "s", 1)


def test_a_score_stands_with_interval_baseline_n_and_judge():
    (row,) = scores({}).rows
    assert (row.value, row.n) == ("80 % (58–92)", "20")
    html = scores_html(scores({}))
    assert "other label 55 %" in html
    assert "n 20" in html
    assert "10 of 20 texts with the feature" in html
    assert "strongest quarter 100 % of 5" in html
    assert "2 answers could not be read" in html
    assert "nearest features" in html


def test_no_text_from_outside_becomes_markup():
    html = scores_html(scores({}))
    assert "<b>m" not in html
    assert "&lt;b&gt;m" in html


def test_a_score_of_an_earlier_wording_and_a_judge_of_itself_say_so():
    found = scores({"is_current": False, "explainer": "same", "judge": "same"})
    assert found.is_stale
    assert "of an earlier wording" in scores_html(found)
    assert "the explainer judges itself" in scores_html(found)
    assert not scores({}).is_stale


def test_what_was_not_measured_is_unknown_and_never_a_number():
    found = scores({"accuracy": None, "low": None, "high": None, "n": 0, "shuffled": None})
    assert found.rows[0].value == "–"
    html = scores_html(found)
    assert "fv-score-dot" not in html
    assert "no other label was tried" in html


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.5, 1.0, 7.0])
def test_marks_stay_on_the_bar(share):
    import re

    html = scores_html(scores({"accuracy": share, "low": share, "high": share, "shuffled": share}))
    assert all(0 <= float(place) <= 100 for place in re.findall(r"(?:left|width):([\d.-]+)%", html))


def test_scores_come_in_one_order_whatever_was_asked_first():
    found = scores({"kind": "intruder"}, {"kind": "embedding"}, {"kind": "fuzzing"}, {"kind": "detection"})
    assert [row.kind for row in found.rows] == ["embedding", "detection", "fuzzing", "intruder"]
