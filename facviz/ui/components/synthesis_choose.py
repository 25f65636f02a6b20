"""Choosing what to write for: the missing features with search, theme, state and order, all of it in the address."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from facviz.synthesis.plan import VERIFICATION_MARGIN
from facviz.ui import state
from facviz.ui.components.address import follow, plain_markdown
from facviz.ui.frame import Here
from facviz.views.format import UNKNOWN, count, count_of, visible
from facviz.views.synthesis import Closing
from facviz.views.targets import (
    ALL,
    MAX_CHOSEN,
    ORDERS,
    PAGE_SIZE,
    STATES,
    Target,
    Targets,
    Wanted,
    find_targets,
    target_rows,
)

NONE = "none"
"""What the address says where nothing is chosen, unlike where it says nothing."""
BEYOND_ANCHOR = f"no anchor text goes beyond {VERIFICATION_MARGIN} δ"
_BEYOND_HELP = "A sample must, so such a feature is hardly ever filled; by gain it comes last."
_PAGE = ("missing_page",)
_GAIN_HELP = (
    "Every filled feature adds the same to FAC; one that fires in more texts of the anchor set matters more often. "
    "What no anchor text shows strongly enough comes last."
)


def asked_targets() -> Wanted:
    """What the address asks the list for; an unknown value leaves the part open."""
    shown, order = state.query_text("state"), state.query_text("order")
    return Wanted(
        search=state.query_text("find"),
        theme=state.query_text("theme"),
        state=shown if shown in (ALL, *STATES) else "",
        order=order if order in ORDERS else "relevance",
    )


def chosen_features(found: Targets) -> list[int]:
    """Missing features that the address names; the suggested ones where it names none."""
    if "features" not in st.query_params:
        return list(found.suggested)
    return [f for f in dict.fromkeys(state.query_ids("features")) if f in found.known]


def choose(here: Here, closed: Closing) -> list[int]:
    """The list with its filters; the features that are chosen now."""
    wanted = asked_targets()
    found = find_targets(here.database, closed, wanted)
    chosen = chosen_features(found)
    _filters(wanted, found)
    _bulk(wanted, found, chosen)
    n_pages = max(1, -(-len(found.ids) // PAGE_SIZE))
    page = min(state.query_int("missing_page") or 1, n_pages)
    ids = found.ids[PAGE_SIZE * (page - 1) : PAGE_SIZE * page]
    with st.container(border=True, gap="xsmall", key="fv_synthesis_targets"):
        for target in target_rows(here.database, closed, ids):
            _row(target, chosen, found)
        if not ids:
            st.caption("No missing feature fits; take a filter away.")
    if n_pages > 1:
        key = f"fv_synthesis_targets_page_{page}_{n_pages}"
        st.pagination(n_pages, default=page, key=key, on_change=_turn_to, args=(key,))
    return chosen


def _filters(wanted: Wanted, found: Targets) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall"):
        st.text_input(
            "Search",
            placeholder="Words or id",
            label_visibility="collapsed",
            width=130,
            icon=":material/search:",
            **follow("fv_synthesis_find", "find", wanted.search, resets=_PAGE),
        )
        if found.themes:
            themes = ["", *found.themes]
            st.selectbox(
                "Theme",
                themes,
                format_func=lambda t: f"{t} ({count(found.themes[t])})" if t else "All themes",
                label_visibility="collapsed",
                width=145,
                **follow("fv_synthesis_theme", "theme", wanted.theme if wanted.theme in themes else "", resets=_PAGE),
            )
        states = ["", ALL, *found.states]
        st.selectbox(
            "State",
            states,
            format_func=lambda s: _state_words(s, found),
            label_visibility="collapsed",
            width=140,
            **follow("fv_synthesis_state", "state", wanted.state if wanted.state in states else "", resets=_PAGE),
        )
        st.selectbox(
            "Order",
            list(ORDERS),
            format_func=ORDERS.__getitem__,
            label_visibility="collapsed",
            width=145,
            help=_GAIN_HELP,
            **follow("fv_synthesis_order", "order", wanted.order, default="relevance", resets=_PAGE),
        )


def _state_words(name: str, found: Targets) -> str:
    total = sum(found.states.values())
    n = total - found.states.get("filled", 0) if not name else total if name == ALL else found.states[name]
    words = {"": "Not filled", ALL: "Any state"} | {str(s): w.capitalize() for s, w in STATES.items()}
    return f"{words[name]} ({count(n)})"


def _bulk(wanted: Wanted, found: Targets, chosen: Sequence[int]) -> None:
    shown = found.ids[:MAX_CHOSEN]
    narrowed = Wanted(order=wanted.order) != wanted
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        outside = len(set(chosen) - set(found.ids))
        beside = f" · {count(outside)} of them not in this list" if outside else ""
        beyond = len(found.beyond_anchor.intersection(chosen))
        st.markdown(
            f"**{count(len(chosen))} chosen**{beside} · {count_of(len(found.ids), 'feature')} here",
            help=f"{count(beyond)} of the chosen: {BEYOND_ANCHOR}. {_BEYOND_HELP}" if beyond else None,
        )
        st.space("stretch")
        st.button(
            f"Choose {'these' if narrowed else 'all'} {count(len(shown))}",
            key="fv_synthesis_choose_all",
            on_click=_set,
            args=([*chosen, *shown], found),
            disabled=not shown or set(shown) <= set(chosen),
        )
        st.button("Choose none", key="fv_synthesis_choose_none", on_click=_set, args=([], found), disabled=not chosen)


def _row(target: Target, chosen: Sequence[int], found: Targets) -> None:
    key = f"fv_synthesis_pick_{target.feature_id}"
    st.session_state[key] = target.feature_id in chosen
    with st.container(gap=None):
        st.checkbox(
            f"{plain_markdown(target.explanation)} :gray[{target.feature_id}]",
            key=key,
            on_change=_pick,
            args=(target.feature_id, chosen, found),
        )
        facts = [target.n_docs, f"relevance {target.relevance}"]
        facts = [escape(visible(target.theme))] * bool(target.theme) + facts
        facts += [f"best {target.best}"] * (target.best != UNKNOWN)
        facts += [BEYOND_ANCHOR] * target.is_beyond_anchor
        parts = [f'<b class="fv-{target.state}">{STATES[target.state]}</b>', *(f"<span>{f}</span>" for f in facts)]
        st.html(f'<div class="fv-quiet fv-under">{" · ".join(parts)}</div>')


def _pick(feature_id: int, chosen: Sequence[int], found: Targets) -> None:
    is_chosen = bool(st.session_state[f"fv_synthesis_pick_{feature_id}"])
    kept = [f for f in chosen if f != feature_id]
    _set([*kept, feature_id] if is_chosen else kept, found)


def _set(chosen: Sequence[int], found: Targets) -> None:
    ids = list(dict.fromkeys(chosen))[:MAX_CHOSEN]
    is_usual = ids == list(found.suggested)
    state.set_query(features=None if is_usual else ",".join(map(str, ids)) or NONE)


def _turn_to(key: str) -> None:
    page = st.session_state[key]
    state.set_query(missing_page=page if page > 1 else None)
