"""The feature page's evidence: spans by activation interval, near misses, other texts, and a text of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import streamlit as st

from facviz.errors import FacvizError
from facviz.ui import resources, state
from facviz.ui.components.address import feature_address, follow, plain_markdown
from facviz.ui.components.spans import asked_amount, asked_context, choose_context, show_samples
from facviz.ui.components.waiting import ready
from facviz.ui.frame import Here
from facviz.views.evidence import Evidence, evidence_html, read_intervals, read_near_misses, read_silent
from facviz.views.feature import FeatureView, Tested, try_text
from facviz.views.format import count
from facviz.views.heat import spans_html
from facviz.views.scope import Looked

GENERATED = "~generated"
MAX_TEST_CHARS = 2000
KINDS = {"fires": "Where it fires", "near": "Near misses", "silent": "Other texts"}
_TEXT_BOX = "fv_feature_text"


def where(looked: Looked) -> dict[str, str]:
    """What links to other features keep of this page's address."""
    text = state.query_text("text", MAX_TEST_CHARS)
    return {"sae": looked.sae_id, "dataset": looked.dataset.name, "text": text}


def show_evidence(here: Here, looked: Looked, view: FeatureView) -> None:
    """Texts of the chosen dataset as evidence, or the texts written for the feature."""
    tabs = {d.name: d.label for d in looked.datasets}
    if view.samples:
        tabs[GENERATED] = f"generated · {count(len(view.samples))}"
    chosen = GENERATED if view.samples and state.query_text("dataset") == GENERATED else looked.dataset.name
    st.segmented_control(
        "Texts",
        list(tabs),
        format_func=lambda name: plain_markdown(tabs[name]),
        required=True,
        label_visibility="collapsed",
        **follow("fv_feature_dataset", "dataset", chosen, default=looked.datasets[0].name),
    )
    if chosen == GENERATED:
        show_samples(view.samples, here)
        return
    kind = next((k for k in KINDS if k == state.query_text("evidence")), "fires")
    st.segmented_control(
        "Evidence",
        list(KINDS),
        format_func=KINDS.__getitem__,
        required=True,
        label_visibility="collapsed",
        **follow("fv_feature_evidence", "evidence", kind, default="fires"),
    )
    choose_context("feature")
    found = _read(here, looked, view, kind)
    if found.nothing:
        st.caption(found.nothing)
        return
    st.html(evidence_html(found, mode=here.mode, context=asked_context(), warn=here.blurred))


def _read(here: Here, looked: Looked, view: FeatureView, kind: str) -> Evidence:
    if kind == "near":
        return read_near_misses(here.database, looked, view.feature_id, view.feature_max, asked_amount())
    if kind == "silent":
        return read_silent(here.database, looked, view.feature_id, asked_amount())
    return read_intervals(here.database, looked, view.feature_id, view.feature_max, asked_amount())


def try_span(text: str) -> None:
    """Put the text of a span into the test box."""
    state.set_query(text=text[:MAX_TEST_CHARS] or None)


def test_box(here: Here, looked: Looked, view: FeatureView) -> Tested | None:
    """A reader's own text under this feature; the model loads in the background."""
    text = state.query_text("text", MAX_TEST_CHARS)
    st.text_area(
        "Try your own text",
        placeholder="Type or paste a sentence: where does this feature fire in it?",
        max_chars=MAX_TEST_CHARS,
        height=96,
        help="Ctrl+Enter tests it. The text stands in the address, so a link shows the same.",
        **follow(_TEXT_BOX, "text", text),
    )
    with st.container(horizontal=True, gap="small"):
        st.button("Test", key="fv_feature_test", icon=":material/play_arrow:")
        if text.strip():
            st.button("Clear", key="fv_feature_clear", on_click=state.set_query, kwargs={"text": None})
            _share(view.feature_id, where(looked))
    if not text.strip():
        return None
    waiting = "Warming up: the model reads your text; the result appears by itself."
    try:
        found = ready(waiting, resources.encoded_text(str(here.root), looked.sae_id, text))
    except FacvizError as error:
        st.error(str(error))
        return None
    return None if found is None else try_text(here.database, view, looked.sae_id, found[0])


def _share(feature_id: int, address: Mapping[str, str]) -> None:
    with st.popover("Share", icon=":material/link:", key="fv_feature_share"):
        st.caption("Whoever opens this link on this dashboard sees this feature and this text.")
        st.code(link_of(st.context.url or "", feature_id, address), language=None, wrap_lines=True)


def link_of(url: str, feature_id: int, address: Mapping[str, str]) -> str:
    """The address of this page with all that it says, to hand on."""
    return f"{url}?{urlencode(feature_address(feature_id, address))}"


def show_tested(here: Here, tested: Tested) -> None:
    """Where the text fires and whether that counts."""
    icon = ":material/check_circle:" if tested.is_active else ":material/radio_button_unchecked:"
    st.markdown(f"{icon} {plain_markdown(tested.verdict)}")
    st.html(spans_html([tested.row], mode=here.mode, context="full", warn=here.blurred))
