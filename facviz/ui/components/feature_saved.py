"""What leaves the features page: its address under a name, and its table as a file."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from facviz.errors import FacvizError
from facviz.store.saved_views import MAX_NAME, SavedView, remove_view, save_view, saved_views
from facviz.ui import state
from facviz.ui.components.address import plain_markdown
from facviz.ui.components.feature_search import ADDRESS, Asked
from facviz.ui.frame import Here
from facviz.ui.resources import text_key
from facviz.views.features import Lens, table_csv
from facviz.views.scope import Looked

_PAGE = "features"
_NAME, _PROBLEM = "fv_features_view_name", "fv_features_view_problem"
_MAX_VALUE = 4000


def show_saved(here: Here) -> None:
    """Views that somebody named, to open or remove, and a field to name the present one."""
    views = saved_views(here.database, _PAGE)
    label = f"Saved views · {len(views)}" if views else "Saved views"
    with st.popover(label, icon=":material/bookmark:", key="fv_features_saved"):
        for view in views:
            _row(here, view)
        if not views:
            st.caption("A view is what this page shows now: search, filters, order, text, map and comparison.")
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            st.text_input("Name of this view", key=_NAME, max_chars=MAX_NAME, placeholder="such as “gap, unreviewed”")
            st.button("Save", key="fv_features_view_save", icon=":material/bookmark_add:", on_click=_save, args=(here,))
        problem = st.session_state.pop(_PROBLEM, None)
        if problem:
            st.error(problem)


def _row(here: Here, view: SavedView) -> None:
    key = text_key(view.name)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            plain_markdown(view.name),
            key=f"fv_features_view_open_{key}",
            type="tertiary",
            help=plain_markdown(f"Saved by {view.actor}."),
            on_click=_open,
            args=(dict(view.query),),
        )
        st.space("stretch")
        st.button(
            "Remove",
            key=f"fv_features_view_remove_{key}",
            icon=":material/close:",
            type="tertiary",
            on_click=_remove,
            args=(here, view.name),
        )


def _open(query: Mapping[str, str]) -> None:
    """Exactly what was saved: values of the present address that it does not name go."""
    known = {name: query[name][:_MAX_VALUE] for name in ADDRESS if name in query}
    state.set_query(**(dict.fromkeys((*ADDRESS, "page")) | known))


def _save(here: Here) -> None:
    query = {name: value for name in ADDRESS if (value := state.query_text(name, _MAX_VALUE))}
    try:
        save_view(here.database, here.reviewer, _PAGE, str(st.session_state[_NAME] or ""), query)
    except FacvizError as error:
        st.session_state[_PROBLEM] = str(error)
    else:
        st.session_state[_NAME] = ""


def _remove(here: Here, name: str) -> None:
    try:
        remove_view(here.database, here.reviewer, _PAGE, name)
    except FacvizError as error:
        st.session_state[_PROBLEM] = str(error)


def export_table(here: Here, looked: Looked, now: Asked, lens: Lens) -> None:
    """The whole table that passes the filters as CSV; it is made when the button is pressed."""
    order = {"sort": now.sort, "descending": now.descending}
    st.download_button(
        "CSV",
        data=lambda: table_csv(here.database, looked, now.chosen, **order, lens=lens),  # type: ignore[arg-type]
        file_name="features.csv",
        mime="text/csv",
        icon=":material/download:",
        key="fv_features_csv",
        on_click="ignore",
        help="All pages of this table, in this order.",
    )
