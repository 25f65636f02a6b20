"""Several SAEs side by side: measures, FVU against L0, densities overlaid, and the features of two matched."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from facviz.jobs import Job
from facviz.ui.components.jobs import start
from facviz.ui.frame import Here
from facviz.views.format import count, number, percent
from facviz.views.plot import CONFIG
from facviz.views.sae import SaeRow
from facviz.views.sae_charts import MAX_CURVES, FrontierPoint, frontier, overlaid_densities
from facviz.views.sae_quality import Evaluations, Match, density_curves, density_datasets, find_match, side_by_side


def comparison(
    here: Here, rows: Sequence[SaeRow], shown: SaeRow, evaluations: Evaluations, jobs: Sequence[Job], *, is_busy: bool
) -> None:
    """Any SAEs side by side, at first the shown one and another; nothing while there is only one."""
    if len(rows) < 2:
        return
    st.subheader("Side by side", anchor=False)
    ordered = list(reversed(rows))
    ordered.sort(key=lambda row: (row is not shown, row.fvu is None, row.d_in != shown.d_in))
    by_id = {row.sae_id: row for row in ordered}
    picked = st.multiselect(
        "SAEs to compare",
        list(by_id),
        list(by_id)[:2],
        format_func=lambda sae_id: by_id[sae_id].name,
        max_selections=MAX_CURVES,
        key="fv_sae_compare",
        label_visibility="collapsed",
        placeholder="Choose SAEs to compare",
    )
    chosen = [by_id[sae_id] for sae_id in picked if sae_id in by_id]
    if len(chosen) < 2:
        st.caption("Choose two or more SAEs.")
        return
    left, right = st.columns(2, gap="large")
    with left:
        _frontier(here, rows, [row.sae_id for row in chosen])
    with right:
        _densities(here, chosen, evaluations)
    st.dataframe(
        side_by_side(chosen, evaluations),
        key="fv_sae_side_by_side",
        width="stretch",
        height="content",
        hide_index=True,
        alt=f"Measures of {len(chosen)} SAEs side by side",
    )
    if len(chosen) == 2:
        _match(here, chosen[0], chosen[1], jobs, is_busy)


def _frontier(here: Here, rows: Sequence[SaeRow], chosen: Sequence[str]) -> None:
    """All measured SAEs: what a chosen one costs shows only among the others."""
    st.markdown("**FVU against L0**", help=_FRONTIER_HELP)
    points = [
        FrontierPoint(f"{row.sae_id[:6]} · {count(row.d_sae)}", row.architecture, row.l0, row.fvu)
        for row in rows
        if row.l0 is not None and row.fvu is not None
    ]
    if not points:
        st.caption("None of these SAEs was measured yet; measure one below.")
        return
    n_unmeasured = sum(row.fvu is None for row in rows if row.sae_id in chosen)
    alt = "FVU against L0: " + ", ".join(f"{p.name} {number(p.fvu)} at {number(p.l0)}" for p in points[:8])
    st.plotly_chart(
        frontier(points, here.mode), theme=None, width="stretch", key="fv_sae_frontier", config=CONFIG, alt=alt
    )
    if n_unmeasured:
        st.caption(f"Not measured yet, so not drawn: {count(n_unmeasured)} of those chosen.")


def _densities(here: Here, chosen: Sequence[SaeRow], evaluations: Evaluations) -> None:
    st.markdown("**How often features fire**")
    names = density_datasets(here.database, chosen, evaluations)
    if not names:
        st.caption("None of these SAEs has read a data set yet.")
        return
    name = names[0]
    if len(names) > 1:
        name = st.selectbox("Data set", names, key="fv_sae_compare_on", label_visibility="collapsed") or names[0]
    curves = density_curves(here.database, chosen, evaluations, name)
    alt = f"Features by density on {name}: " + ", ".join(f"{c.name} {count(c.n_dead)} dead" for c in curves)
    st.plotly_chart(
        overlaid_densities(curves, here.mode),
        theme=None,
        width="stretch",
        key="fv_sae_compare_densities",
        config=CONFIG,
        alt=alt,
    )
    if len(curves) < len(chosen):
        st.caption(f"{count(len(chosen) - len(curves))} of those chosen have not read this data set.")


def _match(here: Here, a: SaeRow, b: SaeRow, jobs: Sequence[Job], is_busy: bool) -> None:
    results = [(j.arguments, j.result) for j in jobs if j.arguments[:2] == ("sae", "match") and j.result]
    found = find_match(results, a.sae_id, b.sae_id)
    with st.container(border=True, key="fv_sae_match"):
        words, action = st.columns([6, 2], vertical_alignment="center")
        with words:
            st.markdown("**Do they hold the same features?**", help=_MATCH_HELP)
            st.caption(_match_words(found, a, b))
        label = "Match again" if found else "Match features"
        with action:
            if st.button(label, key="fv_sae_match_start", width="stretch", disabled=is_busy or a.d_in != b.d_in):
                title = f"Match the features of {a.sae_id[:6]} and {b.sae_id[:6]}"
                start(here.root, title=title, page="sae", arguments=("sae", "match", a.sae_id, b.sae_id))
        if found:
            columns = st.columns(2)
            columns[0].metric("Mean of the highest cosines", number(found.mean_max_cosine), help=_MMCS_HELP)
            columns[1].metric("Features with a partner above 0.7", percent(found.share_matched))


def _match_words(found: Match | None, a: SaeRow, b: SaeRow) -> str:
    if a.d_in != b.d_in:
        return f"They read models of different widths ({count(a.d_in)} and {count(b.d_in)}), so nothing can be matched."
    if found is None:
        return "Pairs each feature of one with its nearest in the other."
    return f"The {count(found.n)} features of {found.a[:6]} against {found.b[:6]}, by {found.method}."


_FRONTIER_HELP = (
    "Every measured SAE here, one point each. Down and left is better: less unexplained with fewer features."
)
_MATCH_HELP = (
    "By the cosine of their decoder directions; two trainings of one recipe with other seeds share many, not all."
)
_MMCS_HELP = "For each feature of the first the cosine to its most similar one in the second, on average."
