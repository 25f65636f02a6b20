"""What the review page is made of: the item with its evidence beside it, moving on, verdicts on the task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from html import escape
from typing import Any

import streamlit as st

from facviz.errors import FacvizError
from facviz.prompts import load_task, task_names
from facviz.store.events import MAX_NOTE, Target, relevance_of
from facviz.ui import state
from facviz.ui.components import review_session as session
from facviz.ui.components.address import feature_address, follow, plain_markdown
from facviz.ui.components.decisions import Desk, say, show_actions, show_said, take_written
from facviz.ui.components.feature import show_histogram, show_links
from facviz.ui.components.moving import Strip
from facviz.ui.components.review_tools import HELP_KEY, asks_once, show_help
from facviz.ui.components.spans import asked_amount, asked_context, choose_context, show_spans
from facviz.ui.frame import Here
from facviz.views.decisions import VERDICTS, Judged
from facviz.views.feature import read_feature, read_spans
from facviz.views.format import count, visible
from facviz.views.review import TARGETS, Asked, QueueView, next_repeat
from facviz.views.review_item import Item, show_item
from facviz.views.scope import Looked

_BLIND_HELP = (
    "The machine's words, score and verdict stay hidden until you decided or wrote your own. "
    "What you write, and whether you saw the machine's words first, is recorded."
)
_TIGHT = """<style>.st-key-fv_review_desk [data-testid="stButton"] button{padding-left:8px;padding-right:8px}</style>"""


def is_blind() -> bool:
    """Whether the address asks for blind review."""
    return state.query_text("blind") == "1"


def show_review(here: Here, looked: Looked, asked: Asked, queue: QueueView) -> None:
    """The explanation and the decision on the left, the evidence beside it."""
    repeat = session.repeat()
    look = "repeat" if repeat is not None else "second" if asked.show == "second" else ""
    view = read_feature(here.database, looked, repeat if repeat is not None else queue.feature_id or 0)
    name = f"{looked.sae_id}/{view.feature_id}/{look}"
    item = show_item(
        here.database,
        view,
        looked.sae_id,
        looked.task,
        here.reviewer,
        look=look,
        blind=is_blind(),
        revealed=session.is_revealed(name),
    )
    desk = Desk(
        here,
        looked.sae_id,
        view.feature_id,
        replace(item.view.said, seen=view.said.seen),
        keys=True,
        is_hidden=item.is_hidden,
        then=_onwards(here, looked, queue, item),
        circumstances=lambda: {**item.payload, **session.spent(), **_note(view.feature_id)},
    )
    st.html(_TIGHT)
    _moves(here, queue, item)
    decide, evidence = st.columns([1, 1], gap="large")
    with decide, st.container(key="fv_review_desk"):
        _decision(here, looked, queue, item, desk, name)
    with evidence:
        spans = read_spans(here.database, looked, view.feature_id, view.feature_max, asked_amount())
        show_spans(spans, here, asked_context())
    session.came_up(name)


def _decision(here: Here, looked: Looked, queue: QueueView, item: Item, desk: Desk, name: str) -> None:
    view = item.view
    show_said(desk, state=view.state, marks=tuple(view.marks), theme=view.theme)
    if item.written_instead:
        _compare(item, desk)
    _differences(item)
    show_actions(desk)
    if not desk.doing():
        if item.is_hidden:
            st.button(
                "Show the machine’s words",
                key="fv_review_reveal",
                shortcut="V",
                type="tertiary",
                on_click=session.reveal,
                args=(name,),
                help="Recorded with your decision.",
            )
        _verdicts(here, looked, item)
        st.text_input(
            "Note",
            key=_note_key(view.feature_id),
            max_chars=MAX_NOTE,
            placeholder="A note for your next decision (Esc leaves the field)",
            label_visibility="collapsed",
        )
    if not item.is_hidden and not item.look and queue.why:
        _why(queue)
    show_histogram(here, looked, view, None)
    if not item.is_hidden:
        with st.expander("Nearest features", key="fv_review_near"):
            show_links(view.neighbours, looked, "review")


def _why(queue: QueueView) -> None:
    rows = "".join(
        f'<span class="fv-quiet">{escape(name)}</span><span>{escape(words)}</span>' for name, words in queue.why
    )
    grid = "display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;font-size:.85rem"
    st.html(f'<div title="Why this one now: expected value of a look" style="{grid}">{rows}</div>')


def _compare(item: Item, desk: Desk) -> None:
    """Own words stand above; the machine's are shown now, and either may be kept."""
    st.html(f'<div class="fv-quiet" dir="auto">The machine wrote: {escape(visible(item.written_instead))}</div>')
    st.button(
        "Use the machine’s words",
        key="fv_review_take_written",
        shortcut="M",
        on_click=take_written,
        args=(desk,),
        help="→ keeps yours and goes on.",
    )


def _differences(item: Item) -> None:
    if item.others:
        st.caption("Decided differently; your decision settles it:")
        lines = (f"<b>{escape(visible(who))}</b> {escape(visible(what))}" for who, what in item.others)
        st.html("".join(f'<div dir="auto" style="font-size:.9rem;padding:2px 0">{line}</div>' for line in lines))


def _note_key(feature_id: int) -> str:
    return f"fv_review_note_{feature_id}"


def _note(feature_id: int) -> Mapping[str, Any]:
    note = str(st.session_state.get(_note_key(feature_id)) or "").strip()
    return {"note": note} if note else {}


def _onwards(here: Here, looked: Looked, queue: QueueView, item: Item) -> Callable[[Mapping[str, Any]], None]:
    def then(event: Mapping[str, Any]) -> None:
        session.times().append(time.time())
        session.restart_clock()
        st.session_state.pop(_note_key(item.view.feature_id), None)
        if item.look == "repeat":
            session.ask_again(None)
            return
        if item.is_blind and event["kind"] == "edit" and not item.look:
            return  # the machine's words are shown beside one's own before it goes on
        state.set_query(feature=queue.after)
        if not item.look and event["kind"] not in ("skip", "reopen") and not asks_once():
            session.ask_again(next_repeat(here.database, looked.sae_id, here.reviewer, event["event_id"]))

    return then


def _go(feature_id: int | None) -> None:
    session.ask_again(None)
    state.set_query(feature=feature_id)


def _moves(here: Here, queue: QueueView, item: Item) -> None:
    view = item.view
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        place = f"{count(queue.place)} of {count(queue.n)}" if queue.place else "not in this list"
        st.page_link(
            "pages/feature.py",
            label=f"**Feature {view.feature_id}** · {place}",
            query_params=feature_address(view.feature_id, {"sae": state.query_text("sae")}),
            help="Open the feature's own page.",
        )
        strip = _strip(here)
        strip.show_moves(*(None if target is None else partial(_go, target) for target in (queue.before, queue.after)))
        strip.show_taking_back()
        st.space("stretch")
        st.toggle("Blind", help=_BLIND_HELP, **follow("fv_review_blind", "blind", is_blind(), default=False))
        choose_context("review")


def show_taking_back(here: Here) -> None:
    """Undo, redo and help: also where no item is left to show."""
    _strip(here).show_taking_back()


def _strip(here: Here) -> Strip:
    words = "Keys and how this page works (?)"
    return Strip("fv_review", partial(_undo_mine, here), partial(_redo_mine, here), show_help, HELP_KEY, words)


def _undo_mine(here: Here) -> None:
    try:
        undone = here.database.undo_mine(here.reviewer, kinds=TARGETS)
    except FacvizError as error:
        say(str(error))
        return
    _return_to(undone[-1])
    if len(undone) > 1:
        st.toast(f"{count(len(undone))} decisions taken back", icon=":material/undo:")
    elif session.times() and Target.parse(undone[0]["target"]) is not None:
        session.times().pop()


def _redo_mine(here: Here) -> None:
    try:
        _return_to(here.database.redo_mine(here.reviewer, kinds=TARGETS)[-1])
    except FacvizError as error:
        say(str(error))


def _return_to(event: Mapping[str, Any]) -> None:
    target = Target.parse(event["target"])
    session.restart_clock()
    if target is not None and target.feature_id >= 0:
        _go(target.feature_id)


def _verdicts(here: Here, looked: Looked, item: Item) -> None:
    judged = item.judged
    if judged is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"Relevant to **{plain_markdown(looked.task.replace('_', ' '))}**?")
        if len(looked.tasks) > 1:
            st.selectbox(
                "Task",
                looked.tasks,
                format_func=lambda task: task.replace("_", " "),
                label_visibility="collapsed",
                width=180,
                **follow("fv_review_task", "task", looked.task),
            )
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
                on_click=_judge,
                args=(here, looked, item, judged, None if is_mine else verdict),
            )
    by_person = f" · {judged.by_person} by {judged.person}" if judged.by_person else ""
    words = judged.by_machine or "The machine’s verdict is hidden until you gave yours."
    st.caption(plain_markdown(words + by_person), help=plain_markdown(judged.why) or None)


def _judge(here: Here, looked: Looked, item: Item, judged: Judged, verdict: str | None) -> None:
    target = relevance_of(looked.sae_id, item.view.feature_id, judged.task)
    circumstances = {**item.payload, "saw": bool(judged.by_machine), **session.spent()}
    circumstances.pop("of", None)
    try:
        if verdict is not None:
            here.database.record(
                here.reviewer, target, "verdict", {**circumstances, "verdict": verdict}, seen=judged.seen
            )
        elif item.look:
            here.database.undo_mine(here.reviewer, judged.seen)
        else:
            here.database.undo(here.reviewer, target)
    except FacvizError as error:
        say(str(error))


def _guideline(task: str) -> None:
    guideline = load_task(task)
    with st.popover("Guideline", type="tertiary", icon=":material/menu_book:", key="fv_review_guideline"):
        st.markdown(f"**{plain_markdown(guideline.title)}**")
        st.text(guideline.description)
        for point in guideline.points:
            st.text(f"• {point}")
