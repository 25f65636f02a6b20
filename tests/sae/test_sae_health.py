"""Verdicts from planted error sums whose figures a person can work out."""

import math

import numpy as np
import pytest

from facviz.errors import SaeError
from facviz.sae.health import ErrorSums, judge_health

DEVIATION = np.array([60.0, 100.0, 140.0, 100.0, 80.0, 120.0])


def sums(layer, fvu, template=True, tilt=0.0):
    """Equal FVU in every document, but for a tilt that raises it in every other one and lowers it between."""
    signs = np.array([1, -1, 1, -1, 1, -1]) * DEVIATION.mean() / DEVIATION
    return ErrorSums(layer, template, DEVIATION * (fvu + tilt * signs), DEVIATION)


RANGE = [sums(11, 0.345), sums(12, 0.329), sums(13, 0.293), sums(14, 0.368), sums(15, 0.442), sums(13, 0.319, False)]


def judge(rows=RANGE, layer=13, template=True, **changes):
    return judge_health(rows, layer=layer, template=template, **changes)


def test_the_best_layer_with_a_matching_record_fits_and_both_templates_show():
    health = judge(recorded_fvu=0.25)
    assert health.verdict == "fits"
    assert health.given is health.best
    assert health.sentence == (
        "The SAE fits layer 13 with the template (FVU 0.293; without a template 0.319): nothing near is better, and "
        "the recorded FVU is 0.250."
    )


@pytest.mark.parametrize("record", [None, math.nan, math.inf, -1.0])
def test_without_a_usable_record_the_best_layer_is_plausible(record):
    health = judge(recorded_fvu=record)
    assert health.verdict == "plausible"
    assert "no FVU is on record" in health.sentence


@pytest.mark.parametrize(("record", "verdict"), [(0.2344, "fits"), (0.2343, "does not fit"), (0.0, "does not fit")])
def test_the_record_agrees_up_to_a_quarter_more(record, verdict):
    health = judge(recorded_fvu=record)
    assert health.verdict == verdict
    assert ("1.25 × the recorded FVU" in health.sentence) == (verdict == "does not fit")


def test_a_perfect_record_agrees_with_a_perfect_measurement_up_to_its_digits():
    assert judge([sums(0, 1e-12), sums(1, 0.2)], layer=0, recorded_fvu=0.0).verdict == "fits"


@pytest.mark.parametrize("layer", [11, 12, 14, 15])
def test_an_sae_at_another_layer_is_sent_to_its_own(layer):
    health = judge(layer=layer, recorded_fvu=0.293)
    assert health.verdict == "does not fit"
    assert "fits better at layer 13 with the template (FVU 0.293)." in health.sentence
    assert (health.given.layer, health.best.layer) == (layer, 13)


def test_a_template_mismatch_shows_both_figures():
    health = judge(template=False, recorded_fvu=0.293)
    assert health.sentence == (
        "The SAE does not fit layer 13 without a template (FVU 0.319): it fits better at layer 13 with the template "
        "(FVU 0.293)."
    )


def test_without_a_template_to_compare_no_sentence_speaks_of_one():
    assert "template" not in judge([s for s in RANGE if s.template], recorded_fvu=0.29).sentence
    assert "template" not in judge([s for s in RANGE if s.template], layer=12).sentence


def test_worse_than_the_mean_is_another_model_or_normalisation():
    health = judge([sums(12, 3.0), sums(13, 2.0), sums(14, 4.0)], recorded_fvu=5.0)
    assert health.verdict == "does not fit"
    assert "another model" in health.sentence
    assert "normalised differently" in health.sentence
    assert "fits better" not in health.sentence


def test_worse_than_the_mean_here_but_good_nearby_says_both():
    health = judge([sums(12, 0.3), sums(13, 2.0)])
    assert "normalised differently, or it fits better at layer 12 (FVU 0.300)" in health.sentence


def test_a_better_neighbour_that_is_itself_far_above_the_record_casts_doubt_on_the_model():
    assert "may belong to another model" in judge(layer=12, recorded_fvu=0.05).sentence
    assert "another model" not in judge(layer=12, recorded_fvu=0.29).sentence


def test_a_gap_that_every_document_shows_counts_however_much_documents_differ():
    apart = [sums(13, 0.50, tilt=0.2), sums(14, 0.49, tilt=0.2)]
    health = judge(apart)
    assert health.verdict == "does not fit"
    assert health.best.high < health.given.fvu < health.given.high


def test_a_gap_that_hangs_on_a_few_documents_does_not_count():
    health = judge([sums(13, 0.50), sums(14, 0.49, tilt=0.2)], recorded_fvu=0.5)
    assert health.verdict == "fits"
    assert health.best.layer == 14
    assert health.best.low < health.given.fvu < health.best.high


def test_equal_figures_leave_the_given_layer_the_best():
    health = judge([sums(12, 0.3), sums(13, 0.3), sums(14, 0.3)], recorded_fvu=0.3)
    assert (health.verdict, health.best) == ("fits", health.given)


def test_the_table_is_ranked_and_its_figures_are_ratios_of_sums():
    mixed = ErrorSums(13, True, np.array([1.0, 30.0]), np.array([10.0, 50.0]))
    other = ErrorSums(12, True, np.array([1.0, 1.0]), np.array([10.0, 50.0]))
    table = judge([mixed, other]).table
    assert [c.layer for c in table] == [12, 13]
    assert [c.fvu for c in table] == [pytest.approx(2 / 60), pytest.approx(31 / 60)]


def test_documents_without_variance_leave_intervals_finite():
    rows = [ErrorSums(n, True, np.array([0.0, f, f]), np.array([0.0, 1.0, 1.0])) for n, f in ((1, 0.2), (2, 0.4))]
    assert all(math.isfinite(c.low) and math.isfinite(c.high) for c in judge(rows, layer=2).table)


def test_the_same_seed_gives_the_same_intervals():
    rows = [sums(13, 0.5, tilt=0.1), sums(14, 0.49)]
    assert judge(rows, rng_seed=3) == judge(rows, rng_seed=3)
    assert judge(rows, rng_seed=3).given.low != judge(rows, rng_seed=4).given.low


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([sums(12, 0.3)], "Layer 13 itself was not measured"),
        ([ErrorSums(13, True, np.array([1.0]), np.array([2.0]))], "give more documents"),
        ([ErrorSums(13, True, np.zeros(3), np.zeros(3))], "give more documents"),
        ([sums(13, 0.3), sums(14, math.inf)], "overflow"),
    ],
)
def test_what_cannot_be_judged_is_refused(rows, message):
    with pytest.raises(SaeError, match=message):
        judge(rows)
