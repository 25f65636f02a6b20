"""Lists of features: on which ones this feature is and why, and a dialog to look after all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import streamlit as st

from facviz.errors import FacvizError
from facviz.store.events import MAX_LIST_NAME, MAX_TEXT, Target, list_of, listed_of
from facviz.ui import state
from facviz.ui.components.address import feature_link, follow, plain_markdown
from facviz.ui.frame import Here
from facviz.views.format import short
from facviz.views.lists import (
    FeatureList,
    Listed,
    add_to_list,
    deleted_lists,
    lists_of,
    read_listed,
    read_lists,
    rename_list,
)
from facviz.views.scope import Looked

_PROBLEM, _TAKEN = "fv_lists_problem", "fv_lists_taken"
_NAME, _NOTE, _CHOSEN = "fv_lists_name", "fv_lists_note", "fv_lists_chosen"


def show_lists(here: Here, looked: Looked, feature_id: int) -> None:
    """The button with everything behind it; the body is only worked out while it is open."""
    mine = lists_of(here.database, looked.sae_id, feature_id, datetime.now(UTC))
    if mine:
        names = ", ".join(short(item.name, 20) for item in mine[:3]) + " …" * (len(mine) > 3)
        st.caption(f":material/bookmark: {plain_markdown(names)}")
    # Its label never changes, or it would close whenever something in it does.
    with st.popover("Lists", icon=":material/bookmarks:", key="fv_lists", on_change="rerun") as opened:
        if opened.open:
            _body(here, looked, feature_id, mine)


def _body(here: Here, looked: Looked, feature_id: int, mine: list[Listed]) -> None:
    if problem := st.session_state.pop(_PROBLEM, ""):
        st.error(problem)
    for item in mine:
        _place(here, looked, feature_id, item)
    taken = st.session_state.get(_TAKEN)
    if isinstance(taken, Target) and (taken.sae_id, taken.feature_id) == (looked.sae_id, feature_id):
        st.button(
            "Put it back on the list it was taken off",
            key="fv_lists_back",
            icon=":material/undo:",
            type="tertiary",
            on_click=_put_back,
            args=(here, taken),
        )
    lists = read_lists(here.database, looked.sae_id)
    others = {item.list_id: item.words for item in lists if item.list_id not in {place.list_id for place in mine}}
    with st.form("fv_lists_form", border=False, clear_on_submit=True):
        st.selectbox(
            "Add to a list",
            list(others),
            index=None,
            format_func=lambda chosen: others.get(chosen, chosen),
            accept_new_options=True,
            placeholder="Choose one, or name a new one",
            key=_NAME,
        )
        st.text_input("Why (optional)", key=_NOTE, max_chars=MAX_TEXT)
        st.form_submit_button(
            "Add", key="fv_lists_add", icon=":material/bookmark_add:", on_click=_add, args=(here, looked, feature_id)
        )
    if lists or deleted_lists(here.database):
        st.button("Look after all lists", key="fv_lists_manage", type="tertiary", on_click=_open_dialog)


def _place(here: Here, looked: Looked, feature_id: int, item: Listed) -> None:
    target = listed_of(looked.sae_id, feature_id, item.list_id)
    key = f"fv_lists_note_{looked.sae_id}_{feature_id}_{item.list_id}"
    st.session_state[key] = item.note
    left, right = st.columns([5, 1], vertical_alignment="bottom")
    left.text_input(
        plain_markdown(item.name),
        key=key,
        max_chars=MAX_TEXT,
        placeholder="a note on why it is here",
        help=plain_markdown(f"by {item.who}, {item.when}"),
        on_change=_note,
        args=(here, target, key),
    )
    right.button(
        "",
        icon=":material/bookmark_remove:",
        key=f"fv_lists_remove_{item.list_id}",
        help="Take it off this list.",
        on_click=_remove,
        args=(here, target),
    )


def show_dialog(here: Here, looked: Looked) -> None:
    """The dialog over all lists, once after it was asked for; Streamlit keeps it open while it is used."""
    if st.session_state.pop("fv_lists_open", False):
        st.dialog("Lists of features", width="medium")(_look_after)(here, looked)


def _open_dialog() -> None:
    st.session_state["fv_lists_open"] = True


def _look_after(here: Here, looked: Looked) -> None:
    if problem := st.session_state.pop(_PROBLEM, ""):
        st.error(problem)
    lists = read_lists(here.database, looked.sae_id)
    if lists:
        by_id = {item.list_id: item for item in lists}
        if st.session_state.get(_CHOSEN) not in by_id:
            st.session_state[_CHOSEN] = lists[0].list_id
        chosen = st.selectbox("List", list(by_id), format_func=lambda i: by_id[i].words, key=_CHOSEN)
        _one_list(here, looked, by_id[chosen])
    for gone in deleted_lists(here.database)[:5]:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"{plain_markdown(gone.name)} was deleted.")
            st.button(
                "Bring it back",
                key=f"fv_lists_restore_{gone.list_id}",
                type="tertiary",
                icon=":material/undo:",
                on_click=_put_back,
                args=(here, list_of(gone.list_id)),
            )


def _one_list(here: Here, looked: Looked, chosen: FeatureList) -> None:
    name = f"fv_lists_rename_{chosen.list_id}"
    st.session_state[name] = chosen.name
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    left.text_input("Name", key=name, max_chars=MAX_LIST_NAME, on_change=_rename, args=(here, chosen, name))
    right.button(
        "Delete",
        key=f"fv_lists_delete_{chosen.list_id}",
        icon=":material/delete:",
        on_click=_delete,
        args=(here, chosen.list_id),
        help="Deletes the list, not the features; it can be brought back.",
    )
    items = read_listed(here.database, chosen.list_id, looked.sae_id, datetime.now(UTC))
    if not items:
        st.caption("No feature of this SAE is on it.")
    for item in items:
        why = " · ".join(part for part in (item.note, f"by {item.who}, {item.when}") if part)
        feature_link(item.feature_id, item.explanation, {"sae": looked.sae_id, "dataset": looked.dataset.name})
        st.caption(plain_markdown(why))
    st.page_link(
        "pages/features.py",
        label="Show them in the table",
        icon=":material/table_rows:",
        query_params={"list": chosen.list_id, "sae": looked.sae_id},
    )


def _add(here: Here, looked: Looked, feature_id: int) -> None:
    chosen, note = str(st.session_state.get(_NAME) or ""), str(st.session_state.get(_NOTE) or "")
    _record(lambda: add_to_list(here.database, here.reviewer, looked.sae_id, feature_id, chosen, note))


def _note(here: Here, target: Target, key: str) -> None:
    note = str(st.session_state.get(key) or "")
    _record(lambda: here.database.record(here.reviewer, target, "note", {"text": note}))


def _remove(here: Here, target: Target) -> None:
    if _record(lambda: here.database.record(here.reviewer, target, "remove")):
        st.session_state[_TAKEN] = target


def _put_back(here: Here, target: Target) -> None:
    if _record(lambda: here.database.undo(here.reviewer, target)):
        st.session_state.pop(_TAKEN, None)


def _delete(here: Here, list_id: str) -> None:
    _record(lambda: here.database.record(here.reviewer, list_of(list_id), "delete"))


def _rename(here: Here, chosen: FeatureList, key: str) -> None:
    name = str(st.session_state.get(key) or "")
    _record(lambda: rename_list(here.database, here.reviewer, chosen.list_id, name))


def _record(action: Callable[[], object]) -> bool:
    try:
        action()
    except FacvizError as error:
        st.session_state[_PROBLEM] = str(error)
        return False
    return True


def choose_lists(lists: Sequence[FeatureList], chosen: Sequence[str]) -> None:
    """Lists to narrow the table of features to; nothing while there are none."""
    words = {item.list_id: item.words for item in lists}
    if words:
        st.pills(
            "On a list",
            list(words),
            format_func=lambda list_id: plain_markdown(words[list_id]),
            selection_mode="multi",
            **follow("fv_features_list", "list", [i for i in chosen if i in words], resets=("page",)),
        )


def asked_lists() -> tuple[str, ...]:
    """Ids of lists in the address."""
    return tuple(part for part in state.query_text("list", 400).split(",") if part.isalnum())
