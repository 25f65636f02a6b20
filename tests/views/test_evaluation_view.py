"""An evaluation in words: clear or not, beside what it is measured against, every label as text."""

from __future__ import annotations

import copy

import pytest

from facviz.errors import InputError
from facviz.store.manifest import Scope
from facviz.views.evaluation import (
    evaluation_arguments,
    evaluation_choices,
    evaluation_label,
    list_evaluations,
    read_evaluation,
)
from facviz.views.evaluation_charts import (
    arm_intervals,
    coverage_over_samples,
    quality_over_coverage,
    quality_over_samples,
)

CHARTS = (arm_intervals, quality_over_samples, coverage_over_samples, quality_over_coverage)


def changed(summary, arm, **gain):
    found = copy.deepcopy(summary)
    row = next(a for a in found["arms"] if a["arm"] == arm)
    row["gain"] |= gain
    return found


def test_a_clear_gain_is_said_with_its_share_of_what_real_texts_bring(evaluation_summary):
    said = read_evaluation(evaluation_summary).sentence
    assert said == (
        "Adding 31 verified samples lifts AUPRC from 0.525 to 0.949, 95 % of what as many real texts bring."
    )


def test_an_interval_around_zero_is_no_clear_difference(evaluation_summary):
    found = read_evaluation(changed(evaluation_summary, "paper", value=0.01, low=-0.02, high=0.04))
    assert "+0.0100 (−0.0200 to +0.0400): no clear difference" in found.sentence
    loss = read_evaluation(changed(evaluation_summary, "paper", value=-0.1, low=-0.2, high=-0.04))
    assert "lowers AUPRC" in loss.sentence
    assert "a clear loss" in loss.arms[1].sentence


def test_generated_negatives_are_a_column_and_words_only_where_there_are_any(evaluation_summary):
    plain = read_evaluation(evaluation_summary)
    assert not any("generated" in column for arm in plain.arms for column in arm.row)
    found = copy.deepcopy(evaluation_summary)
    found["n_generated_negative"] = 77
    found["arms"][1]["mixed"] = {"auprc": 0.9, "low": 0.88, "high": 0.92}
    mixed = read_evaluation(found)
    cells = [arm.row["With 77 generated negatives"] for arm in mixed.arms]
    assert cells == ["–", "0.900 (0.880–0.920)", "–", "–"]
    assert "With 77 of the negatives generated it has 0.900." in mixed.arms[1].sentence
    assert "77 of the negatives are texts that the same writer made unasked" in mixed.labels
    assert "a control" not in plain.labels
    del found["n_generated_negative"], found["arms"][1]["mixed"]  # as an evaluation of an earlier version was stored
    assert read_evaluation(found).arms == plain.arms


def test_the_metrics_name_floor_arm_real_texts_and_ceiling(evaluation_summary):
    found = read_evaluation(evaluation_summary)
    assert [(label, value) for label, value, *_ in found.metrics] == [
        ("Seed set alone", "0.525"),
        ("With 31 samples", "0.949"),
        ("With 31 real texts", "0.973"),
        ("All real texts", "0.983"),
    ]
    assert found.metrics[0][2] == "floor 0.525"


def test_the_probe_is_said_beside_every_arm_and_chance_is_named(evaluation_summary):
    seed, paper, _, gold = read_evaluation(evaluation_summary).arms
    assert "nothing to learn" in seed.sentence
    assert "A head tells them from real texts of the positive class (AUROC 0.73" in paper.sentence
    assert "cannot tell them from" in gold.sentence
    assert paper.row["Told from real"] == "0.730 (0.680–0.780)"


def test_labels_duplicates_and_the_common_half_are_told(evaluation_summary):
    found = read_evaluation(evaluation_summary)
    assert "nobody judged it" in found.labels
    assert "141 exact and 22 near duplicates" in found.inputs[0]
    assert any("half for testing included" in line for line in found.limits)
    assert "other themes" not in found.labels
    assert (
        "3 samples for features of other themes" in read_evaluation(evaluation_summary | {"n_other_themes": 3}).labels
    )


def test_correlations_stand_with_and_without_the_real_texts(evaluation_summary):
    with_gold, without, undefined = read_evaluation(evaluation_summary).correlations
    assert "Over arms of equal size: r = 0.979, 4 points, 95 % interval 0.298 to 1" in with_gold
    assert "without real texts: r = 0.978" in without
    assert "no interval for so few points" in without
    assert "without real texts and the seed set alone: not defined for 1 point." in undefined


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_chart_shows_every_arm_and_no_markup_of_theirs(evaluation_summary, chart, mode):
    evaluation_summary["arms"][1]["arm"] = "<b>evil</b>"
    for point in evaluation_summary["frontier"]:
        point["arm"] = point["arm"].replace("paper", "<b>evil</b>")
    figure = chart(read_evaluation(evaluation_summary), mode)
    drawn = figure.to_json()
    assert "evil" in drawn
    assert "<b>evil" not in drawn.replace("\\u003c", "<")


def test_the_arms_chart_has_floor_and_ceiling_and_a_dot_an_arm(evaluation_summary):
    figure = arm_intervals(read_evaluation(evaluation_summary), "light")
    assert {shape.x0 for shape in figure.layout.shapes} == {0.5253, 0.9833}
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.x[0] for trace in dots] == [0.5253, 0.9485, 0.9205, 0.9727]


def test_without_gold_there_is_no_ceiling_and_no_comparison_with_it(evaluation_summary):
    evaluation_summary["arms"] = evaluation_summary["arms"][:2]
    evaluation_summary["ceiling"] = None
    found = read_evaluation(evaluation_summary)
    assert "real texts" not in found.sentence
    assert len(arm_intervals(found, "light").layout.shapes) == 1
    assert len(found.metrics) == 2


def test_the_newest_evaluation_comes_first(database, evaluation_summary):
    manifest = database.workspace.manifest
    for name in ("a", "b"):
        scope = Scope("evaluate", name * 12, name * 16)
        manifest.mark_done(scope, evaluation_summary | {"eval_id": name * 12})
    assert list(list_evaluations(manifest)) == ["b" * 12, "a" * 12]
    assert "tested on messages" in evaluation_label(evaluation_summary)


def test_only_runs_with_samples_and_data_sets_with_labels_can_be_chosen(database):
    runs = database.rows("coverage")
    choices = evaluation_choices(database, [*runs, runs[0] | {"coverage_id": "without"}])
    assert [r["coverage_id"] for r in choices.runs] == [runs[0]["coverage_id"]]
    assert choices.datasets == ("anchor", "seed")
    assert set(choices.labels) == {"0", "1"}


def test_a_wish_becomes_flags_and_a_comma_in_a_label_is_refused(database):
    [run] = database.rows("coverage")
    told = evaluation_arguments(run, test="--help", positive=["1"], n_seeds=2)
    assert told == [
        "evaluate",
        "--task=toxicity",
        f"--coverage={run['coverage_id']}",
        "--n-seeds=2",
        "--test=--help",
        "--positive=1",
    ]
    with pytest.raises(InputError, match="comma"):
        evaluation_arguments(run, positive=["a,b"])
