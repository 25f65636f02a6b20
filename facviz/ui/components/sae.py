"""What the SAE page draws of the autoencoders that are there: numbers, table, curves, densities, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from facviz.jobs import Job, list_jobs
from facviz.store.training import TrainingCourse
from facviz.ui.components.jobs import EVERY, start
from facviz.ui.components.sae_health import preserved
from facviz.ui.frame import Here
from facviz.ui.resources import text_key
from facviz.ui.state import mode, query_text, set_query
from facviz.views.charts import density_histogram, training_curves
from facviz.views.facts import facts_html
from facviz.views.format import UNKNOWN, count, number
from facviz.views.loop import explain_arguments, spans_arguments
from facviz.views.palette import Mode
from facviz.views.sae import (
    Encoding,
    SaeRow,
    course_words,
    densities,
    finished_course,
    headline,
    running_courses,
)
from facviz.views.sae_quality import Evaluation, Evaluations, fit_of, loss_words

_CONFIG = {"displayModeBar": False}


def training_job(jobs: Sequence[Job]) -> Job | None:
    """The training that runs now, whoever started it."""
    return next((j for j in jobs if j.is_active and j.arguments[:2] == ("sae", "train")), None)


@st.fragment(run_every=EVERY, key="fv_sae_live")
def live_curves(root: Path, since: float) -> None:
    """The curves of a training while it runs, of one SAE at a time; nothing until its first step."""
    if training_job(list_jobs(root)) is None:
        st.rerun()
    courses = running_courses(root, since)
    if not courses:
        return
    names = list(courses)
    name = names[0]
    if len(names) > 1:
        latest = {n: f"{n[:6]} · FVU {number(courses[n].series['fvu'][-1])}" for n in names}
        name = st.selectbox("SAE in training", names, format_func=lambda n: latest[n], key="fv_sae_live") or name
    _curves(courses[name], mode(), "fv_sae_live_curves")


def metrics(row: SaeRow, encodings: Sequence[Encoding]) -> None:
    """The four numbers of the chosen SAE."""
    for column, (label, value, explanation) in zip(st.columns(4), headline(row, encodings)):
        column.metric(label, value, help=explanation)


def chosen_sae(rows: Sequence[SaeRow]) -> SaeRow:
    """The SAE that the address names, else the newest."""
    return next((row for row in rows if row.sae_id == query_text("sae")), rows[-1])


def table(rows: Sequence[SaeRow], chosen: SaeRow, evaluations: Evaluations) -> None:
    """All SAEs, the newest on top; choosing one shows it."""
    shown = list(reversed(rows))
    found = st.dataframe(
        [_cells(row, evaluations.get(row.sae_id, ())) for row in shown],
        key=f"fv_sae_table_{text_key(chosen.sae_id, *(row.sae_id for row in shown))}",
        width="stretch",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row-required",
        selection_default={"selection": {"rows": [shown.index(chosen)], "columns": [], "cells": []}},
        placeholder="–",
        column_config=_COLUMNS,
        alt="SAEs with architecture, layer, features, k, FVU, L0, dead and always-on features, cost and fit",
    )
    picked = found["selection"]["rows"]
    if picked and picked[0] < len(shown) and shown[picked[0]].sae_id != chosen.sae_id:
        set_query(sae=shown[picked[0]].sae_id)
        st.rerun()


def detail(here: Here, row: SaeRow, encodings: Sequence[Encoding], evaluations: Sequence[Evaluation]) -> None:
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
    with left:
        preserved(evaluations)
    with right:
        st.markdown("**Where it is from**")
        kept = [] if course is not None else [("Course of training", _no_course(row))]
        st.html(facts_html([*row.provenance, *kept]))
        if row.notes:
            st.markdown(
                "**How its file was read**", help="What was not stated and inferred, or folded into the weights."
            )
            st.html(facts_html([(str(i), note) for i, note in enumerate(row.notes, start=1)]))


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


def _cells(row: SaeRow, evaluations: Sequence[Evaluation]) -> dict[str, object]:
    fit, (delta_ce, ce_score) = fit_of(evaluations), loss_words(evaluations)
    return {
        "SAE": row.sae_id[:6],
        "Fit": fit.words if fit else None,
        "Architecture": row.architecture,
        "Layer": str(row.layer) if row.site == "resid" else f"{row.layer} · {row.site}",
        "Features": row.d_sae,
        "k": row.k,
        "FVU": None if row.fvu is None else number(row.fvu),
        "L0": None if row.l0 is None else number(row.l0),
        "Dead": row.n_dead,
        "Always-on": row.n_always_on,
        "ΔCE": None if delta_ce == UNKNOWN else delta_ce,
        "CE score": None if ce_score == UNKNOWN else ce_score,
    }


_COLUMNS = {
    "Features": st.column_config.NumberColumn(format="localized"),
    "Fit": st.column_config.TextColumn(help="Whether it fits the model at its layer, from the newest health check."),
    "ΔCE": st.column_config.TextColumn(help="Nats of cross-entropy that the model loses with the SAE spliced in."),
    "CE score": st.column_config.TextColumn(help="Share kept of what the mean activation in its place would lose."),
}
