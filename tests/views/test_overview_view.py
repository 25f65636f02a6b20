"""The overview on the planted loop, whose every number is documented, and on loops that stop at each stage."""

from __future__ import annotations

import dataclasses

import pytest

from facviz.cli.parser import build_parser
from facviz.prompts import task_names
from facviz.store.workspace import Workspace, open_workspace
from facviz.views.loop import Facts, list_stages
from facviz.views.overview import _next_step, label_choices, read_overview, relevance_arguments

NAMES = ["data", "sae", "spans", "explanations", "relevance", "coverage", "synthesis", "review"]


@pytest.fixture(scope="module")
def planted(planted_loop):
    """A reader of the finished loop and its manifest."""
    workspace = open_workspace(planted_loop / "workspace")
    with workspace.reader() as reader:
        yield reader, workspace.manifest


@pytest.fixture(scope="module")
def view(planted):
    return read_overview(*planted)


def parses(arguments) -> bool:
    """Whether the command line takes these words."""
    parsed = build_parser().parse_args([*arguments, "--workspace", "w", "--json", "--wait"])
    return parsed.json


def test_the_headline_says_what_the_planted_loop_came_to(view):
    found = view.headline
    assert (found.before, found.missing, found.of_anchor) == ("29 %", "12", "17")
    assert (found.after, found.gain) == ("100 %", "+71 points")
    assert found.fac == pytest.approx(5 / 17, abs=1e-4)
    assert found.measured.startswith("δ 0.5 absolute, level maybe, by label, SAE ")
    assert found.warning == ""


def test_the_sentence_counts_covered_missing_and_filled(view):
    sentence = view.headline.sentence_html
    assert "<b>seed</b> activates 5 of the 17 features that matter in <b>anchor</b>" in sentence
    assert '<b class="fv-missing">12 are missing.</b>' in sentence
    assert '<b class="fv-filled">12 new verified texts fill 12 of the 12 tried</b>: FAC 29 % → 100 %.' in sentence


def test_every_stage_says_in_numbers_what_it_did(view):
    did = {stage.key: stage.did for stage in view.stages}
    assert list(did) == NAMES
    assert did["data"] == "2 data sets, 136 texts, 1,088 content tokens"
    assert did["sae"] == "26 features at layer 1"
    assert did["spans"] == "25 features fire; 2 data sets read"
    assert did["explanations"] == "25 of 25 features explained"
    assert did["relevance"] == "17 of 25 features matter to toxicity"
    assert did["coverage"] == "5 covered, 12 missing"
    assert did["synthesis"] == "12 of 12 tried features filled"
    assert did["review"] == "none of 25 explanations"


def test_of_a_finished_loop_only_the_review_is_next(view):
    assert [stage.state for stage in view.stages] == ["done"] * 7 + ["next"]
    assert (view.next_step.page, view.next_step.title) == ("review", "25 explanations wait for a reader")
    assert (view.n_reviewed, view.n_explained) == ("0", "25")


def test_a_stage_at_work_is_running_and_one_repeated_hides_no_next_step(planted):
    repeated = read_overview(*planted, running={"sae"})
    assert [s.state for s in repeated.stages] == ["done", "running", *["done"] * 5, "next"]
    reviewed = read_overview(*planted, running={"review"})
    assert reviewed.stages[-1].state == "running"
    assert reviewed.next_step is None


def test_an_unknown_coverage_run_in_the_address_is_the_newest(planted, view):
    assert read_overview(*planted, "nothing").coverage_id == view.coverage_id == view.runs[0].coverage_id
    assert "seed against anchor · toxicity · δ 0.5 absolute · FAC 29 %" in view.runs[0].label


def test_an_empty_workspace_asks_for_data(tmp_path):
    workspace = Workspace.create(tmp_path / "empty")
    with workspace.reader() as reader:
        view = read_overview(reader, workspace.manifest)
    assert view.headline is None
    assert view.next_step.page == "data"
    assert [s.state for s in view.stages] == ["next"] + ["waiting"] * 7


def cut(facts: Facts, stage: str) -> Facts:
    """The facts as they were before a stage."""
    lost = {
        "sae": {"sae": None, "encoded": {}, "explanations": [], "relevance": [], "run": None, "synthesis": None},
        "spans": {"encoded": {}, "explanations": [], "relevance": [], "run": None, "synthesis": None},
        "explanations": {"explanations": [], "relevance": [], "run": None, "synthesis": None},
        "relevance": {"relevance": [], "run": None, "synthesis": None},
        "coverage": {"run": None, "synthesis": None},
        "synthesis": {"synthesis": None},
    }
    return dataclasses.replace(facts, **lost[stage])


@pytest.mark.parametrize("stage", ["sae", "spans", "explanations", "relevance", "coverage", "synthesis"])
def test_the_next_step_is_the_first_stage_that_is_not_done(view, stage):
    facts = cut(view.facts, stage)
    stages = list_stages(facts)
    step = _next_step(facts, stages)
    assert step.stage == stage
    assert [s.state for s in stages][: NAMES.index(stage) + 1] == ["done"] * NAMES.index(stage) + ["next"]
    assert step.page or step.asks or parses(step.arguments)


def test_the_jobs_of_the_next_steps_name_the_sae_and_the_data_sets(view):
    sae = f"--sae={view.facts.sae['sae_id']}"

    def arguments(stage):
        facts = cut(view.facts, stage)
        return _next_step(facts, list_stages(facts)).arguments

    assert arguments("spans") == ("spans", sae, "--dataset=anchor", "--dataset=seed")
    assert arguments("explanations") == ("explain", sae, "--dataset=anchor")
    words = ("--task=toxicity", "--anchor=anchor", "--seed=seed", "--relevance-source=label")
    assert arguments("coverage") == ("coverage", sae, *words)


def test_only_data_sets_not_yet_read_are_read_again(view):
    read = {view.facts.anchor["dataset_id"]: view.facts.encoded[view.facts.anchor["dataset_id"]]}
    facts = dataclasses.replace(cut(view.facts, "explanations"), encoded=read)
    assert _next_step(facts, list_stages(facts)).arguments[2:] == ("--dataset=seed",)


def test_relevance_is_asked_for_by_label_where_there_are_labels(planted, view):
    assert label_choices(planted[0], view.facts) == ["1", "0"]
    words = relevance_arguments(view.facts, "toxicity", "1")
    assert words[-1] == "--positive=1"
    unlabelled = relevance_arguments(view.facts, task_names()[0], "")
    assert unlabelled[-1] == "--source=embedding"
    for arguments in (words, unlabelled):
        assert parses(arguments)


def test_a_saturated_run_sends_to_the_threshold_and_says_so(view):
    run = {**view.facts.run, "saturated": True, "details": '{"unsaturated_threshold": 1.25}'}
    facts = dataclasses.replace(view.facts, run=run, synthesis=None)
    assert _next_step(facts, list_stages(facts)).page == "coverage"
    from facviz.views.overview import _headline

    assert "at δ 1.25 it would not be" in _headline(facts, run).warning
    assert _headline(facts, run).after == "–"


def test_names_from_data_are_escaped_in_the_sentence(view):
    run = {**view.facts.run, "seed": "<img src=x onerror=alert(1)>", "task": "<b>mine</b>"}
    facts = dataclasses.replace(view.facts, run=run)
    from facviz.views.overview import _headline

    sentence = _headline(facts, run).sentence_html
    assert "<img" not in sentence
    assert "&lt;img src=x onerror=alert(1)&gt;" in sentence
    assert "&lt;b&gt;mine&lt;/b&gt;" in sentence
