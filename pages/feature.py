"""The feature page: what one feature responds to, with the evidence, the history and a box to try a text."""

import streamlit as st

from facviz.ui import state
from facviz.ui.components.decisions import Desk, show_actions, show_said
from facviz.ui.components.evidence import show_evidence
from facviz.ui.components.feature import (
    show_beside,
    show_history,
    show_moves,
    show_numbers,
    show_side,
    show_versions,
)
from facviz.ui.components.lists import show_dialog
from facviz.ui.components.scores import show_scores
from facviz.ui.frame import empty, page
from facviz.views.feature import first_feature, read_feature
from facviz.views.scope import look

with page("feature") as here:
    looked = look(
        here.database,
        here.database.workspace.manifest,
        sae=state.query_text("sae"),
        dataset=state.query_text("dataset"),
        task=state.query_text("task"),
    )
    feature_id = state.query_int("feature")
    if looked is not None and feature_id is None:
        feature_id = first_feature(here.database, looked)
    if looked is None or feature_id is None:
        why = "No SAE has read a data set yet; the SAE page trains or loads one and lets it read."
        empty("One feature, where it fires and what it seems to mean", why, page="sae", button="Get an SAE")
    else:
        view = read_feature(here.database, looked, feature_id)
        desk = Desk(here, looked.sae_id, feature_id, view.said)
        show_moves(here, looked, view)
        show_said(desk, state=view.state, marks=tuple(view.marks), theme=view.theme)
        show_actions(desk)
        show_numbers(view)
        left, right = st.columns([5, 3], gap="large")
        with left:
            show_evidence(here, looked, view)
        with right:
            show_beside(here, looked, view)
            show_scores(here, looked, feature_id, view.said)
            show_side(here, looked, view)
        with st.expander("What machines wrote, and what people decided", key="fv_feature_history"):
            show_versions(here, looked, view)
            show_history(here, looked, feature_id)
        show_dialog(here, looked)
