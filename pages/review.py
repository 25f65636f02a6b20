"""The review page: one explanation at a time with its evidence beside it, decided with buttons or keys."""

import streamlit as st

from facviz.ui import state
from facviz.ui.components.review import asked, choose_queue, show_item, show_mine, show_progress
from facviz.ui.frame import empty, page
from facviz.views.feature import read_feature
from facviz.views.review import read_queue
from facviz.views.scope import look

with page("review") as here:
    looked = look(
        here.database,
        here.database.workspace.manifest,
        sae=state.query_text("sae"),
        dataset=state.query_text("dataset"),
        task=state.query_text("task"),
    )
    order, wanted = asked()
    queue = read_queue(here.database, looked, order, wanted, state.query_int("feature")) if looked else None
    if looked is None or queue is None or not queue.n_all:
        why = "There are no explanations yet; the SAE page writes them once an SAE has read a data set."
        empty("Explanations, one at a time, to accept or correct", why, page="sae", button="Explain features")
    else:
        show_progress(queue)
        choose_queue(queue, order, wanted)
        if queue.feature_id is None:
            empty(
                "Nothing is waiting here",
                "Choose another list above, or see what the features cover.",
                page="coverage",
                button="Open coverage",
            )
        else:
            show_item(here, looked, queue, read_feature(here.database, looked, queue.feature_id))
        with st.expander("Your last decisions", key="fv_review_mine"):
            show_mine(here)
