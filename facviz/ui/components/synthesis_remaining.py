"""What is still unreachable: each feature with its nearest text, what stopped it, and what to try next."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from facviz.ui import state
from facviz.ui.components.address import feature_address, plain_markdown
from facviz.ui.components.sample_text import text_html
from facviz.ui.frame import Here
from facviz.views.format import count_of, visible
from facviz.views.remaining import (
    PAGE_SIZE,
    Remaining,
    remaining_rows,
    remaining_words,
    share_bar_html,
    unreached,
)
from facviz.views.synthesis import Closing, Run
from facviz.views.targets import MAX_CHOSEN


def show_remaining(here: Here, closed: Closing) -> None:
    """The list, a page at a time, and the way back to writing."""
    ids = unreached(closed)
    if not ids:
        left = sum(cell.state in ("missing", "waiting") for cell in closed.cells)
        words = "No feature was tried in vain."
        words += f" {count_of(left, 'missing feature')} nobody tried yet." if left else ""
        st.caption(words)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(plain_markdown(remaining_words(closed)))
        st.space("stretch")
        _again("Try all of them again", ids, "fv_synthesis_retry_all")
    n_pages = -(-len(ids) // PAGE_SIZE)
    page = min(state.query_int("left_page") or 1, n_pages)
    for row in remaining_rows(here.database, closed, ids[PAGE_SIZE * (page - 1) : PAGE_SIZE * page]):
        _row(here, closed.run, row)
    if n_pages > 1:
        key = f"fv_synthesis_left_page_{page}_{n_pages}"
        st.pagination(n_pages, default=page, key=key, on_change=_turn_to, args=(key,))


def _row(here: Here, run: Run, row: Remaining) -> None:
    with st.container(border=True, key=f"fv_synthesis_left_{row.feature_id}"):
        left, right = st.columns([5, 3])
        head = f'<b dir="auto">{escape(visible(row.explanation))}</b> <span class="fv-quiet">{row.state}</span>'
        nearest = ""
        if row.sample is not None:
            nearest = text_html(here, run, row.sample, row.sample.text, heat=False)
        left.html(head + nearest)
        with left.container(horizontal=True, vertical_alignment="center", gap="small"):
            _again("Try again", [row.feature_id], f"fv_synthesis_retry_{row.feature_id}")
            if row.sample is not None:
                st.button(
                    "Read and edit",
                    key=f"fv_synthesis_nearest_{row.feature_id}",
                    icon=":material/edit:",
                    on_click=_read,
                    args=(row.feature_id, row.sample.candidate_id),
                    help="The nearest text, and all others of this feature.",
                )
            st.page_link(
                "pages/feature.py",
                label=f"Feature {row.feature_id}",
                icon=":material/arrow_forward:",
                query_params=feature_address(row.feature_id, {"sae": state.query_text("sae")}),
            )
        facts = f'<div class="fv-quiet">{escape(row.n_candidates)} · {escape(visible(row.reasons))}</div>'
        right.html(f"{share_bar_html(row)}{facts}")
        right.markdown(f":material/lightbulb: {plain_markdown(row.advice)}")


def _again(label: str, ids: Sequence[int], key: str) -> None:
    st.button(label, key=key, icon=":material/replay:", on_click=_choose, args=(list(ids)[:MAX_CHOSEN],))


def _choose(ids: Sequence[int]) -> None:
    state.set_query(view="write", features=",".join(map(str, ids)), state=None, theme=None, find=None)


def _read(feature_id: int, candidate_id: str) -> None:
    state.set_query(view="read", of=feature_id, candidate=candidate_id, show=None)


def _turn_to(key: str) -> None:
    page = st.session_state[key]
    state.set_query(left_page=page if page > 1 else None)
