"""All jobs of a workspace: what runs, drawn again by itself; what ended, with its result, log, and a way to go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import streamlit as st

from facviz.errors import FacvizError
from facviz.jobs import Job, JobState, delete_job, list_jobs, read_log, stop_job
from facviz.ui.components.jobs import EVERY, actions, heading, job_card
from facviz.ui.frame import PAGES_FOLDER
from facviz.views.format import ago, count, duration
from facviz.views.results import describe_result

SHOWN = 30
_SHORT_LOG = 800
_UNFINISHED = (JobState.FAILED, JobState.INTERRUPTED, JobState.STOPPED)
_WHY = {
    JobState.STOPPED: "Stopped on request; what it finished is kept.",
    JobState.INTERRUPTED: "Its process is gone, killed or by a restart of the machine; what it finished is kept.",
}
_FORCE = "It was asked to stop and did not. Finished work is kept; the part in hand is redone when it goes on."
_DELETE = "The record and its log go; what the job wrote into the workspace stays."


def metrics(jobs: Sequence[Job]) -> None:
    """How many jobs stand where."""
    words = {
        "Running": (JobState.RUNNING,),
        "Waiting": (JobState.WAITING,),
        "Done": (JobState.DONE,),
        "Not finished": _UNFINISHED,
    }
    helps = {
        "Waiting": "For another stage that writes to this workspace.",
        "Not finished": "Failed, stopped, or cut off.",
    }
    for column, (label, states) in zip(st.columns(4), words.items()):
        column.metric(label, count(sum(job.state in states for job in jobs)), help=helps.get(label))


def running(root: Path, jobs: Sequence[Job]) -> None:
    """What is at work, refreshed every two seconds and only then."""
    active = [job for job in jobs if job.is_active]
    if active:
        st.subheader("At work", anchor=False)
        _live(root, [job.job_id for job in active])


def ended(root: Path, jobs: Sequence[Job]) -> None:
    """First what can go on, then what is done, the newest first."""
    for title, states in (("Not finished", _UNFINISHED), ("Done", (JobState.DONE,))):
        found = [job for job in jobs if job.state in states]
        if found:
            st.subheader(title, anchor=False)
        for job in found[:SHOWN]:
            _ended_job(root, job)
        if len(found) > SHOWN:
            st.caption(f"{count(len(found) - SHOWN)} older ones are not shown.")


@st.fragment(run_every=EVERY, key="fv_jobs_live")
def _live(root: Path, expected: list[str]) -> None:
    active = [job for job in list_jobs(root) if job.is_active]
    if [job.job_id for job in active] != expected:
        st.rerun()
    for job in active:
        _active_job(root, job)


def _active_job(root: Path, job: Job) -> None:
    job_card(root, job, where="jobs")
    left, right = st.columns([5, 1])
    with left:
        _log(root, job)
    with right:
        _origin(job)
        if job.can_kill:
            _asked_once(job, "End by force", _FORCE, lambda: stop_job(root, job.job_id, kill=True))


def _ended_job(root: Path, job: Job) -> None:
    with st.container(border=True, key=f"fv_jobs_ended_{job.job_id}"):
        left, right = st.columns([5, 1])
        with left.container(gap="xsmall"):
            st.markdown(heading(job))
            st.text(_came_of_it(job))
            with st.container(horizontal=True, vertical_alignment="center"):
                st.caption(_times(job), width="content")
                _origin(job)
            _log(root, job)
        with right:
            actions(root, job, "jobs")
            _asked_once(job, "Delete", _DELETE, lambda: delete_job(root, job.job_id))


def _came_of_it(job: Job) -> str:
    """The result, the error, or why there is neither."""
    if job.result:
        return describe_result(job.arguments, job.result) or "It ended well."
    return job.error or _WHY.get(job.state, "")


def _times(job: Job) -> str:
    ended_at = job.ended_at or job.updated_at or job.created_at
    when = ago(datetime.fromtimestamp(ended_at, UTC), datetime.now(UTC))
    took = f", took {duration(job.ended_at - job.started_at)}" if job.ended_at and job.started_at else ""
    return f"{when}{took}"


def _origin(job: Job) -> None:
    """A link to the page that started it, when that is one of ours."""
    if job.page.isidentifier() and (PAGES_FOLDER / f"{job.page}.py").is_file():
        name = "SAE" if job.page == "sae" else job.page.capitalize()
        st.page_link(f"pages/{job.page}.py", label=name, icon=":material/arrow_forward:", icon_position="right")


def _asked_once(job: Job, label: str, consequence: str, action: Callable[[], object]) -> None:
    key = f"{job.job_id}_{label.split()[0].lower()}"
    with st.popover(label, key=f"fv_jobs_ask_{key}", type="tertiary", width="stretch"):
        st.caption(consequence)
        if st.button(label, key=f"fv_jobs_do_{key}"):
            try:
                action()
            except FacvizError as error:
                st.error(str(error))
                return
            st.rerun(scope="app")


def _log(root: Path, job: Job) -> None:
    """Read only when opened, and shown as it stands."""
    with st.expander("Log", key=f"fv_jobs_log_{job.job_id}", on_change="rerun", type="compact") as log:
        if log.open:
            text = read_log(root, job.job_id) or "Nothing was written."
            st.code(text, language=None, wrap_lines=True, height=280 if len(text) > _SHORT_LOG else "content")
