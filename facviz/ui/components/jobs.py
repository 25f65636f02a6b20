"""A running job where it was started: pace, time left, stop, resume; drawn again by itself while something runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from facviz.errors import FacvizError
from facviz.jobs import Job, JobState, list_jobs, resume_job, start_job, stop_job
from facviz.views.format import count, duration, number

EVERY = "2s"
_ICONS = {
    JobState.WAITING: ":material/hourglass_empty:",
    JobState.RUNNING: ":material/progress_activity:",
    JobState.DONE: ":material/check_circle:",
    JobState.FAILED: ":material/error:",
    JobState.STOPPED: ":material/stop_circle:",
    JobState.INTERRUPTED: ":material/bolt:",
}


def start(root: Path, *, title: str, page: str, arguments: Sequence[str]) -> None:
    """Start a stage as a child process; a failure to start is said on the page."""
    try:
        start_job(root, title=title, page=page, arguments=arguments)
    except FacvizError as error:
        st.error(str(error))
        return
    st.rerun()


def watch(root: Path, page: str) -> bool:
    """The newest job that this page started, live while it runs; whether one is active.

    The page is drawn again as a whole when the job ends, so that its results appear.
    """
    newest = next((job for job in list_jobs(root) if job.page == page), None)
    if newest is None:
        return False
    if newest.is_active:
        _live(root, page, newest.job_id)
    elif newest.state is not JobState.DONE:
        job_card(root, newest, where=page)
    return newest.is_active


@st.fragment(run_every=EVERY, key="fv_live_job")
def _live(root: Path, page: str, job_id: str) -> None:
    job = next((j for j in list_jobs(root) if j.job_id == job_id), None)
    if job is None or not job.is_active:
        st.rerun()
    else:
        job_card(root, job, where=page)


def job_card(root: Path, job: Job, *, where: str) -> None:
    """One job: what it does, how far it is, and what can be done about it."""
    with st.container(border=True, key=f"fv_job_{where}_{job.job_id}"):
        left, right = st.columns([5, 1], vertical_alignment="center")
        with left:
            st.markdown(heading(job))
            if job.is_active:
                st.progress(job.progress or 0.0)
                st.caption(_plain(pace(job)))
            if job.error:
                st.text(job.error)
        with right:
            actions(root, job, where)


def heading(job: Job) -> str:
    """Icon, title and state, for a Markdown place."""
    return f"{_ICONS[job.state]} **{_plain(job.title)}** · {job.state.value}"


def pace(job: Job) -> str:
    """Stage, amount, rate and time left in one line."""
    if not job.is_active:
        return ""
    if job.state is JobState.WAITING:
        return "Waiting for another stage that is writing to this workspace."
    parts = [job.stage or "starting"]
    if job.done is not None:
        parts.append(f"{count(job.done)} of {count(job.total)}" if job.total else count(job.done))
    if job.note:
        parts.append(job.note)
    if job.rate:
        parts.append(f"{number(job.rate)} per second")
    if job.eta_seconds is not None:
        parts.append(f"{duration(job.eta_seconds)} left")
    return " · ".join(parts)


def actions(root: Path, job: Job, where: str) -> None:
    """Stop or resume, whichever is possible."""
    key = f"{where}_{job.job_id}"
    if job.is_active and st.button("Stop", key=f"fv_stop_{key}", icon=":material/stop:", width="stretch"):
        _try(lambda: stop_job(root, job.job_id))
    if job.can_resume and st.button("Resume", key=f"fv_resume_{key}", icon=":material/play_arrow:", width="stretch"):
        _try(lambda: resume_job(root, job.job_id))


def _try(action: object) -> None:
    try:
        action()  # type: ignore[operator]
    except FacvizError as error:
        st.error(str(error))
        return
    st.rerun(scope="app")


def _plain(text: str) -> str:
    """Text for Markdown places, without its special characters."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|<>~$:" else c for c in text)
