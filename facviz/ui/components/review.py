"""What the review page is made of: the queue's controls, the item with its evidence, what this reader did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from facviz.prompts import load_task, task_names
from facviz.ui import state
from facviz.ui.components.address import feature_address, follow, plain_markdown
from facviz.ui.components.decisions import Desk, judge, say, show_actions, show_said, take_back
from facviz.ui.components.feature import show_histogram, show_links
from facviz.ui.components.spans import asked_amount, asked_context, choose_context, show_spans
from facviz.ui.components.style import WIDE
from facviz.ui.frame import Here
from facviz.views.decisions import VERDICTS
from facviz.views.feature import FeatureView, read_spans
from facviz.views.format import count
from facviz.views.review import FILTERS, ORDERS, QueueView, my_decisions, pace, progress
from facviz.views.scope import Looked

_TIMES = "fv_review_times"


def asked() -> tuple[str, str]:
    """Order and filter that the address asks for."""
    order, wanted = state.query_text("order"), state.query_text("show")
    return order if order in ORDERS else "gap", wanted if wanted in FILTERS else "waiting"


def choose_queue(queue: QueueView, order: str, wanted: str) -> None:
    """Status with counts, and the order; both in the address."""
    left, right = st.columns([7, 3], vertical_alignment="bottom")
    shown = [name for name in FILTERS if name in ("waiting", "all", wanted) or queue.counts[name]]
    with left:
        st.segmented_control(
            "Show",
            shown,
            format_func=lambda name: f"{FILTERS[name][0]} {count(queue.counts[name])}",
            required=True,
            label_visibility="collapsed",
            **follow("fv_review_show", "show", wanted, default="waiting", resets=("feature",)),
        )
    with right:
        st.selectbox(
            "Order",
            list(ORDERS),
            format_func=ORDERS.__getitem__,
            label_visibility="collapsed",
            **follow("fv_review_order", "order", order, default="gap", resets=("feature",)),
        )


def show_progress(queue: QueueView) -> None:
    """How many are done, and this reader's pace since the session began."""
    share, words = progress(queue)
    times = st.session_state.get(_TIMES, [])
    mine = f" · you: {count(len(times))} this session, {pace(times, time.time())} a minute" if times else ""
    st.progress(share, text=plain_markdown(words + mine))


def show_item(here: Here, looked: Looked, queue: QueueView, view: FeatureView) -> None:
    """The explanation and the decision on the left, the evidence beside it."""
    desk = Desk(here, looked.sae_id, view.feature_id, view.said, keys=True, then=_onwards(queue))
    st.html(WIDE)
    _moves(here, queue, view)
    decide, evidence = st.columns([1, 1], gap="large")
    with decide:
        show_said(desk, state=view.state, marks=tuple(view.marks), theme=view.theme)
        show_actions(desk)
        if not desk.doing():
            _verdicts(here, looked, view)
        show_histogram(here, looked, view, None)
        with st.expander("Nearest features", key="fv_review_near"):
            show_links(view.neighbours, looked, "review")
    with evidence:
        spans = read_spans(here.database, looked, view.feature_id, view.feature_max, asked_amount())
        show_spans(spans, here, asked_context())


def _onwards(queue: QueueView) -> Any:
    def then(event: Mapping[str, Any]) -> None:
        del event
        st.session_state.setdefault(_TIMES, []).append(time.time())
        state.set_query(feature=queue.after)

    return then


def _moves(here: Here, queue: QueueView, view: FeatureView) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        place = f"{count(queue.place)} of {count(queue.n)}" if queue.place else "not in this list"
        st.page_link(
            "pages/feature.py",
            label=f"**Feature {view.feature_id}** · {place}",
            query_params=feature_address(view.feature_id, {"sae": state.query_text("sae")}),
            help="Open the feature's own page.",
        )
        for icon, key, words, target in (
            (":material/chevron_left:", "Left", "Previous", queue.before),
            (":material/chevron_right:", "Right", "Next", queue.after),
        ):
            st.button(
                "",
                icon=icon,
                key=f"fv_review_{key.lower()}",
                shortcut=key,
                help=words,
                disabled=target is None,
                on_click=state.set_query,
                kwargs={"feature": target},
            )
        st.button(
            "",
            icon=":material/undo:",
            key="fv_review_undo",
            shortcut="U",
            on_click=_undo_mine,
            args=(here,),
            help="Take back your last decision.",
        )
        st.space("stretch")
        choose_context("review")


def _undo_mine(here: Here) -> None:
    mine = [d for d in my_decisions(here.database, here.reviewer, datetime.now(UTC), n=50) if d.can_undo]
    if not mine:
        say("There is nothing of yours left to undo.")
        return
    take_back(here, mine[0].target)
    times = st.session_state.get(_TIMES, [])
    if times and mine[0].target.kind == "explanation":
        times.pop()
    if mine[0].target.feature_id >= 0:
        state.set_query(feature=mine[0].target.feature_id)


def _verdicts(here: Here, looked: Looked, view: FeatureView) -> None:
    judged = next((j for j in view.judged if j.task == looked.task), None)
    if judged is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"Relevant to **{plain_markdown(looked.task.replace('_', ' '))}**?")
        if looked.task in task_names():
            _guideline(looked.task)
    with st.container(horizontal=True, gap="small"):
        for number, verdict in enumerate(VERDICTS, start=1):
            is_mine = judged.by_person == verdict
            st.button(
                verdict.capitalize(),
                key=f"fv_review_verdict_{verdict}",
                icon=":material/check:" if is_mine else None,
                shortcut=str(number),
                on_click=judge,
                args=(here, looked.sae_id, view.feature_id, judged, None if is_mine else verdict),
            )
    by_person = f" · {judged.by_person} by {judged.person}" if judged.by_person else ""
    st.caption(plain_markdown(f"{judged.by_machine}{by_person}"), help=plain_markdown(judged.why) or None)


def _guideline(task: str) -> None:
    guideline = load_task(task)
    with st.popover("Guideline", type="tertiary", icon=":material/menu_book:", key="fv_review_guideline"):
        st.markdown(f"**{plain_markdown(guideline.title)}**")
        st.text(guideline.description)
        for point in guideline.points:
            st.text(f"• {point}")


def show_mine(here: Here) -> None:
    """This reader's last ten decisions, each with an undo while it is the last on its target."""
    mine = my_decisions(here.database, here.reviewer, datetime.now(UTC))
    if not mine:
        st.caption("You have decided nothing yet.")
    for decision in mine:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"{plain_markdown(decision.words)} · :gray[{plain_markdown(decision.when)}]")
            if decision.can_undo:
                st.button(
                    "Undo",
                    key=f"fv_review_undo_{decision.event_id}",
                    type="tertiary",
                    on_click=take_back,
                    args=(here, decision.target),
                )
            else:
                st.caption("taken back or replaced")
