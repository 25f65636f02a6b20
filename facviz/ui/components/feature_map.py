"""The map on the features page: colour it, draw around features with lasso or box, and the table shows those."""

from __future__ import annotations

from typing import Any

import streamlit as st

from facviz.ui import resources, state
from facviz.ui.components.address import follow, plain_markdown
from facviz.ui.components.feature_search import FIRST_PAGE, Asked
from facviz.ui.components.jobs import start, watch
from facviz.ui.frame import Here
from facviz.views.feature_map import COLOURS, MAX_CORNERS, map_words, parse_area, selected, write_area
from facviz.views.features import Lens
from facviz.views.format import count
from facviz.views.scope import Looked

_KEY = "fv_features_map"
_CONFIG = {
    "displayModeBar": True,
    "displaylogo": False,
    "scrollZoom": True,
    "modeBarButtonsToRemove": ["toImage", "autoScale2d", "zoomIn2d", "zoomOut2d"],
}


def map_lens(here: Here, looked: Looked, now: Asked) -> Lens | None:
    """The features of an area drawn on the map, or all; None before there is a map."""
    del now
    found = resources.feature_map(here.database, looked)
    if found is None:
        _make(here, looked)
        return None
    area = parse_area(state.query_text("area", 20 * MAX_CORNERS))
    chosen = selected(found, area) if area else None
    colour = state.query_text("colour") if state.query_text("colour") in COLOURS else "cluster"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"{plain_markdown(map_words(found, None if chosen is None else len(chosen)))}.")
        if area:
            st.button("Clear area", key="fv_features_area_clear", icon=":material/close:", on_click=_clear)
        st.space("stretch")
        st.selectbox(
            "Colour by",
            list(COLOURS),
            format_func=lambda name: f"Colour: {COLOURS[name].lower()}",
            label_visibility="collapsed",
            width=220,
            **follow("fv_features_colour", "colour", colour, default="cluster"),
        )
    st.plotly_chart(
        resources.map_figure(here.database, looked, colour, here.mode, area),
        theme=None,
        key=_KEY,
        on_select=_select,
        selection_mode=("box", "lasso"),
        config=_CONFIG,
        alt=f"Map of {count(len(found.x))} features, coloured by {COLOURS[colour].lower()}; the table lists them.",
    )
    watch(here.root, "features")
    return Lens(chosen, says=False)


def _select() -> None:
    """An area that was drawn goes to the address; an empty event only says that the picture was drawn anew."""
    chosen: Any = st.session_state[_KEY]["selection"]
    drawn = [*(chosen.get("lasso") or []), *(chosen.get("box") or [])]
    if drawn:
        area = write_area(list(drawn[-1].get("x") or []), list(drawn[-1].get("y") or []))
        state.set_query(area=area or None, **dict.fromkeys(FIRST_PAGE))


def _clear() -> None:
    state.set_query(area=None, page=None)


def _make(here: Here, looked: Looked) -> None:
    """What the map will show, and the one button that makes it."""
    if watch(here.root, "features"):
        return
    with st.container(border=True, key="fv_empty_map"):
        st.subheader("A map of all features, similar ones side by side", anchor=False)
        st.caption(
            "It is made once for an SAE from its decoder directions, in the background: about a quarter of a "
            "minute for 4,096 features, one to two minutes for 65,536 on two cores."
        )
        if st.button("Draw the map", key="fv_features_map_make", type="primary", icon=":material/map:"):
            start(here.root, title="Map of features", page="features", arguments=["map", "--sae", looked.sae_id])
