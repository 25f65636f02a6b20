"""Deciding on an explanation: buttons, the text field, reasons, relevance; a refused decision is said, nothing lost.

Decisions are recorded in callbacks, so that the page is drawn once, with what came of them. Each carries the decision
its page was drawn with; when somebody else was faster, that is refused and the typed text stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import streamlit as st

from facviz.errors import FacvizError
from facviz.store.events import MAX_TEXT, Target, explanation_of, relevance_of
from facviz.ui.frame import Here
from facviz.views.decisions import REJECT_REASONS, STATUS_WORDS, VERDICTS, Judged, Said
from facviz.views.format import UNKNOWN, visible

_DOING, _PROBLEM = "fv_deciding", "fv_decision_problem"
_STATUS_ICONS = {
    "unreviewed": ":material/radio_button_unchecked:",
    "accepted": ":material/check_circle:",
    "edited": ":material/edit:",
    "rejected": ":material/block:",
    "flagged": ":material/flag:",
    "skipped": ":material/skip_next:",
}
_STATE_COLOURS = {"missing": "orange", "filled": "green", "covered": "gray", "exhausted": "gray"}


def _nothing(event: Mapping[str, Any]) -> None:
    del event


@dataclass(frozen=True, slots=True)
class Desk:
    """Who looks at which explanation, as read with `said`; `then` gets the event of a decision that was recorded."""

    here: Here
    sae_id: str
    feature_id: int
    said: Said
    keys: bool = False  # whether single keys decide
    is_hidden: bool = False  # the machine's words are kept away until the reader decided
    then: Callable[[Mapping[str, Any]], None] = field(default=_nothing)
    circumstances: Callable[[], Mapping[str, Any]] = field(default=dict)  # what every decision says besides itself

    @property
    def target(self) -> Target:
        """What is decided on."""
        return explanation_of(self.sae_id, self.feature_id)

    @property
    def text_key(self) -> str:
        """Widget key of the text field."""
        return f"fv_explanation_{self.sae_id}_{self.feature_id}"

    def doing(self) -> str:
        """`edit` or `reject` while that is open for this feature, else ""."""
        doing, target = st.session_state.get(_DOING, ("", ""))
        return str(doing) if target == self.target.key else ""


def show_said(desk: Desk, *, state: str = "", marks: tuple[str, ...] = (), theme: str = "") -> None:
    """The explanation in large type under its badges, and who wrote it."""
    said = desk.said
    with st.container(horizontal=True, gap="small"):
        st.badge(STATUS_WORDS.get(said.status, said.status), icon=_STATUS_ICONS.get(said.status), color="gray")
        if state:
            st.badge(state, icon=":material/square:", color=_STATE_COLOURS.get(state, "gray"))  # type: ignore[arg-type]
        for mark in marks:
            st.badge(mark, icon=":material/crop_square:", color="gray")
    none = "Hidden until you decide or write your own words" if desk.is_hidden else "Not explained yet"
    words = escape(visible(said.text)) if said.text else f'<span class="fv-quiet">{none}</span>'
    notes = [said.by] + [f"score {said.score}"] * (said.score != UNKNOWN)
    notes += [f"theme {theme}"] * bool(theme) + [f"reason: {said.reason}"] * bool(said.reason)
    notes += [f"note: {said.note}"] * bool(said.note)
    quiet = escape(visible(" · ".join(note for note in notes if note)))
    st.html(f'<div class="fv-explanation" dir="auto">{words}</div><div class="fv-quiet" dir="auto">{quiet}</div>')


def show_problem() -> None:
    """Why the last decision was refused, once."""
    problem = st.session_state.pop(_PROBLEM, None)
    if problem:
        st.error(problem, icon=":material/sync_problem:")


def show_actions(desk: Desk) -> None:
    """Accept, edit, reject, or the form that one of them opened."""
    show_problem()
    doing = desk.doing()
    if doing == "edit":
        _edit_form(desk)
    elif doing == "reject":
        _reasons(desk)
    else:
        _buttons(desk)


def _buttons(desk: Desk) -> None:
    with st.container(horizontal=True, gap="xsmall" if desk.keys else "small"):
        _button(desk, "Accept", "A", "accept", ":material/check:", _record, "accept", primary=True)
        words = "Write" if desk.is_hidden else "Fix & accept" if desk.keys else "Edit"
        _button(desk, words, "E", "edit", ":material/edit:", _start_edit)
        _button(desk, "Reject", "X", "reject", ":material/block:", _start, "reject")
        if desk.keys:
            _button(desk, "Cannot tell", "T", "unsure", ":material/help:", _record, "unsure")
            _button(desk, "Flag", "F", "flag", ":material/flag:", _record, "flag")
            _button(desk, "Skip", "S", "skip", ":material/skip_next:", _record, "skip")
            if desk.said.status not in ("unreviewed", "skipped"):
                _button(desk, "Reopen", "O", "reopen", ":material/lock_open:", _record, "reopen")
        else:
            st.button(
                "Undo",
                icon=":material/undo:",
                key="fv_decide_undo",
                disabled=not desk.said.can_undo,
                on_click=take_back,
                args=(desk.here, desk.target),
                help="Takes back the last decision on this explanation; again, the one before it.",
            )
            st.button(
                "Redo",
                icon=":material/redo:",
                key="fv_decide_redo",
                disabled=not desk.said.can_redo,
                on_click=_redo,
                args=(desk,),
            )


def _button(
    desk: Desk,
    label: str,
    key: str,
    name: str,
    icon: str,
    action: Callable[..., None],
    *arguments: object,
    primary: bool = False,
) -> None:
    st.button(
        label,
        icon=None if desk.keys else icon,  # the key's sign stands in its place
        key=f"fv_decide_{name}",
        type="primary" if primary else "secondary",
        shortcut=key if desk.keys else None,
        on_click=action,
        args=(desk, *arguments),
        disabled=(name == "accept" and not desk.said.is_explained) or (name == "reject" and desk.is_hidden),
    )


def _edit_form(desk: Desk) -> None:
    with st.form("fv_decide_form", border=False):
        st.text_area(
            "What this feature responds to",
            key=desk.text_key,
            max_chars=MAX_TEXT,
            height=110,
            help="Ctrl+Enter saves. The words of the machine stay in the history.",
        )
        with st.container(horizontal=True, gap="small"):
            st.form_submit_button(
                "Save", icon=":material/check:", type="primary", key="fv_decide_save", on_click=_save, args=(desk,)
            )
            st.form_submit_button("Cancel", key="fv_decide_cancel", on_click=_stop, shortcut="Esc")


def _reasons(desk: Desk) -> None:
    st.caption("Why is it rejected?")
    with st.container(horizontal=True, gap="small"):
        for number, reason in enumerate(REJECT_REASONS, start=1):
            st.button(
                reason,
                key=f"fv_decide_reason_{number}",
                shortcut=str(number) if desk.keys else None,
                on_click=_record,
                args=(desk, "reject", {"reason": reason}),
            )
        st.button("Cancel", key="fv_decide_cancel_reject", type="tertiary", shortcut="Esc", on_click=_stop)


def _start(desk: Desk, doing: str) -> None:
    st.session_state[_DOING] = (doing, desk.target.key)


def _start_edit(desk: Desk) -> None:
    st.session_state[desk.text_key] = desk.said.text
    _start(desk, "edit")


def _stop() -> None:
    st.session_state.pop(_DOING, None)


def _save(desk: Desk) -> None:
    _record(desk, "edit", {"text": st.session_state.get(desk.text_key, ""), "was": desk.said.text})


def take_written(desk: Desk) -> None:
    """Accept the machine's words in place of a person's."""
    _record(desk, "accept", {"written": True, "saw": True})


def _record(desk: Desk, kind: str, payload: Mapping[str, Any] | None = None) -> None:
    whole = {**desk.circumstances(), **(payload or {})}
    event = _try(lambda: desk.here.database.record(desk.here.reviewer, desk.target, kind, whole, seen=desk.said.seen))
    if event is not None:
        _stop()
        desk.then(event)


def _redo(desk: Desk) -> None:
    _try(lambda: desk.here.database.redo(desk.here.reviewer, desk.target))


def take_back(here: Here, target: Target) -> None:
    """Undo the last decision on a target."""
    _try(lambda: here.database.undo(here.reviewer, target))


def say(problem: str) -> None:
    """Show a sentence where decisions are made, once."""
    st.session_state[_PROBLEM] = problem


def _try(action: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    try:
        return action()
    except FacvizError as error:
        say(str(error))
        return None


def choose_verdict(here: Here, sae_id: str, feature_id: int, judged: Judged) -> None:
    """A person's verdict on a task beside the machine's; choosing it again takes it back."""
    key = f"fv_verdict_{judged.task}"
    st.session_state[key] = judged.by_person or None
    st.segmented_control(
        f"Relevant to {judged.task.replace('_', ' ')}?",
        VERDICTS,
        key=key,
        on_change=_judge_choice,
        args=(here, sae_id, feature_id, judged, key),
        help="Your verdict wins over the machine's; choose it again to take it back.",
    )
    by_person = f" · {judged.by_person} by {judged.person}" if judged.by_person else ""
    st.html(f'<div class="fv-quiet">{escape(judged.by_machine + by_person)}<br>{escape(judged.why)}</div>')


def _judge_choice(here: Here, sae_id: str, feature_id: int, judged: Judged, key: str) -> None:
    judge(here, sae_id, feature_id, judged, st.session_state[key])


def judge(here: Here, sae_id: str, feature_id: int, judged: Judged, verdict: str | None) -> None:
    """Record a verdict; None takes the last one back."""
    target = relevance_of(sae_id, feature_id, judged.task)
    if verdict is None:
        take_back(here, target)
    else:
        _try(lambda: here.database.record(here.reviewer, target, "verdict", {"verdict": verdict}, seen=judged.seen))
