"""The ways of looking at the features page's table, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import streamlit as st

from facviz.ui.components.feature_compare import compare_lens
from facviz.ui.components.feature_map import map_lens
from facviz.ui.components.feature_saved import show_saved
from facviz.ui.components.feature_search import Asked, choose_view, search_lens
from facviz.ui.components.feature_text import text_lens
from facviz.ui.frame import Here
from facviz.views.features import Lens
from facviz.views.scope import Looked

_LENSES: Mapping[str, Callable[[Here, Looked, Asked], Lens | None]] = {
    "table": search_lens,
    "text": text_lens,
    "map": map_lens,
    "compare": compare_lens,
}


def choose_lens(here: Here, now: Asked) -> None:
    """Which way, and the views that were saved."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        choose_view(now)
        st.space("stretch")
        show_saved(here)


def show_lens(here: Here, looked: Looked, now: Asked) -> Lens | None:
    """Draw the chosen way of looking; the table's features, or None while there are none to show."""
    return _LENSES[now.view](here, looked, now)
