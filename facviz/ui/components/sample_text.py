"""A candidate's text with its measure, and with heat where a person asked the language model to read it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from html import escape
from typing import Any

import streamlit as st

from facviz.ui import resources
from facviz.ui.components.coverage import literal
from facviz.ui.frame import Here
from facviz.views.heat import SpanRow, heat_style, spans_html
from facviz.views.samples import Sample, plain_span
from facviz.views.synthesis import Run

HEAT = "fv_synthesis_heat"
_LOOKS = {"approved": "fv-filled", "edited": "fv-filled"}
_HEAT_HELP = "Reads the texts with the language model on this machine; it takes a while to load the first time."


def heat_toggle(label: str, key: str) -> bool:
    """Whether texts are read with the language model, which only a person's wish loads."""
    return st.toggle(label, key=key, persist_state="session", help=_HEAT_HELP)


def sample_html(here: Here, run: Run, sample: Sample, *, heat: bool) -> str:
    """Feature, text and measure as escaped HTML; with `heat` the tokens are marked once the text is encoded."""
    look = _LOOKS.get(sample.review if sample.is_accepted else "", "fv-quiet")
    facts = f'{escape(sample.measure)} · <b class="{look}">{escape(sample.verdict)}</b>'
    body = text_html(here, run, sample, sample.text, heat=heat)
    return f'<b dir="auto">{escape(sample.explanation)}</b>{body}<div class="fv-quiet">{facts}</div>'


def text_html(here: Here, run: Run, sample: Sample, text: str, *, heat: bool, has_pill: bool = True) -> str:
    """A text that belongs to a sample: its own, or one of its pair; on its feature's scale.

    Without the pill that names the peak it fits a narrow place.
    """
    row = plain_span(text, sample.feature_max)
    if heat and text.strip():
        row = _heat_of(sample, row, encoding(here, run, sample, text))
    return spans_html([row], mode=here.mode, context="window", warn=here.blurred, has_pills=has_pill)


def kept_away(here: Here, inner: str) -> str:
    """Escaped HTML with a text in it, blurred until pointed at where this reader asked for that."""
    if not here.blurred:
        return inner
    return (
        f'{heat_style(here.mode)}<div class="fv-warn"><div class="fv-row" tabindex="0"><div>{inner}</div></div></div>'
    )


def encoding(here: Here, run: Run, sample: Sample, text: str) -> Future[Any]:
    """Token activations of a text, on their way since the first call; spoken by whoever speaks in the sample."""
    return resources.encoded_text(str(here.root), run["sae_id"], text, sample.role)


def _heat_of(sample: Sample, row: SpanRow, future: Future[Any]) -> SpanRow:
    is_ready = future.done() and future.exception() is None
    return sample.heat(future.result()) if is_ready else row


def wait_for(futures: Sequence[Future[Any]]) -> None:
    """Draw the page again once the model has read everything; a failure is said."""
    failed = [f.exception() for f in futures if f.done() and f.exception() is not None]
    if failed:
        st.caption(literal(str(failed[0])))
    elif not all(f.done() for f in futures):
        _until_done(futures)


@st.fragment(run_every="1s", key="fv_synthesis_encoding")
def _until_done(futures: Sequence[Future[Any]]) -> None:
    if all(f.done() for f in futures):
        st.rerun()
    st.caption(":material/hourglass_empty: Reading the texts with the language model …")
