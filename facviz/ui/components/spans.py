"""Spans with heat under them, and how much of them to show."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from facviz.ui import state
from facviz.ui.components.address import follow
from facviz.ui.frame import Here
from facviz.views.feature import Sample, Spans
from facviz.views.heat import Context, SpanRow, spans_html

CONTEXTS: dict[Context, str] = {"near": "± 5", "window": "± 16", "full": "Full text"}
AMOUNTS = (5, 10, 20, 50)


def asked_context() -> Context:
    """How much text around the peak the address asks for."""
    return next((c for c in CONTEXTS if c == state.query_text("context")), "window")


def asked_amount() -> int:
    """How many spans of each half the address asks for."""
    amount = state.query_int("spans")
    return amount if amount in AMOUNTS else AMOUNTS[0]


def choose_context(where: str) -> None:
    """Amount of text and number of spans, in the address."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
        st.segmented_control(
            "Text shown",
            list(CONTEXTS),
            format_func=CONTEXTS.__getitem__,
            required=True,
            label_visibility="collapsed",
            **follow(f"fv_{where}_context", "context", asked_context(), default="window"),
        )
        st.selectbox(
            "Spans of each half",
            AMOUNTS,
            format_func=lambda n: f"{n} spans each",
            label_visibility="collapsed",
            width=150,
            **follow(f"fv_{where}_spans", "spans", asked_amount(), default=AMOUNTS[0]),
        )


def show_spans(spans: Spans, here: Here, context: Context) -> None:
    """Both halves, each under what it is for."""
    if not spans.shown and not spans.held_out:
        st.caption("This feature fires on none of these texts.")
        return
    _half("Read to write the explanation", spans.shown, here, context)
    _half("Held out, to score the explanation", spans.held_out, here, context)


def _half(words: str, rows: Sequence[SpanRow], here: Here, context: Context) -> None:
    if rows:
        st.html(f'<div class="fv-quiet" style="margin-top:4px">{escape(words)}</div>')
        st.html(spans_html(rows, mode=here.mode, context=context, warn=here.blurred))


def show_samples(samples: Sequence[Sample], here: Here) -> None:
    """Verified texts as they stand, each with its activation."""
    rows = [sample.row for sample in samples]
    st.html(spans_html(rows, mode=here.mode, context="full", warn=here.blurred))
