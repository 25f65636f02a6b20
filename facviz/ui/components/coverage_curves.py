"""The pictures of the coverage page: themes as bars, areas or a map, FAC over δ and documents, and over levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import streamlit as st

from facviz.coverage import Kind
from facviz.store.gap import TaskFeatures
from facviz.ui import measured
from facviz.ui.components.address import open_feature, plain_markdown
from facviz.ui.components.coverage import pick
from facviz.ui.components.waiting import ready
from facviz.ui.frame import Here
from facviz.views.charts import ThemeState, coverage_by_theme, fac_over_threshold
from facviz.views.coverage import Question, theme_shares
from facviz.views.coverage_charts import MapPoint, feature_map, growth_chart, theme_treemap
from facviz.views.format import count, count_of, number, percent
from facviz.views.live import Live
from facviz.views.missing import explanations
from facviz.views.themes import Layout

_CONFIG = {"displayModeBar": False}
_UNITS: Mapping[Kind, Literal["× p95", "activation"]] = {"relative": "× p95", "absolute": "activation"}
_VIEWS = {"bars": "Bars", "areas": "Areas", "map": "Map"}
_MOST_LINKS = 12


def show_themes(
    here: Here, question: Question, live: Live, task: TaskFeatures, filled: set[int], tried: set[int]
) -> None:
    """The anchor set's features by theme, in the way the reader likes to see them."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="right"):
        grouped = _grouping(task)
        chosen = pick("Picture", _VIEWS, "view", "bars")
    themes, layout = task.theme, None
    if grouped == "words" or chosen == "map":
        found = ready(
            "Reading the explanations, a few seconds the first time …",
            measured.feature_layout(here.database, question.sae_id, tuple(live.target.tolist())),
        )
        if found is None:
            return
        [layout] = found
        themes = dict(zip(layout.features, layout.themes)) if grouped == "words" else themes
    if chosen == "map" and layout is not None:
        _map(here, question, live, layout, themes, filled, tried)
        return
    others = "not explained" if grouped == "words" else question.task_title
    shares = theme_shares(themes, live, filled, tried, others)
    alt = "; ".join(f"{s.theme}: {s.covered} covered, {s.gap} missing, {s.filled} filled since" for s in shares[:20])
    if chosen == "areas":
        st.plotly_chart(
            theme_treemap(shares, here.mode),
            theme=None,
            width="stretch",
            key="fv_coverage_areas",
            config=_CONFIG,
            alt=alt,
        )
        return
    figure = coverage_by_theme(shares, here.mode)
    figure.update_annotations(x=1, xanchor="right")  # long theme names leave the key no room on the right
    st.plotly_chart(figure, theme=None, width="stretch", key="fv_coverage_themes", config=_CONFIG, alt=alt)


def _grouping(task: TaskFeatures) -> str:
    """By the labels' themes where there are any, or by what the explanations say: that needs a model, so on request."""
    words = {"labels": "Themes of the labels" if task.theme else "Not grouped", "words": "What explanations say"}
    return pick("Grouped by", words, "group", "labels")


def _map(
    here: Here,
    question: Question,
    live: Live,
    layout: Layout,
    themes: Mapping[int, str],
    filled: set[int],
    tried: set[int],
) -> None:
    missing, words = set(live.missing.tolist()), explanations(here.database, question.sae_id, layout.features)

    def state(feature: int) -> ThemeState:
        if feature not in missing:
            return "covered"
        return "filled" if feature in filled else "exhausted" if feature in tried else "missing"

    points = [MapPoint(f, state(f), themes.get(f, ""), words[f]) for f in layout.features]
    picked = st.plotly_chart(
        feature_map(points, layout.places, here.mode),
        theme=None,
        width="stretch",
        key="fv_coverage_map",
        config={**_CONFIG, "scrollZoom": True},
        on_select="rerun",
        selection_mode="points",
        alt=f"{len(points)} features, alike explanations close to each other",
    )
    if picked.selection.points:
        open_feature(int(picked.selection.points[0]["customdata"]), {"sae": question.sae_id})
    left = live.n_anchor - len(points)
    hidden = f" {count_of(left, 'feature')} without an explanation has no place here." if left == 1 else ""
    hidden = f" {count_of(left, 'feature')} without an explanation have no place here." if left > 1 else hidden
    st.caption(f"Alike explanations lie close (t-SNE of their sentence vectors). Click on one to open it.{hidden}")


def show_curves(live: Live, here: Here) -> None:
    """FAC over δ, and over documents."""
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("How strict?", anchor=False, help="FAC at every δ; the line is where the slider stands.")
        figure = fac_over_threshold(live.curve, live.threshold, here.mode, unit=_UNITS[live.kind])
        alt = f"FAC falls and rises with δ; at {number(live.threshold)} it is {percent(live.fac)}."
        st.plotly_chart(figure, theme=None, width="stretch", key="fv_coverage_delta", config=_CONFIG, alt=alt)
    with right:
        st.subheader(
            "Would more of the same help?",
            anchor=False,
            help="Expected FAC of ever more texts drawn from each set (rarefaction). A flat end means that more texts "
            "of the same kind would not close the gap; the dots go on to twice the seed set (Chao2).",
        )
        figure = growth_chart(live.growth, live.beyond, here.mode)
        ends = ", ".join(f"{c.name} {percent(c.fac[-1])} at {count(c.sizes[-1])} texts" for c in live.growth if c.fac)
        st.plotly_chart(figure, theme=None, width="stretch", key="fv_coverage_growth", config=_CONFIG, alt=ends)


def show_levels(here: Here, question: Question, live: Live) -> None:
    """What another level of relevance would answer, and which features make the difference."""
    st.subheader(
        "Does it hang on who counts?",
        anchor=False,
        help="FAC counted from each level of relevance on. A verdict you doubt can be changed on the feature's page.",
    )
    if len({effect.n_relevant for effect in live.levels}) == 1:
        words = f"Every counted feature has the verdict “yes” from {question.source}, so the level changes nothing."
        st.caption(words)
        return
    rows = []
    for effect in live.levels:
        mark = "fv-here" if effect.level == question.level else ""
        gap = f"{count(effect.n_missing)} of {count(effect.n_anchor)} missing"
        cells = (f"from “{effect.level}”", f"<b>{percent(effect.fac)}</b>", gap)
        rows.append(f"<tr class='{mark}'>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    st.html(f"<table class='fv-facts'>{''.join(rows)}</table>")
    for effect in live.levels[1:]:
        if len(effect.added_missing):
            n = count_of(len(effect.added_missing), "missing feature")
            st.caption(f"Only “{effect.level}” brings in {n}; without them FAC would be higher:")
            feature_links(here, question, effect.added_missing.tolist()[:_MOST_LINKS], f"level_{effect.level}")


def feature_links(here: Here, question: Question, ids: Sequence[int], key: str) -> None:
    """Features by what they respond to, each a link to its page."""
    words = explanations(here.database, question.sae_id, ids)
    with st.container(key=f"fv_coverage_links_{key}"):
        for feature in ids:
            st.page_link(
                "pages/feature.py",
                label=f":primary[{feature}] {plain_markdown(words[feature])}",
                query_params={"feature": str(feature), "sae": question.sae_id},
            )
