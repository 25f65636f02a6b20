"""Writing a task of one's own: title, description and points, the only part of a judge's prompt that changes."""

from __future__ import annotations

import streamlit as st

from facviz.errors import FacvizError
from facviz.ui.frame import Here

ROLES = {"user": "the user’s", "assistant": "the assistant’s"}
FORMS = {
    "plain_text": "One message",
    "instruction_answer": "An instruction and its answer",
    "preference_pair": "A conversation with a better and a worse last reply",
}
"""Formats of samples that fit a task of any subject."""


def task_form(here: Here) -> None:
    """A form that writes a task file into the workspace; it can be chosen at once, here and on the command line."""
    with st.form("fv_task_form", border=False):
        title = st.text_input("Title", max_chars=80, placeholder="Questions about garden tools", key="fv_task_title")
        description = st.text_area(
            "What the task is, and when a feature matters to it",
            max_chars=3000,
            height=90,
            key="fv_task_description",
            placeholder="An assistant of a garden shop answers customers. A feature counts when its texts show that.",
        )
        points = st.text_area(
            "Points, one a line; one is enough for a feature to count",
            max_chars=3000,
            height=120,
            key="fv_task_points",
            placeholder="Asks which tool fits a job.\nAsks how to care for a tool.",
        )
        roles = st.pills(
            "Whose words count",
            list(ROLES),
            default=["user"],
            selection_mode="multi",
            format_func=ROLES.__getitem__,
            key="fv_task_roles",
        )
        sample = st.text_input(
            "What one sample for it is, for synthesis",
            max_chars=600,
            key="fv_task_sample",
            placeholder="Write one short question a customer might type about a garden tool.",
        )
        form = st.selectbox(
            "What a sample consists of", list(FORMS), format_func=FORMS.__getitem__, key="fv_task_format"
        )
        if not st.form_submit_button("Save the task", type="primary", key="fv_task_save", width="stretch"):
            return
    from facviz.pipeline.tasks import TaskDraft, save_task

    draft = TaskDraft(title, description, points.splitlines(), roles or (), sample, form)
    try:
        name = save_task(here.database.workspace, draft)
    except FacvizError as error:
        st.error(str(error))
        return
    st.success(f"Saved as `{name}`; choose it in the list of tasks. On the command line: `--task {name}`.")
