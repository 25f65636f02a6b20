"""What the features page is made of: search and filters that live in the address, the table, its pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import streamlit as st

from facviz.errors import FacvizError
from facviz.store.feature_table import TableFilter
from facviz.ui import resources, state
from facviz.ui.components.address import follow, open_feature
from facviz.ui.components.lists import asked_lists, choose_lists
from facviz.ui.components.style import WIDE
from facviz.ui.components.waiting import ready
from facviz.ui.frame import Here
from facviz.views.decisions import STATUS_WORDS, VERDICTS
from facviz.views.features import (
    COLUMNS,
    HIGH_FIRST,
    STATE_WORDS,
    FeaturesView,
    Totals,
    closest,
)
from facviz.views.format import UNKNOWN
from facviz.views.lists import FeatureList
from facviz.views.palette import blend, palette
from facviz.views.scope import Looked

SEARCHES = {"text": "In explanations", "word": "On a word", "meaning": "By meaning"}
_PLACEHOLDERS = {
    "text": "part of an explanation, or a feature's number",
    "word": "a word as it stands in the texts: which features fire on it?",
    "meaning": "what you are looking for, in your own words",
}
_FIRST_PAGE = ("page",)
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
_WIDTHS |= {"relevance": 82, "theme": 110, "status": 110}
_NUMBERS = ("density", "documents", "max", "score", "match")
_HELP = {
    "explanation": "What the feature seems to respond to; a person's words win over a machine's.",
    "status": "What a person decided about the explanation.",
    "coverage": "Against the newest coverage run: does the seed set activate the feature too?",
    "relevance": "Whether the feature matters to the task; ✎ marks what a person said.",
    "density": "Share of content tokens on which it is active.",
    "documents": "Texts of this data set on which it is active at all.",
    "max": "Its highest activation on this data set, on this SAE's own scale.",
    "score": "How well the explanation tells its held-out spans from others (AUROC by embedding; 0.5 is chance).",
    "match": "How many spans peak on the word, or how near the explanation is in meaning (cosine).",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks of the table."""

    words: str
    kind: str
    sort: str
    descending: bool
    page: int
    chosen: TableFilter


def asked() -> Asked:
    """Read the address; what makes no sense there is as if it were absent."""
    kind = state.query_text("by") if state.query_text("by") in SEARCHES else "text"
    words = state.query_text("search").strip()
    sort = state.query_text("sort")
    is_search = bool(words) and kind != "text"
    name = sort.removeprefix("-")
    if name not in COLUMNS or (name == "match" and not is_search):
        sort = "-match" if is_search else "-density"
    low, high = _densities()
    chosen = TableFilter(
        statuses=_listed("status", STATUS_WORDS),
        verdicts=_listed("relevance", dict.fromkeys(VERDICTS)),
        states=_listed("coverage", STATE_WORDS),
        lists=asked_lists(),
        min_density=low,
        max_density=high,
        with_dead=state.query_text("dead") == "1",
        with_always_on=state.query_text("always_on") == "1",
        text=words if kind == "text" else "",
        word=words if kind == "word" else "",
    )
    return Asked(words, kind, sort.removeprefix("-"), sort.startswith("-"), state.query_int("page") or 1, chosen)


def _listed(param: str, known: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(part for part in state.query_text(param).split(",") if part in known)


_DENSITIES = {0.0: "0", 1e-5: "0.001 %", 1e-4: "0.01 %", 1e-3: "0.1 %", 1e-2: "1 %", 1e-1: "10 %", 1.0: "100 %"}


def _densities() -> tuple[float, float]:
    low, _, high = state.query_text("density").partition(",")
    try:
        bounds = float(low), float(high)
    except ValueError:
        return 0.0, 1.0
    return bounds if bounds[0] in _DENSITIES and bounds[1] in _DENSITIES and bounds[0] <= bounds[1] else (0.0, 1.0)


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
                **follow(f"fv_features_{param}", param, value, resets=_FIRST_PAGE),
            )


def search_bar(now: Asked, lists: Sequence[FeatureList] = ()) -> None:
    """Search, filters and order in one row."""
    left, middle, right = st.columns([5, 5, 2], vertical_alignment="bottom")
    with left:
        st.text_input(
            "Search",
            placeholder=_PLACEHOLDERS[now.kind],
            max_chars=200,
            icon=":material/search:",
            **follow("fv_features_search", "search", now.words, resets=(*_FIRST_PAGE, "sort")),
        )
    with middle:
        st.segmented_control(
            "Search by",
            list(SEARCHES),
            format_func=SEARCHES.__getitem__,
            required=True,
            label_visibility="collapsed",
            **follow("fv_features_by", "by", now.kind, default="text", resets=(*_FIRST_PAGE, "sort")),
        )
    with right:
        _filters(now.chosen, lists)


def _filters(chosen: TableFilter, lists: Sequence[FeatureList]) -> None:
    n = sum(map(bool, (chosen.statuses, chosen.verdicts, chosen.states, chosen.with_dead, chosen.with_always_on)))
    n += bool(chosen.lists)
    n += (chosen.min_density, chosen.max_density) != (0.0, 1.0)
    label = f"Filters · {n}" if n else "Filters"
    with st.popover(label, icon=":material/filter_list:", width="stretch", key="fv_features_filters"):
        for param, words, options, value in (
            ("coverage", "Coverage", STATE_WORDS, chosen.states),
            ("relevance", "Relevant to the task", {v: v for v in VERDICTS}, chosen.verdicts),
            ("status", "Review", STATUS_WORDS, chosen.statuses),
        ):
            st.pills(
                words,
                list(options),
                format_func=options.__getitem__,
                selection_mode="multi",
                **follow(f"fv_features_{param}", param, list(value), resets=_FIRST_PAGE),
            )
        choose_lists(lists, chosen.lists)
        bounds = (chosen.min_density, chosen.max_density)
        key = f"fv_features_density_{bounds[0]}_{bounds[1]}"
        st.select_slider(
            "Density",
            list(_DENSITIES),
            bounds,
            format_func=_DENSITIES.__getitem__,
            key=key,
            on_change=_write_density,
            args=(key,),
        )
        for param, words, on in (
            ("always_on", "Show always-on features", chosen.with_always_on),
            ("dead", "Show dead features", chosen.with_dead),
        ):
            st.toggle(words, **follow(f"fv_features_{param}", param, on, resets=_FIRST_PAGE))
        if n:
            st.button("Clear filters", key="fv_features_clear", on_click=_clear, width="stretch")


def _write_density(key: str) -> None:
    low, high = st.session_state[key]
    state.set_query(density=None if (low, high) == (0.0, 1.0) else f"{low},{high}", page=None)


def _clear() -> None:
    state.set_query(
        **dict.fromkeys(("coverage", "relevance", "status", "list", "density", "dead", "always_on", "page"))
    )


def by_meaning(here: Here, looked: Looked, words: str) -> dict[int, float] | None:
    """Explanations nearest in meaning; None while the embedder warms up or when it cannot be had, which is said."""
    explained = resources.explanation_vectors(here.database, looked.sae_id)
    waiting = "Warming up: explanations are being embedded; the table appears by itself."
    try:
        found = ready(waiting, explained, resources.embedded_query(words))
    except FacvizError as error:
        st.error(str(error))
        return None
    if found is None:
        return None
    (feature_ids, vectors), query = found
    return closest(feature_ids, vectors, np.asarray(query))


def show_table(view: FeaturesView, now: Asked, looked: Looked, here: Here) -> None:
    """The table: a click on a row opens the feature, a click on a heading sorts all pages by it."""
    st.html(WIDE)
    _order_row(view, now)
    turn = st.session_state.setdefault(_ROUND, 0)
    event = st.dataframe(
        {name: [_cell(name, line.cells[name]) for line in view.lines] for name in view.columns},
        width="stretch",
        height="content",
        row_height=36,
        hide_index=True,
        column_config={name: _column(name, now, here) for name in view.columns},
        key=f"{_TABLE_KEY}_{turn}",
        on_select="rerun",
        selection_mode=("single-cell", "single-column"),
        alt=f"{view.found}, one a row; choose a row to open the feature.",
    )
    _follow_click(event, view, now, looked)
    if view.n_pages > 1:
        with st.container(horizontal=True, horizontal_alignment="center"):
            page = min(now.page, view.n_pages)
            key = f"fv_features_page_{page}_{view.n_pages}"
            st.pagination(view.n_pages, default=page, key=key, on_change=_turn_to, args=(key,))


def _turn_to(key: str) -> None:
    page = st.session_state[key]
    state.set_query(page=page if page > 1 else None)


def _order_row(view: FeaturesView, now: Asked) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        shown = f" · {view.first}" if view.n_pages > 1 else ""
        st.markdown(f"**{view.found}**{shown}")
        st.space("stretch")
        st.selectbox(
            "Sort by",
            list(view.columns),
            format_func=COLUMNS.__getitem__,
            label_visibility="collapsed",
            width=190,
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


def _sort_by_choice() -> None:
    name = st.session_state["fv_features_sort"]
    if name:
        _sort(name, name in HIGH_FIRST)


def _sort(name: str, descending: bool) -> None:
    state.set_query(sort=f"{'-' * descending}{name}", page=None)


def _follow_click(event: Any, view: FeaturesView, now: Asked, looked: Looked) -> None:
    """Act on a chosen cell or heading once: the table is drawn anew afterwards, without a selection."""
    cells, columns = event["selection"]["cells"], event["selection"]["columns"]
    if cells or columns:
        st.session_state[_ROUND] += 1
    if cells and cells[0][0] < len(view.lines):
        open_feature(view.lines[cells[0][0]].feature_id, {"sae": looked.sae_id, "dataset": looked.dataset.name})
    if columns:
        name = str(columns[0])
        _sort(name, not now.descending if name == now.sort else name in HIGH_FIRST)
        st.rerun()


def _cell(name: str, text: str) -> object:
    """A coverage state is a coloured pill, and none where the feature is not among those counted."""
    if name != "coverage":
        return text
    return [] if text == UNKNOWN else text.split(", ")


def _column(name: str, now: Asked, here: Here) -> Any:
    label = COLUMNS[name] + ("" if name != now.sort else " ▾" if now.descending else " ▴")
    if name == "coverage":
        colours = palette(here.mode)
        shades = {state: blend(getattr(colours, state), 0.35, colours.paper) for state in STATE_WORDS}
        shades |= dict.fromkeys(("always on", "dead"), colours.hairline)
        return st.column_config.MultiselectColumn(
            label, help=_HELP[name], width=_WIDTHS[name], options=list(shades), color=list(shades.values())
        )
    side: Literal["left", "right"] = "right" if name in _NUMBERS else "left"
    return st.column_config.TextColumn(label, help=_HELP.get(name), width=_WIDTHS[name], alignment=side)
