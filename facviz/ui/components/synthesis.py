"""What the synthesis page draws first: the measurement, FAC before and after, the gap closing cell by cell, live."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from facviz.jobs import Job, JobState, list_jobs
from facviz.llm.ledger import Ledger
from facviz.llm.providers import PAID_PROVIDERS
from facviz.ui import state
from facviz.ui.components import jobs
from facviz.ui.components.address import plain_markdown
from facviz.ui.components.sample_text import heat_toggle, sample_html
from facviz.ui.components.synthesis_choose import choose
from facviz.ui.components.synthesis_plan import plan_form
from facviz.ui.frame import Here
from facviz.ui.state import query_text, set_query
from facviz.views.charts import gap_cells
from facviz.views.format import count, percent
from facviz.views.progress import Tail, lines_html, live_lines, spent_words
from facviz.views.remaining import unreached
from facviz.views.samples import accepted_of
from facviz.views.synthesis import (
    Closing,
    Run,
    asked_features,
    closing,
    finished_since,
    outcome_words,
    refusal,
    run_label,
)

_TAIL, _BOOK = "fv_synthesis_tail", "fv_synthesis_book"
VIEWS = {"write": "Write", "read": "Read and decide", "left": "What remains"}


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


def choose_view(closed: Closing, *, is_running: bool) -> str:
    """Which part of the page is open, in the address: what there is to read, or what to write for."""
    asked = query_text("view")
    usual = "read" if closed.n_candidates and "features" not in st.query_params else "write"
    usual = "read" if is_running and closed.n_candidates else usual
    n_left = len(unreached(closed))
    words = {
        "write": f":material/edit_note: {VIEWS['write']}",
        "read": f":material/rate_review: {VIEWS['read']} {count(closed.n_accepted - closed.n_reviewed)}",
        "left": f":material/do_not_disturb_on: {VIEWS['left']} {count(n_left)}",
    }
    st.session_state["fv_synthesis_view"] = asked if asked in VIEWS else usual
    chosen = st.segmented_control(
        "Part of the page",
        list(VIEWS),
        format_func=words.__getitem__,
        required=True,
        label_visibility="collapsed",
        key="fv_synthesis_view",
        on_change=_open_view,
    )
    return str(chosen or usual)


def _open_view() -> None:
    state.set_query(view=st.session_state["fv_synthesis_view"])


def show_outcome(here: Here) -> None:
    """How the last synthesis of this page ended, with the way to its texts."""
    job = next((job for job in list_jobs(here.root) if job.page == "synthesis"), None)
    if job is None or job.state is not JobState.DONE or not job.result:
        return
    words = plain_markdown(f"{job.title}: {outcome_words(job.result)}")
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="fv_synthesis_outcome"):
        st.caption(f":material/check: {words}")
        if query_text("view") == "write" or "features" in st.query_params:
            st.button(
                "Read them", key="fv_synthesis_read_new", type="tertiary", on_click=_read_new, args=(job.arguments,)
            )


def _read_new(arguments: Sequence[str]) -> None:
    """Open what was written last, of its only feature where there was one."""
    features = asked_features(arguments, ())
    state.set_query(view="read", of=features[0] if len(features) == 1 else None, show=None, candidate=None)


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
    _show_live(here, closed, job, asked, done)
    newest = (accepted_of(here.database, run, f) for f in reversed(done))
    sample = next((s for s in newest if s is not None), None)
    if sample is not None:
        with st.container(border=True, key="fv_synthesis_newest"):
            with st.container(horizontal=True, horizontal_alignment="distribute"):
                st.markdown(":material/check_circle: Just filled")
                heat = heat_toggle("Show where it fires", "fv_synthesis_heat_live")
            st.html(sample_html(here, run, sample, heat=heat))


def _show_live(here: Here, closed: Closing, job: Job, asked: Sequence[int], done: Sequence[int]) -> None:
    """Feature by feature: what was written and verified, how near the best came to δ, and the dollars."""
    tail = _tail(here, job)
    tail.read_on()
    cells = {cell.feature_id: cell for cell in closed.cells}
    rows = here.database.rows("missing", coverage_id=closed.run["coverage_id"])
    bars = {row["feature_id"]: float(row["act_threshold"]) for row in rows}
    ended = {f: cells[f].state for f in done if f in cells}
    lines = live_lines(tail.tallies, asked, ended, {f: cell.label for f, cell in cells.items()}, bars)
    with st.container(border=True, key="fv_synthesis_live"):
        st.html(lines_html(lines))
        if len(asked) > len(lines):
            st.caption(f"{count(len(done))} of {count(len(asked))} features have ended.")
        if any(provider in part for part in job.arguments for provider in PAID_PROVIDERS):
            book = st.session_state.setdefault(_BOOK, Ledger(here.root))
            if words := spent_words(book.rows(), job.created_at, len(done) / max(1, len(asked))):
                st.caption(f":material/payments: {plain_markdown(words)}")


def _tail(here: Here, job: Job) -> Tail:
    known = st.session_state.get(_TAIL)
    if known is None or known[0] != job.job_id:
        known = (job.job_id, Tail(here.root / "synthesis", job.created_at))
        st.session_state[_TAIL] = known
    found: Tail = known[1]
    return found


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
            f"of {count(closed.n_missing)} missing",
            f"Missing features that a verified text nobody rejected was written for; {count(closed.n_tried)} were "
            "tried.",
        ),
        (
            "Verified texts",
            count(closed.n_accepted),
            f"of {count(closed.n_candidates)} written",
            "Texts that make their feature fire above 1.05 δ when the model reads them alone, and that pass the gates.",
        ),
        (
            "Reviewed by people",
            count(closed.n_reviewed),
            f"of {count(closed.n_accepted)}, {count(closed.n_approved)} approved",
            "Approved, edited or rejected. What a person rejected is neither counted nor exported; an edited text "
            "counts once it verified again.",
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
    if closed.besides:
        st.caption(closed.besides)


def show_writing(here: Here, closed: Closing, *, is_running: bool) -> None:
    """Which features, and how, at what cost; refuses where filling would prove nothing, or while one is at work."""
    if is_running:
        st.caption("A synthesis is running; the next can be started when it has ended.")
        return
    if why := refusal(closed.run):
        with st.container(border=True, key="fv_synthesis_refused"):
            st.text(why)
            st.page_link("pages/coverage.py", label="Choose another threshold", icon=":material/arrow_forward:")
        return
    left, right = st.columns([5, 3], gap="large")
    with left:
        chosen = choose(here, closed)
    with right:
        plan_form(here, closed.run, chosen)
