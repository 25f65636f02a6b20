"""Results of stages in one sentence: those of the planted loop, and of shapes nobody expected."""

from __future__ import annotations

import pytest

from facviz.store.workspace import open_workspace
from facviz.views.facts import facts_html
from facviz.views.results import describe_result


@pytest.fixture(scope="module")
def summaries(planted_loop):
    """What every stage of the finished loop reported, by stage; of the spans as the command prints them."""
    manifest = open_workspace(planted_loop / "workspace").manifest
    stages = ("data", "sae", "spans", "explain", "relevance", "coverage", "synthesize")
    found = {stage: list(manifest.latest_done(stage).values()) for stage in stages}
    return {stage: rows[0] for stage, rows in found.items()} | {"spans": {"spans": found["spans"]}}


@pytest.mark.parametrize(
    ("arguments", "stage", "sentence"),
    [
        (("data", "add", "/x"), "data", "anchor: 96 texts with 768 content tokens."),
        (("spans", "--dataset=anchor"), "spans", "25 features fire on anchor; 13 features fire on seed."),
        (("explain",), "explain", "25 of 25 features explained."),
        (("relevance",), "relevance", "17 of 25 features matter to toxicity."),
        (("coverage",), "coverage", "FAC 29 %: 12 of 17 features are missing from seed."),
    ],
)
def test_a_stage_of_the_planted_loop_is_one_sentence(summaries, arguments, stage, sentence):
    assert describe_result(arguments, summaries[stage]) == sentence


def test_an_sae_and_a_synthesis_name_their_numbers(summaries):
    assert describe_result(("sae", "load", "/x"), summaries["sae"]).endswith(": 26 features at layer 1.")
    trained = summaries["sae"] | {"fvu": 0.237, "l0": 16.58}
    assert describe_result(("sae", "train"), trained).endswith("layer 1, FVU 0.237, L0 16.6.")
    measured = {"sae_id": "abcdefgh", "dataset": "anchor", "fvu": 0.5, "l0": 2.0, "dead": 1}
    assert (
        describe_result(("sae", "eval", "x"), measured) == "SAE abcdef on anchor: FVU 0.500, L0 2.00, 1 dead features."
    )
    done = describe_result(("synthesize",), summaries["synthesize"])
    assert done.startswith("12 of 12 features filled by 12 verified texts out of ")
    assert done.endswith("FAC 29 % → 100 %.")


def test_left_out_rows_are_named_only_where_there_are_any(summaries):
    some = summaries["data"] | {"n_duplicates": 1200, "n_dropped": 3}
    assert describe_result(("data", "add"), some).endswith(", 1,200 duplicates and 3 rows left out.")


@pytest.mark.parametrize("arguments", [("data", "add"), ("sae", "train"), ("spans",), ("coverage",), ("unknown",), ()])
@pytest.mark.parametrize("result", [{}, {"spans": 3}, {"fvu": "x", "sae_id": 1}])
def test_a_result_of_another_shape_is_no_sentence_and_no_error(arguments, result):
    assert describe_result(arguments, result) == ""


def test_facts_are_escaped_on_both_sides():
    html = facts_html([("<b>name</b>", "<script>alert(1)</script>")])
    assert "<script" not in html
    assert "&lt;b&gt;name&lt;/b&gt;" in html
    assert "&lt;script&gt;" in html
