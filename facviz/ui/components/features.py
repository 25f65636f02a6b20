"""The features page's frame: totals, what is looked at, and the table with its order, pages and what can be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import streamlit as st

from facviz.ui import state
from facviz.ui.components.address import follow, open_feature
from facviz.ui.components.feature_bulk import decide_on_all
from facviz.ui.components.feature_saved import export_table
from facviz.ui.components.feature_search import FIRST_PAGE, Asked, show_filters
from facviz.ui.components.feature_text import MAX_TEXT
from facviz.ui.components.style import WIDE
from facviz.ui.frame import Here
from facviz.views.features import HIGH_FIRST, STATE_WORDS, FeaturesView, Lens, Totals, read_features
from facviz.views.format import UNKNOWN
from facviz.views.palette import blend, palette
from facviz.views.scope import Looked

_TABLE_KEY = "fv_features_table"
_ROUND = "fv_features_round"
_WIDTHS = {
    "feature": 62,
    "explanation": 300,
    "match": 82,
    "coverage": 92,
    "density": 78,
    "documents": 68,
    "max": 72,
    "score": 66,
}
_WIDTHS |= {"relevance": 82, "theme": 110, "status": 110, "share_a": 92, "share_b": 92, "q": 72}
_SAYING = 170  # a match in words needs more room than a number
_NUMBERS = ("density", "documents", "max", "score", "match", "share_a", "share_b", "q")
_HELP = {
    "explanation": "What the feature seems to respond to; a person's words win over a machine's.",
    "status": "What a person decided about the explanation.",
    "coverage": "Against the newest coverage run: does the seed set activate the feature too?",
    "relevance": "Whether the feature matters to the task; ✎ marks what a person said.",
    "density": "Share of content tokens on which it is active.",
    "documents": "Texts of this data set on which it is active at all.",
    "max": "Its highest activation on this data set, on this SAE's own scale.",
    "score": "How well the explanation tells its held-out spans from others (AUROC by embedding; 0.5 is chance).",
    "share_a": "Share of the first data set's texts on which it is active at all.",
    "share_b": "Share of the second data set's texts on which it is active at all.",
    "q": "Chance of being wrong in calling this a difference, over all features tested (Benjamini-Hochberg).",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What the table shows and how it came to be asked for."""

    here: Here
    looked: Looked
    now: Asked
    lens: Lens
    view: FeaturesView


def show_totals(totals: Totals, looked: Looked) -> None:
    """Four numbers over the whole table."""
    cells = st.columns(4)
    cells[0].metric("Features that fire", totals.live, help=totals.live_note)
    cells[1].metric("Explained", totals.explained, help="Share of the features that fire which have an explanation.")
    cells[2].metric("Reviewed by a person", totals.reviewed, help="Explanations accepted, edited, rejected or flagged.")
    seed = looked.run["seed"].replace("*", "") if looked.run else ""
    of_task = f"Of the task's features, those that {seed} misses and no verified text fills."
    note = totals.missing_note or (of_task if looked.run else "No coverage was measured yet.")
    cells[3].metric("Still missing", totals.missing, help=note)


def choose_table(looked: Looked) -> None:
    """Which SAE, dataset and task; only what leaves a choice is drawn."""
    names = {d.name: d.label for d in looked.datasets}
    choices: list[tuple[str, str, Mapping[str, str], str]] = [
        ("sae", "SAE", looked.saes, looked.sae_id),
        ("dataset", "Data set", names, looked.dataset.name),
        ("task", "Task", {task: task for task in looked.tasks}, looked.task),
    ]
    shown = [c for c in choices if len(c[2]) > 1]
    for place, (param, label, words, value) in zip(st.columns(3), shown):
        with place:
            st.selectbox(
                label,
                list(words),
                format_func=words.__getitem__,
                **follow(f"fv_features_{param}", param, value, resets=FIRST_PAGE),
            )


def show_table(here: Here, looked: Looked, now: Asked, lens: Lens, clusters: Mapping[int, str]) -> None:
    """The table: a click on a row opens the feature, a click on a heading sorts all pages by it."""
    order = {"sort": now.sort, "descending": now.descending, "page": now.page, "lens": lens}
    view = read_features(here.database, looked, now.chosen, **order)  # type: ignore[arg-type]
    shown = Shown(here, looked, now, lens, view)
    st.html(WIDE)
    _order_row(shown, clusters)
    turn = st.session_state.setdefault(_ROUND, 0)
    event = st.dataframe(
        {name: [_cell(name, line.cells[name]) for line in view.lines] for name in view.columns},
        width="stretch",
        height="content",
        row_height=36,
        hide_index=True,
        column_config={name: _column(name, shown) for name in view.columns},
        key=f"{_TABLE_KEY}_{turn}",
        on_select="rerun",
        selection_mode=("single-cell", "single-column"),
        alt=f"{view.found}, one a row; choose a row to open the feature.",
    )
    _follow_click(event, shown)
    if view.n_pages > 1:
        with st.container(horizontal=True, horizontal_alignment="center"):
            page = min(now.page, view.n_pages)
            key = f"fv_features_page_{page}_{view.n_pages}"
            st.pagination(view.n_pages, default=page, key=key, on_change=_turn_to, args=(key,))


def _turn_to(key: str) -> None:
    page = st.session_state[key]
    state.set_query(page=page if page > 1 else None)


def _order_row(shown: Shown, clusters: Mapping[int, str]) -> None:
    view, now = shown.view, shown.now
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        pages = f" · {view.first}" if view.n_pages > 1 else ""
        st.markdown(f"**{view.found}**{pages}")
        st.space("stretch")
        show_filters(shown.here, now, shown.looked, clusters)
        st.selectbox(
            "Sort by",
            list(view.columns),
            format_func=lambda name: view.headings[name],
            label_visibility="collapsed",
            width=170,
            key="fv_features_sort",
            index=None if now.sort not in view.columns else list(view.columns).index(now.sort),
            on_change=_sort_by_choice,
        )
        st.button(
            "Highest first" if now.descending else "Lowest first",
            icon=":material/arrow_downward:" if now.descending else ":material/arrow_upward:",
            key="fv_features_turn",
            on_click=_sort,
            args=(now.sort, not now.descending),
            help="Turn the order around. A click on a heading of the table sorts by it, too.",
        )
        export_table(shown.here, shown.looked, now, shown.lens)
        decide_on_all(shown.here, shown.looked, now, shown.lens, view.n_found)


def _sort_by_choice() -> None:
    name = st.session_state["fv_features_sort"]
    if name:
        _sort(name, name in HIGH_FIRST)


def _sort(name: str, descending: bool) -> None:
    state.set_query(sort=f"{'-' * descending}{name}", page=None)


def _follow_click(event: Any, shown: Shown) -> None:
    """Act on a chosen cell or heading once: the table is drawn anew afterwards, without a selection."""
    cells, columns = event["selection"]["cells"], event["selection"]["columns"]
    view, now = shown.view, shown.now
    if cells or columns:
        st.session_state[_ROUND] += 1
    if cells and cells[0][0] < len(view.lines):
        where = {"sae": shown.looked.sae_id, "dataset": shown.looked.dataset.name}
        if now.view == "text":
            where["text"] = state.query_text("text", MAX_TEXT)
        open_feature(view.lines[cells[0][0]].feature_id, where)
    if columns:
        name = str(columns[0])
        _sort(name, not now.descending if name == now.sort else name in HIGH_FIRST)
        st.rerun()


def _cell(name: str, text: str) -> object:
    """A coverage state is a coloured pill, and none where the feature is not among those counted."""
    if name != "coverage":
        return text
    return [] if text == UNKNOWN else text.split(", ")


def _column(name: str, shown: Shown) -> Any:
    now, here, lens = shown.now, shown.here, shown.lens
    label = shown.view.headings[name] + ("" if name != now.sort else " ▾" if now.descending else " ▴")
    if name == "coverage":
        colours = palette(here.mode)
        shades = {state: blend(getattr(colours, state), 0.35, colours.paper) for state in STATE_WORDS}
        shades |= dict.fromkeys(("always on", "dead"), colours.hairline)
        return st.column_config.MultiselectColumn(
            label, help=_HELP[name], width=_WIDTHS[name], options=list(shades), color=list(shades.values())
        )
    side: Literal["left", "right"] = "right" if name in _NUMBERS else "left"
    help, width = _HELP.get(name), _WIDTHS[name]
    if name == "match":
        help = lens.help
        side, width = ("right", width) if lens.words is None else ("left", _SAYING)
    return st.column_config.TextColumn(label, help=help, width=width, alignment=side)
