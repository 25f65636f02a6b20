"""What the synthesis page draws: the gap closing cell by cell, and what is chosen and set before texts are written."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from facviz.errors import InputError
from facviz.jobs import Job, list_jobs
from facviz.ui.components import jobs
from facviz.ui.components.samples import heat_toggle, sample_html
from facviz.ui.frame import Here
from facviz.ui.state import query_ids, query_text, set_query
from facviz.views.charts import gap_cells
from facviz.views.format import count, percent
from facviz.views.samples import accepted_of
from facviz.views.synthesis import (
    Closing,
    Run,
    Settings,
    Targets,
    asked_features,
    closing,
    finished_since,
    pace_of,
    projection,
    refusal,
    run_label,
    synthesis_arguments,
    targets,
)

_FEATURES = "fv_synthesis_features"
_THEME = "fv_synthesis_theme"


def choose_run(runs: Sequence[Run]) -> Run:
    """The measurement whose gap is filled, in the address; the newest at first."""
    by_id = {run["coverage_id"]: run for run in runs}
    ids, asked = list(by_id), query_text("coverage")
    chosen = st.selectbox(
        "Measurement",
        ids,
        index=ids.index(asked) if asked in by_id else 0,
        format_func=lambda coverage_id: run_label(by_id[coverage_id]),
        key="fv_synthesis_run",
        help="Texts are written for the missing features of one kept coverage measurement.",
    )
    set_query(coverage=chosen if chosen != ids[0] else None)
    return by_id[chosen]


def inputs_line(run: Run) -> str:
    """What is filled, as escaped HTML."""
    parts = [run_label(run), f"task {run['task']} by {run['relevance_source']}", f"SAE {run['sae_id'][:8]}"]
    return f'<div class="fv-quiet">{escape(" · ".join(parts))}</div>'


def active_job(here: Here) -> Job | None:
    """The synthesis that this page started and that still runs."""
    return next((job for job in list_jobs(here.root) if job.page == "synthesis" and job.is_active), None)


def closed_so_far(here: Here, run: Run, waiting: Sequence[int] = ()) -> Closing:
    """Where a run stands by what is written until now."""
    return closing(here.database, run, here.database.workspace.manifest.latest_done("synthesize"), waiting)


def picture(here: Here, closed: Closing) -> None:
    """Counts and cells."""
    show_metrics(closed)
    show_cells(here, closed)


@st.fragment(run_every=jobs.EVERY, key="fv_live_gap")
def live_picture(here: Here, run: Run, job: Job, n_shown: int) -> None:
    """The same while a synthesis runs: cells turn green one by one, with the text that did it.

    With every new text the whole page is drawn again, for it lists `n_shown` of them below.
    """
    here.database.sync()
    done = finished_since(here.database.workspace.manifest.entries(), job.created_at)
    asked = asked_features(job.arguments, closed_so_far(here, run).cells)
    closed = closed_so_far(here, run, [f for f in asked if f not in done])
    if closed.n_candidates != n_shown:
        st.rerun()
    picture(here, closed)
    newest = (accepted_of(here.database, run, f) for f in reversed(done))
    sample = next((s for s in newest if s is not None), None)
    if sample is not None:
        with st.container(border=True, key="fv_synthesis_newest"):
            with st.container(horizontal=True, horizontal_alignment="distribute"):
                st.markdown(":material/check_circle: Just filled")
                heat = heat_toggle("Show where it fires", "fv_synthesis_heat_live")
            st.html(sample_html(here, run, sample, heat=heat))


def show_metrics(closed: Closing) -> None:
    """FAC before → after, and what it took."""
    shown = [
        (
            "FAC",
            percent(closed.fac_before if closed.fac_after is None else closed.fac_after),
            f"{closed.gain} from {percent(closed.fac_before)}" if closed.gain else "before any text",
            closed.counted,
        ),
        (
            "Features filled",
            count(closed.n_filled),
            f"of {count(closed.n_tried)} tried, {count(closed.n_missing)} missing",
            "Missing features that a verified text nobody rejected was written for.",
        ),
        (
            "Verified texts",
            count(closed.n_accepted),
            f"of {count(closed.n_candidates)} candidates",
            "Texts that make their feature fire above 1.05 δ when the model reads them alone, and that pass the gates.",
        ),
        (
            "Reviewed by people",
            count(closed.n_reviewed),
            f"of {count(closed.n_accepted)}, {count(closed.n_approved)} approved",
            "What a person rejected is neither counted nor exported.",
        ),
    ]
    for column, (label, value, beside, explanation) in zip(st.columns(4), shown):
        if label == "FAC" and closed.gain:
            column.metric(label, value, beside, help=explanation)
        else:
            column.metric(label, value, beside, delta_color="off", delta_arrow="off", help=explanation)


def show_cells(here: Here, closed: Closing) -> None:
    """One square a missing feature."""
    alt = f"{count(closed.n_filled)} of {count(closed.n_missing)} missing features are filled."
    figure = gap_cells(closed.cells, here.mode)
    st.plotly_chart(
        figure, theme=None, width="content", key="fv_synthesis_cells", config={"displayModeBar": False}, alt=alt
    )


def start_form(here: Here, closed: Closing) -> None:
    """Which features, with what settings, at what cost; refuses where filling would prove nothing."""
    run = closed.run
    if why := refusal(run):
        with st.container(border=True, key="fv_synthesis_refused"):
            st.text(why)
            st.page_link("pages/coverage.py", label="Choose another threshold", icon=":material/arrow_forward:")
        return
    found = targets(here.database, closed)
    with st.container(border=True, key="fv_synthesis_form"):
        with st.container(horizontal=True, vertical_alignment="center"):
            chosen = _choose(found)
            settings = _settings()
            st.space("stretch")
            is_wanted = st.button(
                "Write texts",
                key="fv_synthesis_start",
                type="primary",
                icon=":material/edit_note:",
                disabled=not chosen,
            )
        st.caption(projection(len(chosen), settings, pace_of(list_jobs(here.root))))
        if is_wanted:
            _start(here, run, chosen, settings)


def _choose(found: Targets) -> list[int]:
    """Features by words or by theme; the address or the most relevant untried ones at first."""
    known = set(found.ids)
    first = [f for f in query_ids("features") if f in known] or list(found.suggested)
    amount = len(st.session_state.get(_FEATURES, first))
    words = f"{count(amount)} missing {'feature' if amount == 1 else 'features'}"
    with st.popover(words, icon=":material/checklist:", key="fv_synthesis_choice"):
        if found.themes:
            st.selectbox(
                "All of one theme",
                ["", *found.themes],
                format_func=lambda theme: f"{theme} ({len(found.themes[theme])})" if theme else "–",
                key=_THEME,
                on_change=_choose_theme,
                args=(found,),
            )
        chosen = st.multiselect(
            "Write texts for",
            found.ids,
            default=first,
            format_func=lambda f: found.labels[f],
            key=_FEATURES,
            help="Most relevant first. The suggested ones are the most relevant that nobody tried yet.",
            placeholder="Choose missing features by what they respond to",
            width=520,
        )
    set_query(features=",".join(map(str, chosen)) if chosen != list(found.suggested) else None)
    return chosen


def _choose_theme(found: Targets) -> None:
    if theme := st.session_state.get(_THEME):
        st.session_state[_FEATURES] = list(found.themes[theme])


def _settings() -> Settings:
    usual = Settings()
    with st.popover("Settings", icon=":material/tune:", key="fv_synthesis_settings"):
        return Settings(
            per_feature=st.number_input(
                "Verified texts per feature", 1, 50, usual.per_feature, key="fv_synthesis_per_feature"
            ),
            max_candidates=st.number_input(
                "Candidates per feature at most",
                1,
                1000,
                usual.max_candidates,
                key="fv_synthesis_max_candidates",
                help="Step-2 candidates before a feature counts as exhausted.",
            ),
            temperature=st.slider(
                "Temperature",
                0.1,
                2.0,
                usual.temperature,
                0.05,
                key="fv_synthesis_temperature",
                help="Higher is wilder.",
            ),
            top_p=st.slider("Top-p", 0.05, 1.0, usual.top_p, 0.05, key="fv_synthesis_top_p"),
        )


def _start(here: Here, run: Run, chosen: Sequence[int], settings: Settings) -> None:
    try:
        arguments = synthesis_arguments(run, chosen, settings)
    except InputError as error:
        st.error(str(error))
        return
    title = f"Write texts for {count(len(chosen))} missing features of {run['seed']}"
    jobs.start(here.root, title=title, page="synthesis", arguments=arguments)
