"""One candidate at a time: its text with the evidence beside it, decided by keys, corrected and verified again.

Decisions are recorded in callbacks, each with the decision its page was drawn with. An edited text is verified in the
background and recorded there: it takes the place of the generator's only where the model and the gates agree again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import streamlit as st

from facviz.errors import FacvizError
from facviz.store.events import MAX_SAMPLE, Target, candidate_of
from facviz.ui import resources, state
from facviz.ui.components.address import feature_address, plain_markdown
from facviz.ui.components.decisions import say, show_problem
from facviz.ui.components.moving import Strip
from facviz.ui.components.sample_text import HEAT, encoding, heat_toggle, kept_away, text_html, wait_for
from facviz.ui.components.waiting import ready
from facviz.ui.frame import Here
from facviz.views.candidate import Pair, facts_html, gate_list, gates_html, provenance, read_pair
from facviz.views.format import count, visible
from facviz.views.heat import word_diff_html
from facviz.views.samples import REJECT_REASONS, Facet, Place, Sample, edit_of, failed_edit
from facviz.views.synthesis import Run

HELP_KEY = "fv_sample_help"
EDIT_KEY, TEXT_KEY = "fv_sample_edit", "fv_sample_text_"
_DOING, _VERIFYING = "fv_sample_doing", "fv_sample_verifying"
_KEYS = (
    ("A", "approve the text"),
    ("E", "edit it; Ctrl+Enter verifies and keeps it, Esc closes"),
    ("X", "reject it, then 1 to 5 for the reason"),
    ("O", "take the decision on this text back"),
    ("U / Y", "take back your last decision, to any depth / bring it back"),
    ("← →", "previous and next without deciding"),
    ("B", "decide on many at once"),
    ("H or ?", "this help"),
)


@dataclass(frozen=True, slots=True)
class Desk:
    """Who looks at which candidate of which list."""

    here: Here
    run: Run
    facet: Facet
    place: Place
    sample: Sample

    @property
    def target(self) -> Target:
        """What is decided on."""
        return candidate_of(self.sample.candidate_id)

    @property
    def text_key(self) -> str:
        """Widget key of the text field."""
        return f"{TEXT_KEY}{self.sample.candidate_id}"

    def doing(self) -> str:
        """`edit` or `reject` while that is open for this candidate, else ""."""
        doing, candidate_id = st.session_state.get(_DOING, ("", ""))
        return str(doing) if candidate_id == self.sample.candidate_id else ""


def show_desk(desk: Desk) -> None:
    """The text and the decision on the left, why it passed or not and where it comes from on the right."""
    here, sample, heat = desk.here, desk.sample, bool(st.session_state.get(HEAT))
    pair = read_pair(here.database, sample)
    _moves(desk)
    decide, evidence = st.columns([3, 2], gap="large")
    with decide, st.container(key="fv_sample_desk"):
        _text(desk, heat=heat)
        _decision(desk)
        _pair(desk, pair, heat=heat)
    with evidence:
        st.markdown("**What the gates measured**")
        st.html(gates_html(gate_list(sample.row)))
        st.markdown("**Why and how it was written**")
        st.html(facts_html(provenance(sample, desk.run["task"])))
    if heat:
        texts = [sample.text, *(side.text for side in pair.sides)] if pair else [sample.text]
        wait_for([encoding(here, desk.run, sample, text) for text in texts if text.strip()])


def _moves(desk: Desk) -> None:
    place, sample = desk.place, desk.sample
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        where = f"{count(place.place)} of {count(desk.facet.n)}" if place.place else "not in this list any more"
        st.page_link(
            "pages/feature.py",
            label=f"**Feature {sample.feature_id}** · {where}" if sample.feature_id >= 0 else where,
            disabled=sample.feature_id < 0,
            query_params=feature_address(max(sample.feature_id, 0), {"sae": state.query_text("sae")}),
            help="Open the feature's own page.",
        )
        strip = _strip(desk.here)
        strip.show_moves(*(partial(_go, target) if target else None for target in (place.before, place.after)))
        strip.show_taking_back()
        st.space("stretch")
        heat_toggle("Show where it fires", HEAT)


def show_taking_back(here: Here) -> None:
    """Undo, redo and help: also where no candidate is left to show."""
    _strip(here).show_taking_back()


def _strip(here: Here) -> Strip:
    words = "Keys and how this works (?)"
    return Strip("fv_sample", partial(_undo_mine, here), partial(_redo_mine, here), show_help, HELP_KEY, words)


def _text(desk: Desk, *, heat: bool) -> None:
    sample = desk.sample
    look = "fv-filled" if sample.is_accepted and sample.review != "rejected" else "fv-quiet"
    st.html(f'<div class="fv-explanation" dir="auto">{escape(visible(sample.explanation))}</div>')
    st.html(text_html(desk.here, desk.run, sample, sample.text, heat=heat))
    facts = f'{escape(sample.measure)} · <b class="{look}">{escape(sample.verdict)}</b>'
    st.html(f'<div class="fv-quiet" dir="auto">{facts}</div>')
    if sample.written_text:
        with st.expander("What was changed", key="fv_sample_diff"):
            st.html(kept_away(desk.here, word_diff_html(sample.written_text, sample.text)))
    tried = failed_edit(desk.here.database, sample.candidate_id)
    if tried is not None:
        st.caption(f":material/block: The last edit did not verify ({plain_markdown(tried.words)}); this text stays.")


def _decision(desk: Desk) -> None:
    show_problem()
    if _is_verifying(desk):
        return
    doing = desk.doing()
    if doing == "edit":
        _edit_form(desk)
    elif doing == "reject":
        _reasons(desk)
    else:
        _buttons(desk)


def _buttons(desk: Desk) -> None:
    sample = desk.sample
    is_open = sample.is_accepted and sample.review != "approved"
    with st.container(horizontal=True, gap="small"):
        if sample.is_accepted:
            _button(desk, "Approve", "A", "approve", _record, "approve", primary=True, disabled=not is_open)
        if sample.text.strip():
            _button(desk, "Edit", "E", "edit", _start_edit)
        if sample.is_accepted:
            _button(desk, "Reject", "X", "reject", _start, "reject", disabled=sample.review == "rejected")
        if sample.event_id:
            _button(desk, "Reopen", "O", "reopen", _undo_this)


def _button(
    desk: Desk,
    label: str,
    key: str,
    name: str,
    action: Callable[..., None],
    *arguments: object,
    primary: bool = False,
    disabled: bool = False,
) -> None:
    st.button(
        label,
        key=f"fv_sample_{name}",
        type="primary" if primary else "secondary",
        shortcut=key,
        on_click=action,
        args=(desk, *arguments),
        disabled=disabled,
    )


def _edit_form(desk: Desk) -> None:
    with st.form("fv_sample_form", border=False):
        st.text_area(
            "The text as it should be",
            key=desk.text_key,
            max_chars=MAX_SAMPLE,
            height=150,
            help="Ctrl+Enter verifies it: the model reads it alone, and it has to pass every gate again.",
        )
        with st.container(horizontal=True, gap="small"):
            st.form_submit_button(
                "Verify and keep",
                icon=":material/verified:",
                type="primary",
                key="fv_sample_save",
                on_click=_verify,
                args=(desk,),
            )
            st.form_submit_button("Cancel", key="fv_sample_cancel", on_click=_stop, shortcut="Esc")


def _reasons(desk: Desk) -> None:
    st.caption("Why is it rejected?")
    with st.container(horizontal=True, gap="small"):
        for number, reason in enumerate(REJECT_REASONS, start=1):
            st.button(
                reason.capitalize(),
                key=f"fv_sample_reason_{number}",
                shortcut=str(number),
                on_click=_record,
                args=(desk, "reject", {"reason": reason}),
            )
        st.button("Cancel", key="fv_sample_cancel_reject", type="tertiary", shortcut="Esc", on_click=_stop)
    st.text_input(
        "Another reason",
        key="fv_sample_why",
        max_chars=200,
        placeholder="Another reason; Enter rejects",
        label_visibility="collapsed",
        on_change=_reject_for,
        args=(desk,),
    )


def _pair(desk: Desk, pair: Pair | None, *, heat: bool) -> None:
    if pair is None:
        return
    margin = f" · margin {plain_markdown(pair.margin)}" if pair.margin else ""
    st.markdown(f"**Strong and weak of the pair**{margin}")
    if not pair.sides:
        st.caption(pair.words)
        return
    sides = "".join(
        f'<div class="fv-side"><div class="fv-quiet">{side.name} · {escape(side.share)}</div>'
        f"{text_html(desk.here, desk.run, desk.sample, side.text, heat=heat, has_pill=False)}</div>"
        for side in pair.sides
    )
    st.html(f'<div class="fv-sides">{sides}</div>')


def _start(desk: Desk, doing: str) -> None:
    st.session_state[_DOING] = (doing, desk.sample.candidate_id)


def _start_edit(desk: Desk) -> None:
    tried = failed_edit(desk.here.database, desk.sample.candidate_id)
    st.session_state[desk.text_key] = tried.text if tried else _as_edited(desk)
    _start(desk, "edit")


def _as_edited(desk: Desk) -> str:
    """The text as it is edited: with its labelled parts where the task's format has several."""
    from facviz.pipeline.verifying import editable_text

    return editable_text(desk.run["task"], desk.sample.text, desk.sample.fields)


def _stop() -> None:
    st.session_state.pop(_DOING, None)


def _verify(desk: Desk) -> None:
    """Hand the edited text to the model; the page shows the verdict when it is there."""
    text = str(st.session_state.get(desk.text_key) or "").strip()
    if not text or text == _as_edited(desk).strip():
        say("The text is empty; reject it instead." if not text else "Nothing was changed.")
        return
    if not desk.here.reviewer:
        say("A decision carries a name; log in, or give yours in the reader settings.")
        return
    edit = edit_of(desk.sample, desk.run, text)
    future = resources.verified_edit(desk.here.database, desk.here.reviewer, edit)
    st.session_state[_VERIFYING] = (desk.sample.candidate_id, future, text)


def _is_verifying(desk: Desk) -> bool:
    """Whether an edit of this candidate is being read; once it was, the page is drawn anew with what came of it."""
    pending: tuple[str, Future[dict[str, Any]], str] | None = st.session_state.get(_VERIFYING)
    if pending is None or pending[0] != desk.sample.candidate_id:
        return False
    try:
        found = ready("The language model reads your text; the verdict appears by itself.", pending[1])
    except FacvizError as error:
        st.session_state.pop(_VERIFYING)
        st.session_state[desk.text_key] = pending[2]
        st.error(str(error), icon=":material/sync_problem:")
        return False
    if found is None:
        return True
    st.session_state.pop(_VERIFYING)
    _stop()
    if found[0]["payload"]["measured"].get("accepted"):
        st.toast("Verified: the edited text takes the place of the first.", icon=":material/verified:")
    else:
        _start_edit(desk)  # what was typed is kept in the log, and stands in the field again
    st.rerun()
    return False


def _record(desk: Desk, kind: str, payload: Mapping[str, Any] | None = None) -> None:
    here, sample = desk.here, desk.sample
    try:
        here.database.record(here.reviewer, desk.target, kind, payload, seen=sample.event_id)
    except FacvizError as error:
        say(str(error))
        return
    _stop()
    _go(desk.place.after or desk.place.before)


def _reject_for(desk: Desk) -> None:
    if reason := str(st.session_state.get("fv_sample_why") or "").strip():
        _record(desk, "reject", {"reason": reason})


def _go(candidate_id: str) -> None:
    state.set_query(candidate=candidate_id or None)


def _undo_this(desk: Desk) -> None:
    try:
        desk.here.database.undo(desk.here.reviewer, desk.target)
    except FacvizError as error:
        say(str(error))


def _undo_mine(here: Here) -> None:
    try:
        undone = here.database.undo_mine(here.reviewer, kinds=("candidate",))
    except FacvizError as error:
        say(str(error))
        return
    _return_to(undone[-1])
    if len(undone) > 1:
        st.toast(f"{count(len(undone))} decisions taken back", icon=":material/undo:")


def _redo_mine(here: Here) -> None:
    try:
        _return_to(here.database.redo_mine(here.reviewer, kinds=("candidate",))[-1])
    except FacvizError as error:
        say(str(error))


def _return_to(event: Mapping[str, Any]) -> None:
    target = Target.parse(event["target"])
    if target is not None and target.candidate_id:
        _go(target.candidate_id)


@st.dialog("Reading and deciding", width="medium")
def show_help() -> None:
    """Keys, and what happens to a decision."""
    grid = "display:grid;grid-template-columns:6rem 1fr;gap:4px 16px"
    rows = "".join(f"<kbd>{escape(key)}</kbd><span>{escape(words)}</span>" for key, words in _KEYS)
    st.html(f'<div style="{grid}">{rows}</div>')
    st.caption(
        "No key acts while you type. Every decision is on disk before it shows, with your name and the time; nothing "
        "is ever deleted. An edited text is read by the model alone and held against every gate again; only where it "
        "passes does it take the place of the first, here and in what is exported."
    )
