"""The coverage page: how much of what the task needs the seed set shows, and which features it misses."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from facviz.ui import measured
from facviz.ui.components import coverage as parts
from facviz.ui.components import coverage_curves as curves
from facviz.ui.components import coverage_missing as listed
from facviz.ui.components import coverage_sets as sets
from facviz.ui.components.jobs import watch
from facviz.ui.frame import Here, empty, page
from facviz.views.coverage import Question, coverage_choices, coverage_runs, stored_run, usable_saes
from facviz.views.live import Live
from facviz.views.missing import headline
from facviz.views.provenance import provenance


def show(here: Here, runs: Sequence[Mapping[str, Any]], saes: Sequence[str]) -> None:
    """The question, its answer, and what is missing."""
    line, about, change = st.columns([5, 1.2, 1.2], vertical_alignment="center")
    with change.popover("Change", icon=":material/tune:", width="stretch", key="fv_coverage_change"):
        choices = coverage_choices(here.database, parts.ask_sae(saes), runs)
        question, kind = parts.ask(choices)
    task, lens = measured.lens(here.database, question)
    line.html(parts.inputs_line(question, lens))
    left, right = st.columns([4, 7], gap="large")
    with left:
        answer = st.container()
        default = choices.threshold if kind == choices.kind else parts.USUAL_THRESHOLD
        threshold = parts.threshold_slider(lens, kind, default)
        live = parts.measure(here, question, kind, threshold)
    if live is None:
        return
    sure = parts.interval(here, question, live)
    filled, tried, states = parts.states_of(here, question, live)
    run = stored_run(runs, question, live)
    with about.popover("Inputs", icon=":material/info:", width="stretch", key="fv_coverage_inputs"):
        parts.show_provenance(provenance(here.database, question, lens, live, sure))
    with answer:
        parts.show_headline(headline(question, live, sure, task))
    with left:
        parts.keep_button(here, question, live, run)
    with right:
        curves.show_themes(here, question, live, task, filled, tried)
        parts.show_saturation(live)
    watch(here.root, "coverage")
    parts.show_metrics(live, sure, filled)
    curves.show_curves(live, here)
    section = parts.choose_section()
    if section == "missing":
        missing(here, question, live, run, states)
    elif section == "levels":
        curves.show_levels(here, question, live)
    elif section == "sets":
        sets.show_sets(here, question, live, sets.choose_sets(question, choices.datasets))
        sets.show_difference(here, question, live, choices.datasets)
    else:
        sets.show_wording(here, question, live, sets.choose_sets(question, choices.datasets))


def missing(here: Here, question: Question, live: Live, run: Mapping[str, Any] | None, states: dict[int, str]) -> None:
    """The list to choose from."""
    task, _ = measured.lens(here.database, question)
    words, button = st.columns([4, 2], vertical_alignment="bottom")
    words.subheader("What is missing", anchor=False, help="Each with the anchor text in which it fired strongest.")
    with button.container(horizontal_alignment="right"):
        listed.write_button(live, task, run, states)
    if live.n_missing:
        listed.show_missing(here, question, live, task, states)
    else:
        st.caption("Nothing: the seed set activates every counted feature at this threshold.")


with page("coverage") as here:
    runs = coverage_runs(here.database, list(here.database.workspace.manifest.latest_done("coverage")))
    saes = usable_saes(here.database, runs)
    if saes:
        show(here, runs, saes)
    else:
        empty(
            "No gap to show yet",
            "Coverage compares two encoded data sets on the features that matter to a task.",
            page="overview",
            button="See what is to be done first",
        )
