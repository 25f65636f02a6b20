"""Search, filters and order of the features page, all of it in the address: a link is the whole question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from facviz.errors import FacvizError
from facviz.store.feature_table import ASIDE, TableFilter
from facviz.ui import resources, state
from facviz.ui.components.address import follow, plain_markdown
from facviz.ui.components.lists import asked_lists, choose_lists
from facviz.ui.components.waiting import ready
from facviz.ui.frame import Here
from facviz.views.decisions import STATUS_WORDS, VERDICTS
from facviz.views.features import COLUMNS, STATE_WORDS, Lens, closest
from facviz.views.lists import read_lists
from facviz.views.scope import Looked

VIEWS = {"table": "Search", "text": "Try a text", "map": "Map", "compare": "Compare data sets"}
"""Ways of looking, by their name in the address → as people read it."""
SEARCHES = {"text": "In explanations", "word": "On a word", "meaning": "By meaning"}
_PLACEHOLDERS = {
    "text": "part of an explanation, or a feature's number",
    "word": "a word as it stands in the texts: which features fire on it?",
    "meaning": "what you are looking for, in your own words",
}
FIRST_PAGE = ("page",)
_FILTERS = (
    "coverage",
    "relevance",
    "tasks",
    "status",
    "density",
    "score",
    "max",
    "list",
    "only",
    "dead",
    "always_on",
    "cluster",
)
_OF_VIEWS = ("text", "token", "area", "colour", "first", "second")
ADDRESS = ("sae", "dataset", "task", "view", "search", "by", "sort", *_FILTERS, *_OF_VIEWS)
"""Every value of the address that a saved view keeps."""
ONLY = {"always_on": "always-on only", "dead": "dead only"}
_MATCH_HELP = "How many spans peak on the word, or how near the explanation is in meaning (cosine)."


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks of the table."""

    view: str
    words: str
    kind: str
    sort: str
    descending: bool
    page: int
    chosen: TableFilter

    @property
    def n_filters(self) -> int:
        """As many kinds of filter as are set."""
        c = self.chosen
        lists = (c.statuses, c.verdicts, c.states, c.tasks, c.clusters, c.lists)
        bounds = ((c.min_score, c.max_score), (c.min_max_act, c.max_max_act))
        n = sum(map(bool, (*lists, c.with_dead, c.with_always_on, c.only_dead or c.only_always_on)))
        return n + ((c.min_density, c.max_density) != (0.0, 1.0)) + sum(b != (None, None) for b in bounds)


def asked(tasks: Sequence[str] = ()) -> Asked:
    """Read the address; what makes no sense there is as if it were absent."""
    view = state.query_text("view") if state.query_text("view") in VIEWS else "table"
    kind = state.query_text("by") if state.query_text("by") in SEARCHES else "text"
    words = state.query_text("search").strip() if view == "table" else ""
    only = _listed("only", ONLY)
    low, high = _range("density")
    least, most = _range("score")
    lowest, highest = _range("max")
    chosen = TableFilter(
        statuses=_listed("status", STATUS_WORDS),
        verdicts=_listed("relevance", dict.fromkeys(VERDICTS)),
        states=_listed("coverage", STATE_WORDS),
        tasks=_listed("tasks", dict.fromkeys(tasks)),
        clusters=state.query_ids("cluster"),
        lists=asked_lists(),
        min_density=max(0.0, low or 0.0),
        max_density=1.0 if high is None else high,
        min_score=least,
        max_score=most,
        min_max_act=lowest,
        max_max_act=highest,
        with_dead=state.query_text("dead") == "1",
        with_always_on=state.query_text("always_on") == "1",
        only_dead="dead" in only,
        only_always_on="always_on" in only,
        text=words if kind == "text" else "",
        word=words if kind == "word" else "",
    )
    is_ranked = view in ("text", "compare") or (bool(words) and kind != "text")
    sort, descending = _order(view, is_ranked)
    return Asked(view, words, kind, sort, descending, state.query_int("page") or 1, chosen)


def _order(view: str, is_ranked: bool) -> tuple[str, bool]:
    sort = state.query_text("sort")
    name = sort.removeprefix("-")
    is_absent = (name == "match" and not is_ranked) or (name in ASIDE and view != "compare")
    if name not in COLUMNS or is_absent:
        return ("match" if is_ranked else "density"), True
    return name, sort.startswith("-")


def _listed(param: str, known: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(part for part in state.query_text(param, 1000).split(",") if part in known)


def _range(param: str) -> tuple[float | None, float | None]:
    """Two bounds written `0.2,0.9`; either may be absent, and both are where one is no number or they cross."""
    low, comma, high = state.query_text(param).partition(",")
    if not comma:
        return None, None
    try:
        bounds = [float(part) if part.strip() else None for part in (low, high)]
    except ValueError:
        return None, None
    if any(bound is not None and not math.isfinite(bound) for bound in bounds):
        return None, None
    if bounds[0] is not None and bounds[1] is not None and bounds[0] > bounds[1]:
        return None, None
    return bounds[0], bounds[1]


def choose_view(now: Asked) -> None:
    """The ways of looking at the table below."""
    st.segmented_control(
        "How to look",
        list(VIEWS),
        format_func=VIEWS.__getitem__,
        required=True,
        label_visibility="collapsed",
        **follow("fv_features_view", "view", now.view, default="table", resets=(*FIRST_PAGE, "sort")),
    )


def search_lens(here: Here, looked: Looked, now: Asked) -> Lens | None:
    """Search by text, by word or by meaning; None while the embedder warms up or when it cannot be had."""
    left, right = st.columns([7, 5], vertical_alignment="bottom")
    with left:
        st.text_input(
            "Search",
            placeholder=_PLACEHOLDERS[now.kind],
            max_chars=200,
            icon=":material/search:",
            label_visibility="collapsed",
            **follow("fv_features_search", "search", now.words, resets=(*FIRST_PAGE, "sort")),
        )
    with right:
        st.segmented_control(
            "Search by",
            list(SEARCHES),
            format_func=SEARCHES.__getitem__,
            required=True,
            label_visibility="collapsed",
            **follow("fv_features_by", "by", now.kind, default="text", resets=(*FIRST_PAGE, "sort")),
        )
    if now.kind != "meaning" or not now.words:
        return Lens(help=_MATCH_HELP)
    near = _by_meaning(here, looked, now.words)
    return None if near is None else Lens(near, help=_MATCH_HELP)


def _by_meaning(here: Here, looked: Looked, words: str) -> dict[int, float] | None:
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


def show_filters(here: Here, now: Asked, looked: Looked, clusters: Mapping[int, str]) -> None:
    """All filters behind one button that says how many are set."""
    n, chosen = now.n_filters, now.chosen
    label = f"Filters · {n}" if n else "Filters"
    with st.popover(label, icon=":material/filter_list:", key="fv_features_filters"):
        _pills("coverage", "Coverage", STATE_WORDS, chosen.states)
        _pills("relevance", "Relevant to the task", {v: v for v in VERDICTS}, chosen.verdicts)
        if len(looked.tasks) > 1:
            words = {task: plain_markdown(task.replace("_", " ")) for task in looked.tasks}
            _pills("tasks", "Relevant to any of", words, chosen.tasks)
        _pills("status", "Review", STATUS_WORDS, chosen.statuses)
        choose_lists(read_lists(here.database, looked.sae_id), chosen.lists)
        _slider("density", "Density", _DENSITIES, (chosen.min_density, chosen.max_density))
        worst, best = chosen.min_score, chosen.max_score
        score = (0.0 if worst is None else worst, 1.0 if best is None else best)
        _slider("score", "Explanation score", _SCORES, score)
        _maximum(chosen)
        if clusters:
            _clusters(clusters, chosen)
        only = [name for name, on in (("always_on", chosen.only_always_on), ("dead", chosen.only_dead)) if on]
        _pills("only", "Only", ONLY, only)
        for param, words_, on in (
            ("always_on", "Show always-on features", chosen.with_always_on),
            ("dead", "Show dead features", chosen.with_dead),
        ):
            st.toggle(words_, **follow(f"fv_features_{param}", param, on, resets=FIRST_PAGE))
        if n:
            st.button("Clear filters", key="fv_features_clear", on_click=_clear, width="stretch")


def _pills(param: str, label: str, options: Mapping[str, str], value: Sequence[str]) -> None:
    st.pills(
        label,
        list(options),
        format_func=options.__getitem__,
        selection_mode="multi",
        **follow(f"fv_features_{param}", param, list(value), resets=FIRST_PAGE),
    )


_DENSITIES = {0.0: "0", 1e-5: "0.001 %", 1e-4: "0.01 %", 1e-3: "0.1 %", 1e-2: "1 %", 1e-1: "10 %", 1.0: "100 %"}
_SCORES = {round(0.05 * i, 2): f"{0.05 * i:.2f}" for i in range(21)}


def _slider(param: str, label: str, stops: Mapping[float, str], bounds: tuple[float, float]) -> None:
    """Two ends among the stops; an address in between shows as the nearest and holds until it is moved."""
    near = (_nearest(stops, bounds[0]), _nearest(stops, bounds[1]))
    key = f"fv_features_{param}_{bounds[0]}_{bounds[1]}"
    ends = (min(stops), max(stops))
    st.select_slider(
        label,
        list(stops),
        near,
        format_func=stops.__getitem__,
        key=key,
        on_change=_write_range,
        args=(param, key, ends),
    )


def _nearest(stops: Mapping[float, str], bound: float) -> float:
    return min(stops, key=lambda stop: abs(stop - bound))


def _write_range(param: str, key: str, ends: tuple[float, float]) -> None:
    low, high = st.session_state[key]
    written = ",".join(("" if low == ends[0] else str(low), "" if high == ends[1] else str(high)))
    state.set_query(**{param: None if written == "," else written}, page=None)


def _maximum(chosen: TableFilter) -> None:
    left, right = st.columns(2)
    for place, name, label, value in (
        (left, "least", "Max from", chosen.min_max_act),
        (right, "most", "to", chosen.max_max_act),
    ):
        key = f"fv_features_max_{name}"
        st.session_state[key] = value
        place.number_input(
            label, min_value=0.0, key=key, on_change=_write_maximum, placeholder="any", help=_MAX_HELP[name]
        )


_MAX_HELP = {"least": "Its highest activation on this data set, on this SAE's own scale.", "most": None}


def _write_maximum() -> None:
    bounds = [st.session_state[f"fv_features_max_{name}"] for name in ("least", "most")]
    written = ",".join("" if bound is None else str(bound) for bound in bounds)
    state.set_query(max=None if written == "," else written, page=None)


def _clusters(clusters: Mapping[int, str], chosen: TableFilter) -> None:
    st.multiselect(
        "Clusters of the map",
        list(clusters),
        format_func=clusters.__getitem__,
        placeholder="any",
        **follow("fv_features_cluster", "cluster", [c for c in chosen.clusters if c in clusters], resets=FIRST_PAGE),
    )


def _clear() -> None:
    state.set_query(**dict.fromkeys((*_FILTERS, *FIRST_PAGE)))
