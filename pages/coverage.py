"""The coverage page: how much of what the task needs the seed set shows, and which features it misses."""

import streamlit as st

from facviz.ui import resources
from facviz.ui.components import coverage as parts
from facviz.ui.components.jobs import watch
from facviz.ui.frame import Here, empty, page
from facviz.views.coverage import Choices, coverage_choices, coverage_runs, stored_run, usable_saes
from facviz.views.missing import headline


def show(here: Here, runs: list, choices: Choices, above: st.delta_generator.DeltaGenerator) -> None:
    """Everything below the title, for the question that was asked."""
    question, kind = parts.ask(choices)
    gap, lens = resources.lens(here.database, question)
    above.html(parts.inputs_line(question, lens, gap))


with page("coverage") as here:
    finished = list(here.database.workspace.manifest.latest_done("coverage"))
    runs = coverage_runs(here.database, finished)
    saes = usable_saes(here.database, runs)
    if not saes:
        empty(
            "No gap to show yet",
            "Coverage compares two encoded data sets on the features that matter to a task.",
            page="overview",
            button="See what is to be done first",
        )
