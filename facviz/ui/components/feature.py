"""What the feature page is made of: moving between features, evidence, neighbours, the test box, the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html import escape

import streamlit as st

from facviz.errors import FacvizError
from facviz.store.events import explanation_of
from facviz.ui import resources, state
from facviz.ui.components.address import feature_link, follow, plain_markdown
from facviz.ui.components.decisions import choose_verdict
from facviz.ui.components.spans import asked_amount, asked_context, choose_context, show_samples, show_spans
from facviz.ui.components.waiting import ready
from facviz.ui.frame import Here
from facviz.views.charts import activation_histogram
from facviz.views.decisions import read_history
from facviz.views.feature import (
    FeatureView,
    Linked,
    Tested,
    any_feature,
    read_histogram,
    read_spans,
    try_text,
)
from facviz.views.format import count, short, visible
from facviz.views.heat import spans_html, visible_token
from facviz.views.scope import Looked

GENERATED = "~generated"
MAX_TEST_CHARS = 2000
# A link to this very page would look chosen, and long words would be cut.
_LINK_STYLE = """<style>[class*="st-key-fv_links_"] a{background:none;padding:4px 0}
[class*="st-key-fv_links_"] a p{white-space:normal;font-weight:400;font-size:.9rem;line-height:1.35}</style>"""


def where(looked: Looked) -> dict[str, str]:
    """What links to other features keep of this page's address."""
    text = state.query_text("text", MAX_TEST_CHARS)
    return {"sae": looked.sae_id, "dataset": looked.dataset.name, "text": text}


def show_moves(here: Here, looked: Looked, view: FeatureView) -> None:
    """Number of the feature, previous, next and a random one."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        sae = f" · {plain_markdown(looked.saes[looked.sae_id])}" if len(looked.saes) > 1 else ""
        st.markdown(f"**Feature {view.feature_id}**{sae}")
        st.space("stretch")
        for label, icon, key, target in (
            ("Previous", ":material/chevron_left:", "Left", view.before),
            ("Next", ":material/chevron_right:", "Right", view.after),
        ):
            st.button(
                label,
                icon=icon,
                key=f"fv_feature_{label.lower()}",
                shortcut=key,
                disabled=target is None,
                on_click=_go,
                args=(target,),
            )
        st.button(
            "Random", icon=":material/shuffle:", key="fv_feature_random", on_click=_go_anywhere, args=(here, looked)
        )
        st.page_link("pages/features.py", label="All features", icon=":material/table_rows:")


def _go(feature_id: int | None) -> None:
    state.set_query(feature=feature_id)


def _go_anywhere(here: Here, looked: Looked) -> None:
    _go(any_feature(here.database, looked))


def show_numbers(view: FeatureView) -> None:
    """Four numbers of the chosen dataset."""
    first = view.measured[0]
    cells = st.columns(4)
    cells[0].metric(
        "Density",
        first.density,
        help=f"Share of content tokens of {plain_markdown(first.dataset)} on which it is active.",
    )
    cells[1].metric("Texts", first.documents, help=f"Texts on which it is active at all, {first.of_documents}.")
    cells[2].metric("Max activation", first.max_act, help="On this SAE's own scale.")
    cells[3].metric(
        "Explanation score",
        view.said.score,
        help="How well the explanation tells its held-out spans from others (AUROC by embedding; 0.5 is chance). "
        "A person's words are not scored.",
    )


def show_evidence(here: Here, looked: Looked, view: FeatureView) -> None:
    """Spans of the chosen dataset, or the texts written for the feature."""
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
        _copy_menu([sample.text for sample in view.samples])
        return
    choose_context("feature")
    spans = read_spans(here.database, looked, view.feature_id, view.feature_max, asked_amount())
    show_spans(spans, here, asked_context())
    _copy_menu(spans.texts)


def _copy_menu(found: Sequence[str]) -> None:
    texts = list(dict.fromkeys(found))[:20]
    if texts:
        st.menu_button(
            "Try one of these texts",
            texts,
            format_func=lambda text: plain_markdown(short(text, 70)),
            icon=":material/content_copy:",
            key="fv_feature_copy",
            on_click=_copy,
            help="Copies it into the test box below.",
        )


def _copy() -> None:
    state.set_query(text=str(st.session_state["fv_feature_copy"] or "")[:MAX_TEST_CHARS] or None)


def show_histogram(here: Here, looked: Looked, view: FeatureView, tested: Tested | None) -> None:
    """Texts by activation, with δ and the tested text as lines."""
    found = read_histogram(here.database, looked, view.feature_id)
    if found is None:
        return
    figure = activation_histogram(
        found.edges,
        found.counts,
        here.mode,
        act_threshold=view.act_threshold,
        marked=tested.max_act if tested and tested.max_act > 0 else None,
        marked_label="your text",
        counted="texts",
    )
    words = f"Histogram of the highest activation in each of {count(found.n_docs)} texts."
    st.plotly_chart(figure, theme=None, key="fv_feature_histogram", config={"displayModeBar": False}, alt=words)


def show_side(here: Here, looked: Looked, view: FeatureView) -> None:
    """Relevance, numbers by dataset, neighbours, output tokens."""
    for judged in view.judged:
        choose_verdict(here, looked.sae_id, view.feature_id, judged)
    _section("By data set")
    st.html(_measured_html(view))
    if view.output_tokens:
        _section("Pushes the model towards")
        cells = "".join(
            f'<span class="fv-pill" style="display:inline-block;width:auto;margin:0 4px 4px 0">'
            f"{escape(visible_token(token))}</span>"
            for token in view.output_tokens
        )
        st.html(f'<div class="fv-spans">{cells}</div>')
    if view.neighbours:
        _section("Nearest features", "By the cosine of their decoder directions: what they write into the model.")
        show_links(view.neighbours, looked, "near")


def show_links(links: Sequence[Linked], looked: Looked, key: str) -> None:
    """Features to go on to, one a line."""
    st.html(_LINK_STYLE)
    with st.container(key=f"fv_links_{key}", gap=None):
        for link in links:
            feature_link(link.feature_id, link.words, where(looked), why=link.why)


def _section(words: str, help: str | None = None) -> None:
    st.markdown(f"**{words}**", help=help)


def _measured_html(view: FeatureView) -> str:
    heads = ("", "density", "texts", "max", "p95")
    rows = [(m.dataset, m.density, m.documents, m.max_act, m.p95_act) for m in view.measured]
    style = "padding:2px 6px;text-align:right;font-variant-numeric:tabular-nums;font-size:.82rem"
    left = "padding:2px 6px 2px 0;text-align:left;font-size:.82rem;overflow-wrap:anywhere"
    head = "".join(f'<th class="fv-quiet" style="{style}">{h}</th>' for h in heads)
    body = "".join(
        f'<tr><td style="{left}" dir="auto">{escape(visible(name))}</td>'
        + "".join(f'<td style="{style}">{escape(value)}</td>' for value in values)
        + "</tr>"
        for name, *values in rows
    )
    return f'<table style="width:100%;border-collapse:collapse"><tr>{head}</tr>{body}</table>'


def test_box(here: Here, looked: Looked, view: FeatureView) -> Tested | None:
    """A reader's own text under this feature; the model loads in the background."""
    text = state.query_text("text", MAX_TEST_CHARS)
    st.text_area(
        "Try your own text",
        placeholder="Type or paste a sentence: where does this feature fire in it?",
        max_chars=MAX_TEST_CHARS,
        height=96,
        help="Ctrl+Enter tests it. The text stands in the address, so a link shows the same.",
        **follow("fv_feature_text", "text", text),
    )
    st.button("Test", key="fv_feature_test", icon=":material/play_arrow:")
    if not text.strip():
        return None
    waiting = "Warming up: the model reads your text; the result appears by itself."
    try:
        found = ready(waiting, resources.encoded_text(str(here.root), looked.sae_id, text))
    except FacvizError as error:
        st.error(str(error))
        return None
    return None if found is None else try_text(here.database, view, looked.sae_id, found[0])


def show_tested(here: Here, looked: Looked, tested: Tested) -> None:
    """Where the text fires, whether that counts, and what else it activates."""
    icon = ":material/check_circle:" if tested.is_active else ":material/radio_button_unchecked:"
    st.markdown(f"{icon} {plain_markdown(tested.verdict)}")
    st.html(spans_html([tested.row], mode=here.mode, context="full", warn=here.blurred))
    if tested.others:
        _section("Strongest features on it", "Activations of two features do not compare exactly.")
        show_links([replace(link, words=f"{link.words} · {link.why}") for link in tested.others], looked, "tested")


def show_history(here: Here, looked: Looked, feature_id: int) -> None:
    """Every decision on the explanation with what it changed; nothing is ever lost."""
    happened = read_history(here.database, explanation_of(looked.sae_id, feature_id), datetime.now(UTC))
    if not happened:
        st.caption("Nobody has decided on this explanation yet.")
    for entry in happened:
        line = f"<b>{escape(visible(entry.who))}</b> {escape(visible(entry.what))}"
        line = f"<s>{line}</s> · taken back" if entry.is_void else line
        when = f'<span class="fv-quiet" title="{escape(entry.at)}"> · {escape(entry.when)}</span>'
        st.html(f'<div style="padding:4px 0">{line}{when}{entry.diff_html}</div>')
