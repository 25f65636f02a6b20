"""What the SAE page draws of the autoencoders that are there: numbers, table, curves, densities, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from facviz.jobs import Job, JobState, list_jobs
from facviz.store.training import TrainingCourse
from facviz.ui.components.jobs import EVERY, start
from facviz.ui.frame import Here
from facviz.ui.state import mode, query_text, set_query
from facviz.views.charts import density_histogram, training_curves
from facviz.views.facts import facts_html
from facviz.views.format import count, number
from facviz.views.loop import explain_arguments, spans_arguments
from facviz.views.palette import Mode
from facviz.views.sae import (
    Encoding,
    SaeRow,
    course_words,
    densities,
    finished_course,
    headline,
    newest_course,
)

_CONFIG = {"displayModeBar": False}


def measured_by_jobs(jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
    """What `facviz sae eval` found of each SAE, newest first, by sae_id."""
    done = [j.result for j in jobs if j.arguments[:2] == ("sae", "eval") and j.state is JobState.DONE and j.result]
    return {result["sae_id"]: result for result in reversed(done) if "sae_id" in result}


def training_job(jobs: Sequence[Job]) -> Job | None:
    """The training that runs now, whoever started it."""
    return next((j for j in jobs if j.is_active and j.arguments[:2] == ("sae", "train")), None)


@st.fragment(run_every=EVERY, key="fv_sae_live")
def live_curves(root: Path, since: float) -> None:
    """The curves of a training while it runs; nothing until its first step."""
    if training_job(list_jobs(root)) is None:
        st.rerun()
    course = newest_course(root, since)
    if course is not None:
        _curves(course, mode(), "fv_sae_live_curves")


def metrics(row: SaeRow, encodings: Sequence[Encoding]) -> None:
    """The four numbers of the chosen SAE."""
    for column, (label, value, explanation) in zip(st.columns(4), headline(row, encodings)):
        column.metric(label, value, help=explanation)


def chosen_sae(rows: Sequence[SaeRow]) -> SaeRow:
    """The SAE that the address names, else the newest."""
    return next((row for row in rows if row.sae_id == query_text("sae")), rows[-1])


def table(rows: Sequence[SaeRow], chosen: SaeRow) -> None:
    """All SAEs, the newest on top; choosing one shows it."""
    shown = list(reversed(rows))
    found = st.dataframe(
        [_cells(row) for row in shown],
        key="fv_sae_table",
        width="stretch",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row-required",
        selection_default={"selection": {"rows": [shown.index(chosen)], "columns": [], "cells": []}},
        placeholder="–",
        column_config={name: st.column_config.NumberColumn(format="localized") for name in ("Features", "Tokens")},
        alt="SAEs with architecture, layer, features, k, FVU, L0, dead and always-on features and training tokens",
    )
    picked = found["selection"]["rows"]
    if picked and picked[0] < len(shown) and shown[picked[0]].sae_id != chosen.sae_id:
        set_query(sae=shown[picked[0]].sae_id)
        st.rerun()


def detail(here: Here, row: SaeRow, encodings: Sequence[Encoding]) -> None:
    """How the training went, how often features fire, and where the SAE is from."""
    course = finished_course(here.database.workspace, row.sae_id)
    left, right = st.columns(2, gap="large")
    if course is not None:
        with left:
            st.markdown("**How training went**")
            _curves(course, here.mode, "fv_sae_curves")
    with left if course is None else right:
        st.markdown("**How often features fire**")
        _densities(here, row, encodings)
    with right:
        st.markdown("**Where it is from**")
        kept = [] if course is not None else [("Course of training", _no_course(row))]
        st.html(facts_html([*row.provenance, *kept]))


def next_step(here: Here, row: SaeRow, encodings: Sequence[Encoding], datasets: Sequence[str], is_busy: bool) -> None:
    """Read data sets with this SAE, then explain its features; nothing once both are done."""
    unread = [name for name in datasets if name not in {e.dataset for e in encodings}]
    can_explain = bool(encodings) and not here.database.rows("explanation_states", sae_id=row.sae_id)
    if not unread and not can_explain:
        return
    with st.container(border=True, key="fv_sae_next"):
        if unread:
            _read(here, row, unread, is_busy, is_primary=not encodings)
        if can_explain:
            _explain(here, row, encodings, is_busy)


def measure(here: Here, row: SaeRow, datasets: Sequence[str], is_busy: bool) -> None:
    """For an SAE nobody measured: FVU, L0 and dead features over a data set, as a job."""
    if row.fvu is not None or not datasets:
        return
    with st.container(border=True, key="fv_sae_measure"):
        words, choice, action = st.columns([4, 2, 2], vertical_alignment="bottom")
        words.html('<b>Measure it</b><div class="fv-quiet">FVU and L0 over all content tokens of a data set.</div>')
        name = choice.selectbox("Data set", datasets, key="fv_sae_measure_on")
        with action:
            if st.button("Measure", key="fv_sae_measure_start", width="stretch", disabled=is_busy):
                arguments = ("sae", "eval", row.sae_id, f"--dataset={name}")
                start(here.root, title=f"Measure the SAE {row.sae_id[:6]} on {name}", page="sae", arguments=arguments)


def _read(here: Here, row: SaeRow, unread: Sequence[str], is_busy: bool, *, is_primary: bool) -> None:
    words, choice, action = st.columns([4, 4, 2], vertical_alignment="bottom")
    words.html('<b>Read features</b><div class="fv-quiet">Find where every feature fires in a data set.</div>')
    names = choice.multiselect("Data sets", unread, unread, key=f"fv_sae_read_{row.sae_id}")
    kind = "primary" if is_primary else "secondary"
    with action:
        if st.button("Read features", key="fv_sae_read", type=kind, width="stretch", disabled=is_busy or not names):  # type: ignore[arg-type]
            title = f"Read the features of {' and '.join(names)}"
            start(here.root, title=title, page="sae", arguments=spans_arguments(row.sae_id, names))


def _explain(here: Here, row: SaeRow, encodings: Sequence[Encoding], is_busy: bool) -> None:
    words, choice, action = st.columns([4, 4, 2], vertical_alignment="bottom")
    words.html('<b>Explain features</b><div class="fv-quiet">Say in words what each feature responds to.</div>')
    name = choice.selectbox("From the spans of", [e.dataset for e in encodings], key=f"fv_sae_explain_{row.sae_id}")
    with action:
        if st.button("Explain features", key="fv_sae_explain", type="primary", width="stretch", disabled=is_busy):
            start(here.root, title="Explain the features", page="sae", arguments=explain_arguments(row.sae_id, name))


def _curves(course: TrainingCourse, look: Mode, key: str) -> None:
    figure = training_curves(course.steps, course.series, look)
    st.plotly_chart(
        figure, theme=None, width="stretch", key=key, config=_CONFIG, alt=f"Training curves, {course_words(course)}"
    )


def _densities(here: Here, row: SaeRow, encodings: Sequence[Encoding]) -> None:
    if not encodings:
        st.caption("No data set has been read with this SAE yet, so nobody knows how often its features fire.")
        return
    names = [e.dataset for e in encodings]
    name = names[0]
    if len(names) > 1:
        name = (
            st.segmented_control(
                "Data set",
                names,
                default=names[0],
                required=True,
                key=f"fv_sae_density_{row.sae_id}",
                label_visibility="collapsed",
            )
            or names[0]
        )
    encoding = encodings[names.index(name)]
    figure = density_histogram(densities(here.database, row.sae_id, encoding.dataset_id), here.mode)
    figure.update_xaxes(title_text="share of content tokens with the feature (log scale)")
    n_dead = encoding.n_features - encoding.n_active
    alt = f"Features by density on {name}: {count(n_dead)} dead, {count(encoding.n_always_on)} always on"
    st.plotly_chart(figure, theme=None, width="stretch", key="fv_sae_density", config=_CONFIG, alt=alt)


def _no_course(row: SaeRow) -> str:
    return "not kept" if row.is_trained_here else "not known of a loaded SAE"


def _cells(row: SaeRow) -> dict[str, object]:
    return {
        "SAE": row.sae_id[:6],
        "Architecture": row.architecture,
        "Layer": f"{row.layer} · {row.hook_name}" if row.hook_name else str(row.layer),
        "Features": row.d_sae,
        "k": row.k,
        "FVU": None if row.fvu is None else number(row.fvu),
        "L0": None if row.l0 is None else number(row.l0),
        "Dead": row.n_dead,
        "Always-on": row.n_always_on,
        "Tokens": row.n_tokens,
    }
