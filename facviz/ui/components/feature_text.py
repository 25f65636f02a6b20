"""Try a text on the features page: its tokens with heat, and below the table of what fires on it or on one token."""

from __future__ import annotations

import streamlit as st

from facviz.errors import FacvizError
from facviz.ui import resources, state
from facviz.ui.components.address import follow, plain_markdown
from facviz.ui.components.feature_search import FIRST_PAGE, Asked
from facviz.ui.components.token_strip import token_strip
from facviz.ui.components.waiting import ready
from facviz.ui.frame import Here
from facviz.views.features import Lens
from facviz.views.scope import Looked
from facviz.views.tried import Tried, read_tried

MAX_TEXT = 2000
_HEAT = "The darker a token, the rarer what fires on it and the nearer to its own maximum, within this text."
_HELP = (
    "Its activation in proportion to the highest that this feature reached on any data set the SAE has read, as "
    "activations of two features do not compare."
)


def text_lens(here: Here, looked: Looked, now: Asked) -> Lens | None:
    """What fires on a reader's own text; None while there is no text or the model reads it."""
    text = state.query_text("text", MAX_TEXT)
    st.text_area(
        "Your text",
        placeholder="Type or paste a text: which features fire on it, and on which token?",
        max_chars=MAX_TEXT,
        height=96,
        help="Ctrl+Enter tries it. The text stands in the address, so a link shows the same.",
        **follow("fv_features_text", "text", text, resets=("token", *FIRST_PAGE)),
    )
    if not text.strip():
        st.caption("Nothing is tried yet. Every feature that fires will be listed here, strongest first.")
        return None
    try:
        found = ready(
            "Warming up: the model reads your text; the result appears by itself.",
            resources.encoded_text(str(here.root), looked.sae_id, text),
        )
    except FacvizError as error:
        st.error(str(error))
        return None
    if found is None:
        return None
    with_always_on = now.chosen.with_always_on or now.chosen.only_always_on
    tried = read_tried(here.database, looked, found[0], token=state.query_int("token"), with_always_on=with_always_on)
    _show_tokens(here, tried)
    return Lens(tried.found, tried.words, headings={"match": "Of its maximum"}, help=_HELP, shows_all=True)


def _show_tokens(here: Here, tried: Tried) -> None:
    token_strip(
        tried.tokens,
        chosen=tried.chosen,
        mode=here.mode,
        blurred=here.blurred,
        key="fv_features_tokens",
        on_choose=lambda place: _choose(None if place == tried.chosen else place),
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if tried.chosen is None:
            st.caption(f"{plain_markdown(tried.summary)}. Choose a token to see what fires on it alone.", help=_HEAT)
        else:
            st.caption(f"{plain_markdown(tried.summary)}.")
            st.button(
                "Whole text", key="fv_features_whole", icon=":material/close:", type="tertiary", on_click=_choose,
                args=(None,),
            )  # fmt: skip


def _choose(place: int | None) -> None:
    state.set_query(token=place, page=None)
