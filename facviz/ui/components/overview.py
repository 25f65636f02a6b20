"""What the overview draws: the result in large, the stages as cards, and the next step with its button."""

from __future__ import annotations

import tempfile
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from facviz.jobs import list_jobs
from facviz.pipeline.demo import demo_id, reset_demo
from facviz.pipeline.export import export
from facviz.prompts import task_names
from facviz.store.workspace import open_workspace
from facviz.ui.components.jobs import start
from facviz.ui.frame import Here
from facviz.ui.state import set_query
from facviz.views.charts import before_after
from facviz.views.loop import JOB_STAGES, Stage
from facviz.views.overview import EVERY_LABEL, NextStep, Overview, label_choices, relevance_arguments
from facviz.views.palette import Mode

CARDS_A_ROW = 4
_LABEL_SHARE = 0.36  # of the axis, that the words beside a dot may take
_SIGNS = {
    "done": (":material/check_circle:", "green"),
    "running": (":material/progress_activity:", "blue"),
    "next": (":material/arrow_circle_right:", "primary"),
    "waiting": (":material/radio_button_unchecked:", "gray"),
}


def running_stages(root: Path) -> frozenset[str]:
    """Stages that a job is working on now."""
    active = [job.arguments[0] for job in list_jobs(root) if job.is_active and job.arguments]
    return frozenset(JOB_STAGES[command] for command in active if command in JOB_STAGES)


def choose_run(view: Overview) -> None:
    """Which coverage run the page is about, when there are several."""
    if len(view.runs) < 2:
        return
    ids = [run.coverage_id for run in view.runs]
    labels = {run.coverage_id: run.label for run in view.runs}
    chosen = st.selectbox(
        "Coverage run",
        ids,
        index=ids.index(view.coverage_id),
        format_func=lambda i: labels[i],
        key=f"fv_overview_run_{view.coverage_id}",
    )
    if chosen != view.coverage_id:
        set_query(coverage=chosen)
        st.rerun()


def headline(view: Overview, mode: Mode) -> None:
    """Three numbers, the sentence to repeat, and before → after as a picture."""
    found = view.headline
    before, missing, after, reviewed = st.columns(4)
    bounds = found.before_interval.partition(" (")[2].rstrip(")") if found else ""
    _metric(before, "FAC before", found.before if found else "–", f"interval {bounds} %" if bounds else None, _FAC_HELP)
    of_anchor = f"of {found.of_anchor} that matter" if found else None
    _metric(missing, "Missing features", found.missing if found else "–", of_anchor, _MISSING_HELP)
    after.metric("FAC after", found.after if found else "–", (found.gain or None) if found else None, help=_AFTER_HELP)
    _metric(reviewed, "Explanations reviewed", view.n_reviewed, f"of {view.n_explained}", _REVIEWED_HELP)
    if found is None:
        return
    if found.warning:
        st.html(f'<p class="fv-missing">{escape(found.warning)}</p>')
    said, drawn = st.columns([5, 6], gap="large", vertical_alignment="center")
    said.html(f'<p class="fv-say">{found.sentence_html}</p><p class="fv-quiet">{escape(found.measured)}</p>')
    figure = before_after(found.fac, found.fac_after, mode, before_interval=found.interval)
    ends = [x for x in (found.fac, found.fac_after) if x is not None]
    figure.update_xaxes(range=[min(0, min(ends) - _LABEL_SHARE) - 0.02, max(1, max(ends) + _LABEL_SHARE) + 0.02])
    drawn.plotly_chart(
        figure,
        theme=None,
        width="stretch",
        key="fv_overview_before_after",
        config={"displayModeBar": False},
        alt=f"FAC before {found.before_interval}, after {found.after}",
    )


def next_step(here: Here, view: Overview) -> None:
    """What to do now, with the page's one primary button."""
    step = view.next_step
    if step is None:
        return
    with st.container(border=True, key="fv_overview_next"):
        words, action = st.columns([4, 1], vertical_alignment="center")
        words.html(
            f'<div class="fv-quiet">Next step</div><div style="font-weight:600;font-size:1.05rem">{escape(step.title)}'
            f'</div><div class="fv-quiet">{escape(step.why)}</div>'
        )
        arguments = _relevance_choices(here, view) if step.asks else step.arguments
        with action:
            _act(here.root, step, arguments)


def stage_cards(stages: tuple[Stage, ...]) -> None:
    """The eight stages in order, four a row."""
    for first in range(0, len(stages), CARDS_A_ROW):
        for column, stage in zip(st.columns(CARDS_A_ROW), stages[first : first + CARDS_A_ROW]):
            with column.container(
                border=True,
                height="stretch",
                vertical_alignment="distribute",
                horizontal_alignment="right",
                key=f"fv_overview_{stage.key}",
            ):
                _card(stage)


def report_button(root: Path) -> None:
    """All coverage and synthesis runs as one Markdown file."""
    st.download_button(
        "Download the report",
        data=lambda: _report(root),
        file_name="facviz-report.md",
        mime="text/markdown",
        key="fv_overview_report",
        icon=":material/download:",
        on_click="ignore",
    )


def reset_demo_button(here: Here) -> None:
    """On the demo only: back to how it shipped, once the reader confirms."""
    if not demo_id(here.database.workspace):
        return
    with st.popover("Reset demo", icon=":material/restart_alt:", key="fv_overview_reset"):
        st.caption(
            "Edits, verdicts and texts made here give way to the demo as it shipped. "
            "The present one is kept in a folder beside it until the next reset."
        )
        if st.button("Reset the demo now", key="fv_overview_reset_now"):
            reset_demo(here.root)
            st.rerun()


def _metric(column: Any, label: str, value: str, below: str | None, explanation: str) -> None:
    """A metric with a quiet line below instead of a change."""
    column.metric(label, value, below, delta_color="off", delta_arrow="off", help=explanation)


def _act(root: Path, step: NextStep, arguments: tuple[str, ...]) -> None:
    if step.page:
        if st.button(step.button, key="fv_overview_go", type="primary", width="stretch"):
            st.switch_page(f"pages/{step.page}.py")
    elif st.button(step.button, key="fv_overview_start", type="primary", width="stretch", disabled=not arguments):
        start(root, title=step.title, page="overview", arguments=arguments)


def _relevance_choices(here: Here, view: Overview) -> tuple[str, ...]:
    labels, tasks = label_choices(here.database, view.facts), task_names()
    guess = "topic" if labels[:1] == [EVERY_LABEL] else "toxicity"
    left, right = st.columns(2)
    task = left.selectbox(
        "Task",
        tasks,
        index=tasks.index(guess) if guess in tasks else 0,
        key="fv_overview_task",
        help="The guideline that says what the texts are for.",
    )
    if not labels:
        right.caption("The anchor set has no labels, so explanations are compared with the guideline.")
        return relevance_arguments(view.facts, task, "")
    positive = right.selectbox(
        "Label the task is about",
        labels,
        format_func=lambda x: "every label, each against the others" if x == EVERY_LABEL else x,
        key="fv_overview_positive",
        help="A feature matters when it separates this label from the rest, texts of equal length compared.",
    )
    return relevance_arguments(view.facts, task, positive)


def _card(stage: Stage) -> None:
    icon, colour = _SIGNS[stage.state]
    badge = f" :{colour}-badge[{stage.state}]" if stage.state in ("next", "running") else ""
    quiet = ' class="fv-quiet"' if stage.state == "waiting" else ""
    with st.container(gap="xsmall"):
        st.markdown(f":{colour}[{icon}] **{stage.number} · {stage.name}**{badge}")
        st.html(f"<div{quiet}>{escape(stage.did)}</div>")
    name = "SAE" if stage.page == "sae" else stage.page.capitalize()
    st.page_link(f"pages/{stage.page}.py", label=name, icon=":material/arrow_forward:", icon_position="right")


def _report(root: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.md"
        export(open_workspace(root), "report", out, None)
        return out.read_bytes()


_FAC_HELP = (
    "Feature Activation Coverage: of the features that matter and that the anchor set activates, the share that the "
    "seed set activates too; below it the 95 % interval."
)
_MISSING_HELP = "Features that matter and that the anchor set activates, but the seed set never does."
_AFTER_HELP = "The same share with the verified texts added to the seed set, measured again on the same model."
_REVIEWED_HELP = "Accepted, edited, rejected or flagged by a person."
