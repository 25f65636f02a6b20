"""The synthesis page: texts for missing features, written, verified, read and handed over."""

import streamlit as st

from facviz.ui.components import synthesis as parts
from facviz.ui.components.jobs import watch
from facviz.ui.components.samples import show_samples
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
        parts.start_form(here, closed)
    show_samples(here, closed)
