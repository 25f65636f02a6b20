"""The list of missing features: filtered, ordered, chosen from, and carried on to synthesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import streamlit as st

from facviz.store.gap import TaskFeatures
from facviz.ui.frame import Here
from facviz.views.coverage import Question
from facviz.views.format import count, count_of
from facviz.views.heat import spans_html
from facviz.views.live import Live
from facviz.views.missing import PAGE_SIZE, MissingFeature, missing_rows, ordered_missing, themes_of

CHOSEN = "fv_coverage_chosen"
MOST_RELEVANT = 8


def show_missing(here: Here, question: Question, live: Live, task: TaskFeatures, states: Mapping[int, str]) -> None:
    """The missing features, most relevant first, a page at a time, each with what it fired on."""
    themes, still = themes_of(live, task), False
    with st.container(horizontal=True, vertical_alignment="bottom"):
        theme = (
            st.selectbox("Theme", ["", *themes], format_func=lambda t: t or "All themes", key="fv_coverage_theme")
            if themes
            else ""
        )
        by = st.segmented_control(
            "Order",
            ["relevance", "documents"],
            default="relevance",
            required=True,
            format_func=lambda by: {"relevance": "Most relevant", "documents": "In most texts"}[by],
            key="fv_coverage_order",
        )
        if states:
            still = st.toggle("Only what no text fills yet", key="fv_coverage_still")
        ids = ordered_missing(live, task, theme=theme, by=by or "relevance")
        ids = [f for f in ids if not (still and states.get(f) == "filled")]
        chosen = set(_chosen(live))
        st.button(f"Choose all {count(len(ids))}", key="fv_coverage_all", on_click=_choose, args=(ids, True))
        st.button("Choose none", key="fv_coverage_none", on_click=_choose, args=(sorted(chosen), False))
    n_pages = -(-len(ids) // PAGE_SIZE)
    number_shown = st.session_state.get("fv_coverage_page", 1) if n_pages > 1 else 1
    start = PAGE_SIZE * (min(number_shown, max(n_pages, 1)) - 1)
    rows = missing_rows(here.database, question, live, task, ids[start : start + PAGE_SIZE], states)
    for row in rows:
        _row(here, row, row.feature_id in chosen)
    if n_pages > 1:
        st.pagination(n_pages, key="fv_coverage_page")


def _row(here: Here, row: MissingFeature, is_chosen: bool) -> None:
    with st.container(border=True, key=f"fv_coverage_row_{row.feature_id}"):
        pick, left, right = st.columns([0.3, 5, 1.4], vertical_alignment="center")
        with pick:
            key = _pick_key(row.feature_id)
            st.session_state.setdefault(key, is_chosen)
            label = f"Choose feature {row.feature_id}"
            st.checkbox(label, key=key, on_change=_picked, args=(row.feature_id,), label_visibility="collapsed")
        with left:
            st.html(f"<b>{escape(row.explanation)}</b>")
            if row.span is not None:
                st.html(spans_html([row.span], mode=here.mode, context="near", warn=here.blurred))
        with right:
            facts = [f'<b class="fv-{row.state}">{row.state}</b>', f"in {row.n_docs} anchor texts"]
            facts += [f"relevance {row.score}"] + ([f"theme {escape(row.theme)}"] if row.theme else [])
            st.html(f'<div class="fv-quiet">{"<br>".join(facts)}</div>')
            st.page_link(
                "pages/feature.py",
                label=f"Feature {row.feature_id}",
                icon=":material/arrow_forward:",
                query_params={"feature": str(row.feature_id)},
            )


def write_button(live: Live, task: TaskFeatures, run: Mapping[str, Any] | None, states: Mapping[int, str]) -> None:
    """On to synthesis with the chosen features, or the most relevant ones nobody tried when none is chosen."""
    chosen = _chosen(live)
    ids = chosen or [f for f in ordered_missing(live, task) if f not in states][:MOST_RELEVANT]
    amount = f" for the {count(len(ids))} most relevant" if ids else ""
    amount = f" for {count_of(len(ids), 'feature')}" if chosen or len(ids) == 1 else amount
    why = "Keep this measurement first; texts are written for a kept one." if run is None else None
    why = "At this δ nearly nothing is missing; choose a stricter one." if live.saturated else why
    if st.button(
        f"Write texts{amount}",
        key="fv_coverage_write",
        type="primary",
        icon=":material/edit_note:",
        disabled=run is None or live.saturated or not ids,
        help=why,
    ):
        features = ",".join(map(str, ids))
        query = {"coverage": run["coverage_id"], "features": features} if run is not None else {}
        st.switch_page("pages/synthesis.py", query_params=query)


def _chosen(live: Live) -> list[int]:
    """Chosen features that are missing at this δ."""
    missing = set(live.missing.tolist())
    return [f for f in st.session_state.get(CHOSEN, []) if f in missing]


def _pick_key(feature_id: int) -> str:
    return f"fv_coverage_pick_{feature_id}"


def _picked(feature_id: int) -> None:
    _choose([feature_id], bool(st.session_state[_pick_key(feature_id)]))


def _choose(ids: Sequence[int], is_chosen: bool) -> None:
    chosen = dict.fromkeys(st.session_state.get(CHOSEN, []))
    for feature_id in ids:
        if is_chosen:
            chosen[feature_id] = None
        else:
            chosen.pop(feature_id, None)
        st.session_state[_pick_key(feature_id)] = is_chosen
    st.session_state[CHOSEN] = list(chosen)
