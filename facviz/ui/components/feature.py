"""What the feature page is made of beside its evidence: moves, numbers, histogram, neighbours, versions, history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html import escape

import streamlit as st

from facviz.store.events import explanation_of
from facviz.ui import resources, state
from facviz.ui.components.address import feature_link, follow, plain_markdown
from facviz.ui.components.decisions import choose_verdict
from facviz.ui.components.evidence import show_tested, test_box, try_span, where
from facviz.ui.components.histogram import show_picture
from facviz.ui.components.lists import show_lists
from facviz.ui.frame import Here
from facviz.views.decisions import read_history
from facviz.views.feature import (
    PROMOTED_STDS,
    FeatureView,
    Linked,
    OutputToken,
    Tested,
    any_feature,
    read_histogram,
    read_together,
)
from facviz.views.format import number, percent, visible
from facviz.views.heat import visible_token
from facviz.views.histogram import Marked, picture
from facviz.views.palette import Mode, palette
from facviz.views.scope import Looked
from facviz.views.versions import read_versions

NEAR = {"direction": "By direction", "texts": "On the same texts"}
NEAR_HELP = (
    "By direction: the cosine of decoder directions, what they write into the model. On the same texts: the Jaccard "
    "index, texts of this data set on which both fire as a share of those on which either does."
)
_TOKEN_STYLE = "display:inline-block;width:auto;max-width:100%;margin:0 4px 4px 0"
_BESIDE_STYLE = """<style>
[data-testid="stColumn"]:has(.st-key-fv_feature_beside)>[data-testid="stVerticalBlock"]{{height:100%}}
.st-key-fv_feature_beside{{background:{paper};z-index:2}}
@media (min-width:1000px) and (min-height:640px){{
[data-testid="stLayoutWrapper"]:has(>.st-key-fv_feature_beside){{position:sticky;top:0;z-index:2}}
.st-key-fv_feature_beside{{max-height:100vh;padding-top:.5rem;overflow-y:auto;flex-wrap:nowrap}}}}
</style>"""
# A link to this very page would look chosen, and long words would be cut.
_LINK_STYLE = """<style>[class*="st-key-fv_links_"] a{background:none;padding:4px 0}
[class*="st-key-fv_links_"] a p{white-space:normal;font-weight:400;font-size:.9rem;line-height:1.35}</style>"""


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
        show_lists(here, looked, view.feature_id)
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


def show_beside(here: Here, looked: Looked, view: FeatureView) -> None:
    """Histogram and test box, which stay in sight while the spans beside them are scrolled."""
    with st.container(key="fv_feature_beside"):
        st.html(_BESIDE_STYLE.format(paper=palette(here.mode).paper))
        above = st.container(key="fv_feature_above")
        tested = test_box(here, looked, view)
        with above:
            show_histogram(here, looked, view, tested)
        if tested is not None:
            show_tested(here, tested)
    if tested is not None and tested.others:
        _section("Strongest features on your text", "Activations of two features do not compare exactly.")
        show_links([replace(link, words=f"{link.words} · {link.why}") for link in tested.others], looked, "tested")


def show_histogram(here: Here, looked: Looked, view: FeatureView, tested: Tested | None) -> None:
    """Texts by activation, with δ and the tested text as lines, and a mark for the token that is pointed at."""
    found = read_histogram(here.database, looked, view.feature_id)
    marks = []
    if view.act_threshold is not None:
        marks.append(Marked(view.act_threshold, f"δ {number(view.act_threshold)}"))
    if tested is not None and tested.max_act > 0:
        marks.append(Marked(tested.max_act, f"your text {number(tested.max_act)}", is_own=True))
    show_picture(picture(found, here.mode, marks), "fv_feature_histogram", on_try=try_span)


def show_side(here: Here, looked: Looked, view: FeatureView) -> None:
    """Relevance, activity by dataset, nearest features, output tokens."""
    for judged in view.judged:
        choose_verdict(here, looked.sae_id, view.feature_id, judged)
    _section("By data set", "The bar is the share of a data set's texts on which the feature is active at all.")
    st.html(_measured_html(view, here.mode))
    _outputs(view, here)
    _near(here, looked, view)


def _outputs(view: FeatureView, here: Here) -> None:
    if not view.output_tokens:
        return
    help = (
        "What its direction adds to the model's scores of output tokens, read off the weights. Pale ones are within "
        f"{number(PROMOTED_STDS)} standard deviations: chance puts such tokens first in a vocabulary of this size."
    )
    for words, tokens in (("Pushes the model towards", view.output_tokens), ("and away from", view.low_tokens)):
        if tokens:
            _section(words, help)
            st.html(tokens_html(tokens, here.mode))


def _near(here: Here, looked: Looked, view: FeatureView) -> None:
    """Features to go on to: alike in what they write, or active on the same texts, which takes a pass over them all."""
    _section("Nearest features", NEAR_HELP)
    asked = state.query_text("near") if state.query_text("near") in NEAR else "direction"
    st.segmented_control(
        "Near by",
        list(NEAR),
        format_func=NEAR.__getitem__,
        required=True,
        label_visibility="collapsed",
        **follow("fv_feature_near", "near", asked, default="direction"),
    )
    links = view.neighbours
    if asked == "texts":
        links = read_together(here.database, looked, resources.together(here.database, looked.table, view.feature_id))
    if links:
        show_links(links, looked, "near")
    else:
        st.caption("None was found." if asked == "texts" else "No feature with a similar direction is known.")


def show_links(links: Sequence[Linked], looked: Looked, key: str) -> None:
    """Features to go on to, one a line."""
    st.html(_LINK_STYLE)
    with st.container(key=f"fv_links_{key}", gap=None):
        for link in links:
            feature_link(link.feature_id, link.words, where(looked), why=link.why)


def _section(words: str, help: str | None = None) -> None:
    st.markdown(f"**{words}**", help=help)


def _measured_html(view: FeatureView, mode: Mode) -> str:
    """One row a dataset: a bar for the share of texts, the texts, the maximum and the density."""
    colours = palette(mode)
    shades = {"anchor": colours.anchor, "seed": colours.seed, "generated": colours.generated}
    style = "padding:2px 0 2px 8px;text-align:right;font-variant-numeric:tabular-nums;font-size:.82rem"
    left = "padding:2px 0;text-align:left;font-size:.82rem;overflow-wrap:anywhere"
    head = "".join(f'<th class="fv-quiet" style="{style}">{h}</th>' for h in ("texts", "max", "density"))
    body = ""
    for m in view.measured:
        width = 0.0 if m.share is None else round(100 * min(m.share, 1.0), 1)
        bar = (
            f'<div style="width:80px;height:8px;border-radius:4px;background:{colours.hairline}">'
            f'<div style="width:{width}%;height:8px;border-radius:4px;min-width:{2 if width else 0}px;'
            f'background:{shades.get(m.role, colours.covered)}"></div></div>'
        )
        texts = f'<span title="{escape(visible(f"{m.documents} {m.of_documents}"))}">{escape(percent(m.share))}</span>'
        top = f'<span title="{escape(f"95th percentile {m.p95_act}")}">{escape(m.max_act)}</span>'
        body += (
            f'<tr><td style="{left}" dir="auto">{escape(visible(m.dataset))}</td><td>{bar}</td>'
            f'<td style="{style}">{texts}</td><td style="{style}">{top}</td>'
            f'<td style="{style}">{escape(m.density)}</td></tr>'
        )
    head = f'<th style="{left}"></th><th></th>{head}'
    return f'<table style="width:100%;border-collapse:collapse"><tr>{head}</tr>{body}</table>'


def tokens_html(tokens: Sequence[OutputToken], mode: Mode) -> str:
    """Output tokens as pills, strongest first; those that do not stand out are pale."""
    pale = f"font-weight:400;color:{palette(mode).muted}"
    cells = ""
    for t in tokens:
        title = escape(f"{number(t.stds)} standard deviations from the mean")
        style = f"{_TOKEN_STYLE};{'' if t.stands_out else pale}"
        cells += f'<span class="fv-pill" style="{style}" title="{title}">{escape(visible_token(t.token))}</span>'
    return f'<div class="fv-spans" dir="auto">{cells}</div>'


def show_versions(here: Here, looked: Looked, view: FeatureView) -> None:
    """What each machine wrote, with what it would change in the words that are shown."""
    versions = read_versions(here.database, looked.sae_id, view.feature_id, view.said)
    if not versions:
        st.caption("No machine has explained this feature yet.")
    for version in versions:
        mark = " · <b>shown above</b>" if version.is_shown else ""
        words = version.diff_html or (escape(visible(version.text)) if version.text else "")
        facts = f'<div class="fv-quiet" dir="auto">{escape(visible(f"{version.by} · {version.facts}"))}{mark}</div>'
        st.html(f'<div style="padding:4px 0"><div dir="auto">{words}</div>{facts}</div>')


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
