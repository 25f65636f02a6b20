"""What the coverage page draws: the question and its δ, the gap, its curves, and the missing features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any, Literal

import streamlit as st

from facviz.coverage import GRIDS, Kind
from facviz.errors import CoverageError
from facviz.store.gap import Gap
from facviz.ui import resources
from facviz.ui.components import jobs
from facviz.ui.frame import Here
from facviz.views.charts import ThemeShare, coverage_by_theme, fac_over_documents, fac_over_threshold
from facviz.views.coverage import (
    KINDS,
    LEVELS,
    Choices,
    Lens,
    Live,
    Question,
    coverage_flags,
    filled_and_tried,
    highest_threshold,
    theme_shares,
)
from facviz.views.format import count, count_of, number, percent
from facviz.views.heat import spans_html
from facviz.views.missing import (
    PAGE_SIZE,
    Headline,
    MissingFeature,
    missing_rows,
    ordered_missing,
    themes_of,
)

CHOSEN = "fv_coverage_chosen"
MOST_RELEVANT = 8
_CONFIG = {"displayModeBar": False}
_LEVEL_WORDS = {"yes": "surely", "probably": "probably or surely", "maybe": "maybe, probably or surely"}
_UNITS: Mapping[Kind, Literal["× p95", "activation"]] = {"relative": "× p95", "absolute": "activation"}


def literal(text: str) -> str:
    """Text for Markdown places, without its special characters."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|<>~$:&" else c for c in text)


def ask_sae(saes: Sequence[str]) -> str:
    """Which SAE, asked only where there are several."""
    if len(saes) == 1:
        return saes[0]
    return st.selectbox("SAE", saes, key="sae", bind="query-params", help="The one measured last stands first.")


def ask(choices: Choices) -> tuple[Question, Kind]:
    """What is compared; every choice stands in the address."""
    first = choices.question
    task = _select("Task", choices.tasks, first.task, "task", "Which features count: those that matter to this task.")
    sources = choices.sources[task]
    source = _select("Relevance", sources, first.source, "source", "What says that a feature matters to the task.")
    anchor = _select("Anchor set", choices.datasets, first.anchor, "anchor", "The reference: what the task needs.")
    others = [name for name in choices.datasets if name != anchor]
    seed = _select("Seed set", others, first.seed, "seed", "The data whose gaps are looked for.")
    level = _select("Counted from", LEVELS, first.level, "level", "The weakest verdict that still counts.")
    kind = _select("Threshold", KINDS, choices.kind, "kind", _KIND_HELP, on_change=_forget_threshold)
    return replace(first, task=task, source=source, anchor=anchor, seed=seed, level=level), kind


_KIND_HELP = (
    "relative: δ times each feature's own 95th percentile on the anchor set. "
    "absolute: δ on this SAE's scale, never to be compared between SAEs."
)


def _select(label: str, options: Sequence[Any], default: Any, key: str, explanation: str, **more: Any) -> Any:
    index = options.index(default) if default in options else 0
    return st.selectbox(label, options, index=index, key=key, help=explanation, bind="query-params", **more)


def _forget_threshold() -> None:
    st.session_state.pop("threshold", None)


def inputs_line(question: Question, lens: Lens, gap: Gap) -> str:
    """What the numbers below follow from, as escaped HTML."""
    seed = f"<b>{escape(question.seed)}</b>, {count(lens.seed.shape[0])} texts, {count(gap.seed_tokens.sum())} tokens"
    anchor = f"<b>{escape(question.anchor)}</b>, {count(lens.anchor.shape[0])} texts"
    anchor += f", {count(gap.anchor_tokens.sum())} tokens"
    features = f"{count(len(lens.features))} features that {_LEVEL_WORDS[question.level]} matter"
    by = f"“{escape(question.task_title)}” by {escape(question.source)}"
    parts = [f"{seed}, against {anchor}", f"{features} to {by}", f"SAE {escape(question.sae_id[:8])}"]
    return f'<div class="fv-quiet">{" · ".join(parts)}</div>'


def threshold_slider(lens: Lens, kind: Kind, default: float) -> float:
    """δ, in the address."""
    top = highest_threshold(lens, kind)
    step = 0.05 if kind == "relative" else top / 100
    unit = "× the feature's own p95" if kind == "relative" else "on this SAE's scale"
    value = st.slider(
        f"Threshold δ, {unit}",
        0.0,
        max(top, default),
        float(default),
        step,
        key="threshold",
        bind="query-params",
        format="%.2f",
        help="A feature counts as active in a text only above δ. Higher is stricter.",
    )
    return round(float(value), 4)


def show_headline(answer: Headline) -> None:
    """The number, its interval and the sentence."""
    interval = f'<small title="95 % interval">{answer.interval} %</small>' if answer.interval else ""
    st.html(f'<div class="fv-big">{answer.fac}{interval}</div><p class="fv-say">{answer.sentence}</p>')


def show_saturation(live: Live) -> None:
    """Says that this δ proves nothing, and offers the smallest one that does."""
    if not live.saturated:
        return
    with st.container(border=True, key="fv_coverage_saturated"):
        missing = f"{count(live.n_missing)} of {count(live.n_anchor)}"
        st.markdown(
            f":material/do_not_disturb_on: **Saturated.** Only {missing} features are missing at this δ, so filling "
            "them would prove nothing; synthesis refuses to start."
        )
        if live.unsaturated is None:
            st.caption(
                f"No δ of {', '.join(f'{value:g}' for value in GRIDS[live.kind])} shows more; compare other sets."
            )
        else:
            words = f"Use δ {live.unsaturated:g}, where more is missing"
            st.button(words, key="fv_coverage_unsaturate", on_click=_set_threshold, args=(live.unsaturated,))


def _set_threshold(value: float) -> None:
    st.session_state["threshold"] = value


def show_metrics(live: Live, filled: set[int], run: Mapping[str, Any] | None) -> None:
    """The numbers beside FAC."""
    equal = (run or {}).get("details", {}).get("equal_tokens", {})
    share = {name: percent(equal.get(name, {}).get("fac")) for name in ("seed", "anchor")}
    shown = [
        (
            "Missing features",
            count(live.n_missing),
            f"of {count(live.n_anchor)} counted",
            "Relevant features that the anchor set activates and the seed set does not.",
        ),
        (
            "Filled since",
            count(len(filled)),
            f"of {count(live.n_missing)} missing",
            "Missing features that a verified text aimed at them now activates; texts a person rejected do not count.",
        ),
        (
            "At equal tokens",
            share["seed"],
            f"anchor set {share['anchor']}" if equal else "not measured yet",
            "FAC of the seed set, and of the anchor set itself, from random texts with equally many content tokens. "
            "Measured when you keep this measurement.",
        ),
        (
            "Counted features",
            count(live.n_anchor),
            f"of {count(live.n_relevant)} relevant",
            "Relevant features that fire on the anchor set above δ: what FAC is a share of. Features that fire nearly "
            "everywhere are left out.",
        ),
    ]
    for column, (label, value, beside, explanation) in zip(st.columns(4), shown):
        column.metric(label, value, beside, delta_color="off", delta_arrow="off", help=explanation)


def show_themes(shares: Sequence[ThemeShare], here: Here) -> None:
    """The anchor set's features, split by theme."""
    alt = "; ".join(f"{s.theme}: {s.covered} covered, {s.gap} missing, {s.filled} filled since" for s in shares[:20])
    figure = coverage_by_theme(shares, here.mode)
    figure.update_annotations(x=1, xanchor="right")  # long theme names leave the key no room on the right
    st.plotly_chart(figure, theme=None, width="stretch", key="fv_coverage_themes", config=_CONFIG, alt=alt)


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
            help="Expected FAC of ever more texts drawn from each set. A flat end means that more texts of the same "
            "kind would not close the gap.",
        )
        figure = fac_over_documents(live.growth, here.mode, x_title="texts drawn")
        ends = ", ".join(f"{c.name} {percent(c.fac[-1])} at {count(c.sizes[-1])} texts" for c in live.growth if c.fac)
        st.plotly_chart(figure, theme=None, width="stretch", key="fv_coverage_growth", config=_CONFIG, alt=ends)


def keep_button(here: Here, question: Question, live: Live, run: Mapping[str, Any] | None) -> None:
    """Stores what is shown, or says that it is stored."""
    if run is not None:
        st.caption(f":material/check: Kept as measurement {literal(run['coverage_id'])}")
    elif st.button(
        "Keep this measurement",
        key="fv_coverage_keep",
        icon=":material/bookmark_add:",
        help="Writes FAC, interval and missing list into the workspace; texts are written for a kept measurement.",
    ):
        flags = coverage_flags(question, live.kind, live.threshold)
        title = f"Measure coverage of {question.seed} at δ {number(live.threshold)}"
        jobs.start(here.root, title=title, page="coverage", arguments=["coverage", *flags])


def show_missing(here: Here, question: Question, live: Live, gap: Gap, states: Mapping[int, str]) -> None:
    """The missing features, most relevant first, a page at a time, each with what it fired on."""
    themes, still = themes_of(live, gap), False
    with st.container(horizontal=True, vertical_alignment="bottom"):
        theme = (
            st.selectbox("Theme", ["", *themes], format_func=lambda t: t or "All themes", key="fv_coverage_theme")
            if themes
            else ""
        )
        by = st.segmented_control(
            "Order",
            ["relevance", "documents"],
            default="relevance",
            required=True,
            format_func=lambda by: {"relevance": "Most relevant", "documents": "In most texts"}[by],
            key="fv_coverage_order",
        )
        if states:
            still = st.toggle("Only what no text fills yet", key="fv_coverage_still")
        ids = ordered_missing(live, gap, theme=theme, by=by or "relevance")
        ids = [f for f in ids if not (still and states.get(f) == "filled")]
        chosen = set(_chosen(live))
        st.button(f"Choose all {count(len(ids))}", key="fv_coverage_all", on_click=_choose, args=(ids, True))
        st.button("Choose none", key="fv_coverage_none", on_click=_choose, args=(sorted(chosen), False))
    n_pages = -(-len(ids) // PAGE_SIZE)
    number_shown = st.session_state.get("fv_coverage_page", 1) if n_pages > 1 else 1
    start = PAGE_SIZE * (min(number_shown, max(n_pages, 1)) - 1)
    rows = missing_rows(here.database, question, live, gap, ids[start : start + PAGE_SIZE], states)
    for row in rows:
        _row(here, row, row.feature_id in chosen)
    if n_pages > 1:
        st.pagination(n_pages, key="fv_coverage_page")


def _row(here: Here, row: MissingFeature, is_chosen: bool) -> None:
    with st.container(border=True, key=f"fv_coverage_row_{row.feature_id}"):
        pick, left, right = st.columns([0.3, 5, 1.4], vertical_alignment="center")
        with pick:
            key = _pick_key(row.feature_id)
            st.session_state.setdefault(key, is_chosen)
            label = f"Choose feature {row.feature_id}"
            st.checkbox(label, key=key, on_change=_picked, args=(row.feature_id,), label_visibility="collapsed")
        with left:
            st.html(f"<b>{escape(row.explanation)}</b>")
            if row.span is not None:
                st.html(spans_html([row.span], mode=here.mode, context="near", warn=here.blurred))
        with right:
            facts = [f'<b class="fv-{row.state}">{row.state}</b>', f"in {row.n_docs} anchor texts"]
            facts += [f"relevance {row.score}"] + ([f"theme {escape(row.theme)}"] if row.theme else [])
            st.html(f'<div class="fv-quiet">{"<br>".join(facts)}</div>')
            st.page_link(
                "pages/feature.py",
                label=f"Feature {row.feature_id}",
                icon=":material/arrow_forward:",
                query_params={"feature": str(row.feature_id)},
            )


def write_button(live: Live, gap: Gap, run: Mapping[str, Any] | None, states: Mapping[int, str]) -> None:
    """On to synthesis with the chosen features, or the most relevant ones nobody tried when none is chosen."""
    chosen = _chosen(live)
    ids = chosen or [f for f in ordered_missing(live, gap) if f not in states][:MOST_RELEVANT]
    amount = f" for the {count(len(ids))} most relevant" if ids else ""
    amount = f" for {count_of(len(ids), 'feature')}" if chosen or len(ids) == 1 else amount
    why = "Keep this measurement first; texts are written for a kept one." if run is None else None
    why = "At this δ nearly nothing is missing; choose a stricter one." if live.saturated else why
    if st.button(
        f"Write texts{amount}",
        key="fv_coverage_write",
        type="primary",
        icon=":material/edit_note:",
        disabled=run is None or live.saturated or not ids,
        help=why,
    ):
        features = ",".join(map(str, ids))
        query = {"coverage": run["coverage_id"], "features": features} if run is not None else {}
        st.switch_page("pages/synthesis.py", query_params=query)


def _chosen(live: Live) -> list[int]:
    """Chosen features that are missing at this δ."""
    missing = set(live.missing.tolist())
    return [f for f in st.session_state.get(CHOSEN, []) if f in missing]


def _pick_key(feature_id: int) -> str:
    return f"fv_coverage_pick_{feature_id}"


def _picked(feature_id: int) -> None:
    _choose([feature_id], bool(st.session_state[_pick_key(feature_id)]))


def _choose(ids: Sequence[int], is_chosen: bool) -> None:
    chosen = dict.fromkeys(st.session_state.get(CHOSEN, []))
    for feature_id in ids:
        if is_chosen:
            chosen[feature_id] = None
        else:
            chosen.pop(feature_id, None)
        st.session_state[_pick_key(feature_id)] = is_chosen
    st.session_state[CHOSEN] = list(chosen)


def measure(here: Here, question: Question, kind: Kind, threshold: float) -> Live | None:
    """Coverage at this δ; where it has no answer, why, beside the control that changes it."""
    try:
        return resources.live_coverage(here.database, question, kind, threshold)
    except CoverageError as error:
        st.text(str(error))
        return None


def states_of(here: Here, question: Question, live: Live) -> tuple[set[int], set[int], dict[int, str]]:
    """Filled and tried features, and both as words."""
    filled, tried = filled_and_tried(here.database, question, live)
    return filled, tried, dict.fromkeys(filled, "filled") | dict.fromkeys(tried, "exhausted")


def shares_of(question: Question, live: Live, gap: Gap, filled: set[int], tried: set[int]) -> list[ThemeShare]:
    """Theme bars; one bar named after the task where no feature has a theme."""
    return theme_shares(gap, live, filled, tried, question.task_title)
