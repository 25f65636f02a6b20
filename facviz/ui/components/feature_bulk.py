"""Deciding on every feature the table shows: what would happen is said first, and one click takes it back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import streamlit as st

from facviz.errors import FacvizError
from facviz.store.batches import decide_all, last_batch, undo_batch
from facviz.ui.components.address import plain_markdown
from facviz.ui.components.feature_search import Asked
from facviz.ui.frame import Here
from facviz.views.bulk import Preview, batch_words, preview
from facviz.views.decisions import VERDICTS
from facviz.views.features import Lens
from facviz.views.format import ago, count
from facviz.views.scope import Looked

_DONE, _PROBLEM, _OPEN = "fv_features_bulk_done", "fv_features_bulk_problem", "fv_features_bulk_open"


def decide_on_all(here: Here, looked: Looked, now: Asked, lens: Lens, n_found: int) -> None:
    """A button that opens the preview."""
    st.button(
        "Decide on all",
        key="fv_features_bulk",
        icon=":material/checklist:",
        disabled=n_found == 0,
        on_click=_open,
        help="Accept the explanations, or judge the relevance, of every feature of this table.",
    )
    if st.session_state.get(_OPEN):
        _ask(here, looked, now, lens)


def _open() -> None:
    st.session_state[_OPEN] = True


def _close() -> None:
    st.session_state.pop(_OPEN, None)


def show_done(here: Here) -> None:
    """What was just decided on many features, with the one click that takes it back; or why it was not."""
    problem = st.session_state.pop(_PROBLEM, None)
    if problem:
        st.error(problem, icon=":material/sync_problem:")
    done = st.session_state.get(_DONE)
    if done is None:
        return
    batch_id, sentence, can_undo = done
    with st.container(horizontal=True, vertical_alignment="center", gap="small", border=True, key="fv_bulk_done"):
        st.markdown(f":material/check_circle: {plain_markdown(sentence)}")
        st.space("stretch")
        if can_undo:
            st.button(
                "Undo", key="fv_features_bulk_undo", icon=":material/undo:", on_click=_undo, args=(here, batch_id)
            )
        st.button("Close", key="fv_features_bulk_close", icon=":material/close:", type="tertiary", on_click=_forget)


@st.dialog("Decide on all of these features", width="medium", on_dismiss=_close)
def _ask(here: Here, looked: Looked, now: Asked, lens: Lens) -> None:
    kinds = {"accept": "Accept explanations"} | ({"verdict": "Judge relevance"} if looked.task else {})
    kind = st.segmented_control(
        "What",
        list(kinds),
        format_func=kinds.__getitem__,
        default="accept",
        required=True,
        label_visibility="collapsed",
        key="fv_features_bulk_kind",
    )
    verdict = None
    if kind == "verdict":
        verdict = st.segmented_control(
            f"Relevant to {plain_markdown(looked.task.replace('_', ' '))}?",
            VERDICTS,
            key="fv_features_bulk_verdict",
        )
    found = preview(here.database, looked, lens.narrow(now.chosen), str(kind))
    st.markdown(plain_markdown(found.sentence))
    for note in found.notes:
        st.caption(plain_markdown(note))
    label = f"Accept {count(found.n)}" if kind == "accept" else f"Judge {count(found.n)}"
    if st.button(
        label,
        key="fv_features_bulk_go",
        type="primary",
        disabled=found.n == 0 or not found.is_possible or (kind == "verdict" and verdict is None),
    ):
        _decide(here, found, str(kind), {"verdict": verdict} if verdict else {})
        _close()
        st.rerun()
    _last(here)


def _decide(here: Here, found: Preview, kind: str, payload: dict[str, Any]) -> None:
    try:
        batch = decide_all(here.database, here.reviewer, found.targets, kind, payload)
    except FacvizError as error:
        st.session_state[_PROBLEM] = str(error)
    else:
        st.session_state[_DONE] = (batch.batch_id, batch_words(batch), True)


def _last(here: Here) -> None:
    """The newest of this person's that still holds, whatever session it was made in."""
    batch = last_batch(here.database, here.reviewer)
    if batch is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        when = ago(batch.at, datetime.now(UTC))
        st.caption(plain_markdown(f"Your last: {batch_words(batch)} {when}."))
        if st.button("Take back", key="fv_features_bulk_back", icon=":material/undo:", type="tertiary"):
            _undo(here, batch.batch_id)
            _close()
            st.rerun()


def _undo(here: Here, batch_id: str) -> None:
    try:
        n = undo_batch(here.database, here.reviewer, batch_id)
    except FacvizError as error:
        st.session_state[_PROBLEM] = str(error)
        _forget()
    else:
        st.session_state[_DONE] = ("", f"Took back {count(n)} decision{'s' * (n != 1)}.", False)


def _forget() -> None:
    st.session_state.pop(_DONE, None)
