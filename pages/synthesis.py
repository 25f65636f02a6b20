"""The synthesis page: texts for missing features, written, verified, read and handed over."""

import streamlit as st

from facviz.ui.components import synthesis as parts
from facviz.ui.components.jobs import watch
from facviz.ui.components.samples import sample_actions, show_samples
from facviz.ui.components.synthesis_remaining import show_remaining
from facviz.ui.frame import empty, page
from facviz.views.coverage import coverage_runs

with page("synthesis") as here:
    runs = coverage_runs(here.database, list(here.database.workspace.manifest.latest_done("coverage")))
    if not runs:
        empty(
            "No texts yet",
            "Texts are written for the missing features of a kept coverage measurement, and there is none.",
            page="coverage",
            button="Measure coverage first",
        )
        st.stop()
    line, change = st.columns([5, 1.3], vertical_alignment="center")
    with change.popover("Change", icon=":material/tune:", width="stretch", key="fv_synthesis_change"):
        run = parts.choose_run(runs)
    line.html(parts.inputs_line(run))
    job = parts.active_job(here)
    watch(here.root, "synthesis")
    closed = parts.closed_so_far(here, run)
    if job is not None:
        parts.live_picture(here, run, job, closed.n_candidates)
    else:
        parts.picture(here, closed)
        parts.show_outcome(here)
    with st.container(horizontal=True, vertical_alignment="center"):
        view = parts.choose_view(closed, is_running=job is not None)
        st.space("stretch")
        if closed.n_candidates:
            sample_actions(here, closed)
    if view == "write":
        parts.show_writing(here, closed, is_running=job is not None)
    elif view == "read":
        show_samples(here, closed)
    else:
        show_remaining(here, closed)
