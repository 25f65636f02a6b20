"""Overview: the loop as a walk-through, from the first data set to the reviewed result."""

import streamlit as st

from facviz.ui.components.jobs import watch
from facviz.ui.components.overview import (
    choose_run,
    headline,
    next_step,
    report_button,
    reset_demo_button,
    running_stages,
    stage_cards,
)
from facviz.ui.frame import empty, page
from facviz.ui.state import query_text
from facviz.views.overview import read_overview

with page("overview") as here:
    manifest = here.database.workspace.manifest
    view = read_overview(here.database, manifest, query_text("coverage"), running_stages(here.root))
    if view.facts.datasets:
        choose_run(view)
        headline(view, here.mode)
    else:
        empty(
            "Nothing has been compared yet",
            "This page shows how much of a task your texts cover and what fills the gap; it starts with two data sets.",
            page="data",
            button="Add the first data set",
        )
    watch(here.root, "overview")
    if view.facts.datasets:
        next_step(here, view)
    st.subheader("How it came about" if view.runs else "The way there", anchor=False)
    stage_cards(view.stages)
    with st.container(horizontal=True):
        if view.runs:
            report_button(here.root)
        reset_demo_button(here)
