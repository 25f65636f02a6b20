"""The coverage page: how much of what the task needs the seed set shows, and which features it misses."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from facviz.ui import resources
from facviz.ui.components import coverage as parts
from facviz.ui.components.jobs import watch
from facviz.ui.frame import Here, empty, page
from facviz.views.coverage import Live, Question, coverage_choices, coverage_runs, stored_run, usable_saes
from facviz.views.missing import headline


def show(here: Here, runs: Sequence[Mapping[str, Any]], saes: Sequence[str]) -> None:
    """The question, its answer, and what is missing."""
    line, change = st.columns([5, 1.3], vertical_alignment="center")
    with change.popover("Change", icon=":material/tune:", width="stretch", key="fv_coverage_change"):
        choices = coverage_choices(here.database, parts.ask_sae(saes), runs)
        question, kind = parts.ask(choices)
    gap, lens = resources.lens(here.database, question)
    line.html(parts.inputs_line(question, lens, gap))
    left, right = st.columns([4, 7], gap="large")
    with left:
        answer = st.container()
        default = choices.threshold if kind == choices.kind else question.config.threshold
        threshold = parts.threshold_slider(lens, kind, default)
        live = parts.measure(here, question, kind, threshold)
    if live is None:
        return
    filled, tried, states = parts.states_of(here, question, live)
    run = stored_run(runs, question, live)
    with answer:
        parts.show_headline(headline(question, live, gap))
    with left:
        parts.keep_button(here, question, live, run)
    with right:
        parts.show_themes(parts.shares_of(question, live, gap, filled, tried), here)
        parts.show_saturation(live)
    watch(here.root, "coverage")
    parts.show_metrics(live, filled, run)
    parts.show_curves(live, here)
    missing(here, question, live, run, states)


def missing(here: Here, question: Question, live: Live, run: Mapping[str, Any] | None, states: dict[int, str]) -> None:
    """The list to choose from."""
    gap, _ = resources.lens(here.database, question)
    words, button = st.columns([4, 2], vertical_alignment="bottom")
    words.subheader("What is missing", anchor=False, help="Each with the anchor text in which it fired strongest.")
    with button.container(horizontal_alignment="right"):
        parts.write_button(live, gap, run, states)
    if live.n_missing:
        parts.show_missing(here, question, live, gap, states)
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
