"""The review page: one explanation at a time with its evidence beside it, decided with buttons or keys."""

import streamlit as st

from facviz.ui import state
from facviz.ui.components.decisions import show_problem
from facviz.ui.components.keys import listen
from facviz.ui.components.review import show_review, show_taking_back
from facviz.ui.components.review_tools import (
    HELP_KEY,
    ask_name,
    asked,
    choose_queue,
    open_queue,
    show_agreement,
    show_mine,
    show_progress,
)
from facviz.ui.frame import empty, page
from facviz.views.scope import look

with page("review") as here:
    looked = look(
        here.database,
        here.database.workspace.manifest,
        sae=state.query_text("sae"),
        dataset=state.query_text("dataset"),
        task=state.query_text("task"),
    )
    wanted = asked()
    queue = open_queue(here, looked, wanted) if looked else None
    listen(HELP_KEY, state.given_name(), state.set_reviewer)
    if looked is None or queue is None or not queue.n_all:
        why = "There are no explanations yet; the SAE page writes them once an SAE has read a data set."
        empty("Explanations, one at a time, to accept or correct", why, page="sae", button="Explain features")
    else:
        ask_name(here)
        show_progress(queue)
        choose_queue(here, looked, queue, wanted)
        if queue.feature_id is None:
            show_problem()
            with st.container(horizontal=True, gap="small"):
                show_taking_back(here)
            empty(
                "Nothing is waiting here",
                "Choose another list above, or see what the features cover.",
                page="coverage",
                button="Open coverage",
            )
        else:
            show_review(here, looked, wanted, queue)
        agreement = st.expander("Agreement", key="fv_review_agreement", on_change="rerun")
        if agreement.open:
            with agreement:
                show_agreement(here, looked)
        with st.expander("Your last decisions", key="fv_review_mine"):
            show_mine(here)
