"""Around the review item: choosing and saving queues, accepting many at once, agreement, help, whose name counts."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from html import escape

import streamlit as st

from facviz.errors import FacvizError
from facviz.store.deciding import Choice
from facviz.store.events import explanation_of, queue_of
from facviz.ui import resources, state
from facviz.ui.components import review_session as session
from facviz.ui.components.address import follow, plain_markdown
from facviz.ui.components.decisions import say
from facviz.ui.components.style import WIDE
from facviz.ui.frame import Here
from facviz.views.agreement import read_agreement, seconds_per_person
from facviz.views.format import UNKNOWN, count, number, short, visible
from facviz.views.review import (
    FILTERS,
    ORDERS,
    STATE_WORDS,
    WEAK,
    Asked,
    QueueView,
    asked_json,
    describe,
    members_of,
    my_decisions,
    pace,
    progress,
    read_queue,
    saved_queues,
)
from facviz.views.scope import Looked

HELP_KEY = "fv_review_help"
MAX_BULK, PREVIEWED = 1000, 8
_ALWAYS = ("waiting", "all")
_KEYS = (
    ("A", "accept the explanation"),
    ("E", "correct and accept it, or write your own; Ctrl+Enter saves, Esc closes"),
    ("X", "reject it, then 1 to 6 for the reason"),
    ("T", "cannot tell"),
    ("F", "flag it for somebody else"),
    ("S", "skip it for now"),
    ("O", "reopen what was decided"),
    ("1 2 3 4", "relevant to the task: yes, probably, maybe, no; the same key again takes it back"),
    ("U / Y", "take back your last decision, to any depth / bring it back"),
    ("← →", "previous and next without deciding"),
    ("V / M", "in blind review: show the machine’s words / use them in place of yours"),
    ("B", "accept many at once"),
    ("H or ?", "this help"),
)


def asked() -> Asked:
    """What the address asks for."""
    return Asked.of({name: state.query_text(name) for name in ("order", "show", "state", "weak", "words")})


def open_queue(here: Here, looked: Looked, wanted: Asked) -> QueueView:
    """The queue around the feature that the address names.

    What is shown goes into the address, so that it stays when somebody else decides on it meanwhile.
    """
    parts = resources.review_parts(here.database, looked.table)
    queue = read_queue(here.database, looked, wanted, state.query_int("feature"), here.reviewer, parts)
    state.set_query(feature=queue.feature_id)
    return queue


def show_progress(queue: QueueView) -> None:
    """How many are done, and this reader's pace since the session began."""
    st.html(WIDE)
    share, words = progress(queue)
    times = session.times()
    mine = f" · you: {count(len(times))} this session, {pace(times, time.time())} a minute" if times else ""
    st.progress(share, text=plain_markdown(words + mine))


def ask_name(here: Here) -> None:
    """Ask once whose name decisions carry, where nobody logged in and no name was given."""
    if not state.must_ask_name():
        return
    with st.form("fv_review_name", border=True):
        left, right = st.columns([5, 1], vertical_alignment="bottom")
        with left:
            st.text_input(
                "Whose name stands beside your decisions?",
                value=here.reviewer,
                key="fv_review_name_text",
                max_chars=60,
                help="Asked once in this browser; change it in the reader settings.",
            )
        with right:
            st.form_submit_button("That’s me", key="fv_review_name_save", width="stretch", on_click=_save_name)


def _save_name() -> None:
    state.set_reviewer(str(st.session_state.get("fv_review_name_text") or ""))


def choose_queue(here: Here, looked: Looked, queue: QueueView, wanted: Asked) -> None:
    """Lists with counts, the order, filters and saved queues; all in the address."""
    shown = [name for name in FILTERS if name in (*_ALWAYS, wanted.show) or queue.counts[name]]
    st.segmented_control(
        "Show",
        shown,
        format_func=lambda name: f"{FILTERS[name][0]} {count(queue.counts[name])}",
        required=True,
        label_visibility="collapsed",
        **follow("fv_review_show", "show", wanted.show, default="waiting", resets=("feature",)),
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for name, label, options, value in (
            ("order", "Order", ORDERS, wanted.order),
            ("state", "Coverage", STATE_WORDS, wanted.state),
        ):
            st.selectbox(
                label,
                list(options),
                format_func=options.__getitem__,
                label_visibility="collapsed",
                width=200,
                **follow(f"fv_review_{name}", name, value, default=getattr(Asked(), name), resets=("feature",)),
            )
        st.text_input(
            "Words in the explanation",
            placeholder="Words in the explanation",
            label_visibility="collapsed",
            width=220,
            **follow("fv_review_words", "words", wanted.words, resets=("feature",)),
        )
        st.toggle(
            "Weak only",
            help=f"Held-out score at most {WEAK}.",
            **follow("fv_review_weak", "weak", bool(wanted.weak), default=False, resets=("feature",)),
        )
        st.space("stretch")
        _saved(here, wanted)
        if st.button(
            "Accept many", key="fv_review_bulk", shortcut="B", disabled=wanted.show not in ("waiting", "skipped")
        ):
            _bulk(here, looked, wanted)


def _saved(here: Here, wanted: Asked) -> None:
    with st.popover("Queues", icon=":material/bookmark:", key="fv_review_queues"):
        for saved in saved_queues(here.database):
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.button(
                    plain_markdown(saved.name),
                    key=f"fv_review_queue_{state.key_of(saved.name)}",
                    type="tertiary",
                    icon=":material/check:" if saved.asked == wanted else None,
                    on_click=_open_queue,
                    args=(saved.asked,),
                    help=f"Saved by {plain_markdown(saved.by)}",
                )
                st.space("stretch")
                st.button(
                    "",
                    icon=":material/close:",
                    key=f"fv_review_forget_{state.key_of(saved.name)}",
                    type="tertiary",
                    help="Remove this queue; decisions stay.",
                    on_click=_record_queue,
                    args=(here, saved.name, None),
                )
        with st.form("fv_review_save", border=False):
            st.text_input(
                "Save these filters as", key="fv_review_queue_name", max_chars=60, placeholder="weak and missing"
            )
            st.form_submit_button("Save", key="fv_review_queue_save", on_click=_save_queue, args=(here, wanted))


def _open_queue(chosen: Asked) -> None:
    session.ask_again(None)
    state.set_query(**chosen.address, feature=None)


def _save_queue(here: Here, wanted: Asked) -> None:
    name = " ".join(str(st.session_state.get("fv_review_queue_name") or "").split())
    if not name:
        say("Give the queue a name.")
        return
    _record_queue(here, name, wanted)


def _record_queue(here: Here, name: str, wanted: Asked | None) -> None:
    kind, payload = ("remove", {}) if wanted is None else ("save", {"asked": asked_json(wanted)})
    try:
        here.database.record(here.reviewer, queue_of(name), kind, payload)
    except FacvizError as error:
        say(str(error))


@st.dialog("Accept many", width="medium")
def _bulk(here: Here, looked: Looked, wanted: Asked) -> None:
    st.caption("Everything below is accepted as it stands, in one step that one undo takes back.")
    least = st.slider(
        "Only with a held-out score of at least", 0.0, 1.0, 0.8, 0.05, key="fv_review_bulk_score", format="%.2f"
    )
    ids, scores = members_of(here.database, looked, wanted, here.reviewer)
    good = [(i, score) for i, score in zip(ids, scores) if score >= least or (least == 0 and score != score)]
    chosen = good[:MAX_BULK]
    texts = {
        r["feature_id"]: r for r in here.database.rows("explanations_of", sae_id=looked.sae_id, ids=[*dict(chosen)])
    }
    chosen = [(i, score) for i, score in chosen if texts.get(i, {}).get("text")]
    st.markdown(f"**{count(len(chosen))}** of {plain_markdown(describe(wanted, len(ids)))}")
    if len(good) > MAX_BULK:
        st.caption(f"The first {count(MAX_BULK)} of {count(len(good))}; the others can follow.")
    lines = [
        f'<div style="display:flex;gap:12px;padding:2px 0"><span class="fv-quiet" style="min-width:4rem">{i}</span>'
        f'<span dir="auto" style="flex:1">{escape(visible(short(texts[i]["text"], 110)))}</span>'
        f'<span class="fv-quiet">{number(score)}</span></div>'
        for i, score in chosen[:PREVIEWED]
    ]
    st.html("".join(lines) or '<span class="fv-quiet">Nothing fits; lower the score.</span>')
    if len(chosen) > PREVIEWED:
        st.caption(f"and {count(len(chosen) - PREVIEWED)} more, down to a score of {number(min(s for _, s in chosen))}")
    if st.button(
        f"Accept {count(len(chosen))}",
        key="fv_review_bulk_go",
        type="primary",
        disabled=not chosen,
        on_click=_accept_many,
        args=(here, looked, [i for i, _ in chosen], wanted, least),
    ):
        st.rerun()  # which closes the dialog


def _accept_many(here: Here, looked: Looked, ids: list[int], wanted: Asked, least: float) -> None:
    held = {
        r["feature_id"]: r["event_id"]
        for r in here.database.rows("decisions", kind="explanation", sae_id=looked.sae_id)
    }
    by = {"filter": asked_json(wanted), "least_score": least, "n": len(ids)}
    choices = [Choice(explanation_of(looked.sae_id, i), "accept", {"bulk": by}, held.get(i, "")) for i in ids]
    try:
        here.database.record_many(here.reviewer, choices)
    except FacvizError as error:
        say(str(error))
        return
    state.set_query(feature=None)
    st.toast(f"{count(len(ids))} accepted; U takes all of them back", icon=":material/done_all:")


@st.dialog("Reviewing explanations", width="medium")
def show_help() -> None:
    """Keys, and what happens to a decision."""
    grid = "display:grid;grid-template-columns:6rem 1fr;gap:4px 16px"
    rows = "".join(f"<kbd>{escape(key)}</kbd><span>{escape(words)}</span>" for key, words in _KEYS)
    st.html(f'<div style="{grid}">{rows}</div>')
    st.caption(
        "No key acts while you type. Every decision is on disk before it shows, with your name, the time, what it "
        "replaced and how long you looked; nothing is ever deleted. Now and then something you decided comes up "
        "again, unmarked: that measures how steady decisions are and changes none of them. A second look at what "
        "others decided is as independent: where you differ, it waits under “To settle”."
    )


def asks_once() -> bool:
    """Whether the address asks for no hidden repeats."""
    return state.query_text("once") == "1"


def show_agreement(here: Here, looked: Looked) -> None:
    """How far people agree with each other, with themselves and with the machine."""
    st.toggle(
        "Ask me nothing twice",
        help="Leaves out the hidden repeats, which measure how steady your decisions are.",
        **follow("fv_review_once", "once", asks_once(), default=False),
    )
    lines = read_agreement(here.database, looked)
    if not lines:
        st.caption(
            "Nothing was decided twice yet. Open the list “Second look” once others have decided, or go on: "
            "now and then an item is asked again."
        )
    for line in lines:
        value = f"{line.measure} {line.value}" if line.value != UNKNOWN else f"{line.measure} unknown"
        st.html(
            f'<div style="padding:4px 0" dir="auto"><b>{escape(visible(line.what))}</b>: {escape(line.words)}'
            f'<div class="fv-quiet">{escape(value)} · equal {escape(line.equal)} · n {escape(line.n)}</div></div>'
        )
    for who, words in seconds_per_person(here.database, looked):
        st.html(f'<div class="fv-quiet" dir="auto">{escape(visible(who))}: {escape(words)}</div>')


def show_mine(here: Here) -> None:
    """This reader's last ten decisions, each with an undo while it holds."""
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
                    on_click=_undo_one,
                    args=(here, decision.event_id),
                )
            else:
                st.caption("taken back")


def _undo_one(here: Here, event_id: str) -> None:
    try:
        here.database.undo_mine(here.reviewer, event_id)
    except FacvizError as error:
        say(str(error))
