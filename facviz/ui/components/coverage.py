"""What the coverage page asks and answers first: the question and its δ, FAC, saturation and the four numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import streamlit as st

from facviz.config import CoverageConfig
from facviz.coverage import GRIDS, Kind
from facviz.errors import CoverageError
from facviz.ui import measured, state
from facviz.ui.components import jobs
from facviz.ui.components.address import follow
from facviz.ui.components.waiting import ready
from facviz.ui.frame import Here
from facviz.views.coverage import Choices, Question, coverage_flags, filled_and_tried
from facviz.views.format import count, interval_percent, number, percent
from facviz.views.live import KINDS, LEVELS, Lens, Live, Sure, highest_threshold
from facviz.views.missing import Headline
from facviz.views.provenance import Fact

USUAL_THRESHOLD = CoverageConfig().threshold
SECTIONS = {
    "missing": "What is missing",
    "levels": "Levels of relevance",
    "sets": "Other data sets",
    "wording": "Text diversity",
}
_LEVEL_WORDS = {"yes": "surely", "probably": "probably or surely", "maybe": "maybe, probably or surely"}


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
    rest = [name for name in others if name != seed]
    more_anchors = _several("Joined to the anchor set", rest, "anchors")
    more_seeds = _several("Joined to the seed set", [name for name in rest if name not in more_anchors], "seeds")
    level = _select("Counted from", LEVELS, first.level, "level", "The weakest verdict that still counts.")
    kind = _select("Threshold", KINDS, choices.kind, "kind", _KIND_HELP, on_change=_forget_threshold)
    question = replace(first, task=task, source=source, anchor=anchor, seed=seed, level=level)
    return replace(question, more_anchors=more_anchors, more_seeds=more_seeds), kind


_KIND_HELP = (
    "relative: δ times each feature's own 95th percentile on the anchor set. "
    "absolute: δ on this SAE's scale, never to be compared between SAEs."
)


def _select(label: str, options: Sequence[Any], default: Any, key: str, explanation: str, **more: Any) -> Any:
    index = options.index(default) if default in options else 0
    return st.selectbox(label, options, index=index, key=key, help=explanation, bind="query-params", **more)


def _several(label: str, options: Sequence[str], key: str) -> tuple[str, ...]:
    """Further sets, asked only where there are any."""
    if not options:
        return ()
    explanation = "Their texts count as one set with it."
    return tuple(st.multiselect(label, options, key=key, help=explanation, bind="query-params", placeholder="none"))


def _forget_threshold() -> None:
    st.session_state.pop("threshold", None)


def inputs_line(question: Question, lens: Lens) -> str:
    """What the numbers below follow from, as escaped HTML."""
    seed, anchor = (
        f"<b>{escape(' + '.join(names))}</b>, {count(index.n_docs)} texts, {count(index.total_tokens)} tokens"
        for names, index in ((question.seeds, lens.seed), (question.anchors, lens.anchor))
    )
    n_features = int((lens.task.rank <= LEVELS.index(question.level)).sum())
    features = f"{count(n_features)} features that {_LEVEL_WORDS[question.level]} matter"
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


def interval(here: Here, question: Question, live: Live) -> Sure | None:
    """The intervals; None while a large set's are still being measured, and the page is drawn again when they are."""
    found = ready("Measuring the interval …", measured.sure_coverage(here.database, question, live))
    return found[0] if found else None


def choose_section() -> str:
    """Which part is looked at below the curves."""
    return pick("Look at", SECTIONS, "look", "missing")


def pick(label: str, words: Mapping[str, str], param: str, default: str) -> str:
    """One of a few ways to look, as buttons; it stands in the address unless it is the default."""
    asked = state.query_text(param)
    st.segmented_control(
        label,
        list(words),
        required=True,
        format_func=lambda option: words[option],
        label_visibility="collapsed",
        **follow(f"fv_coverage_{param}", param, asked if asked in words else default, default=default),
    )
    return asked if asked in words else default


def show_headline(answer: Headline) -> None:
    """The number, its interval and the sentence."""
    words = f"{answer.interval} %" if answer.interval else "measuring the interval …"
    interval = f'<small title="95 % interval">{words}</small>'
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


def show_metrics(live: Live, sure: Sure | None, filled: set[int]) -> None:
    """The numbers beside FAC."""
    more = live.unseen
    bounds = (sure.frequency, sure.magnitude) if sure else ((None, None), (None, None))
    shown = [
        (
            "Missing features",
            count(live.n_missing),
            f"of {count(live.n_anchor)} counted, {count(live.n_relevant)} relevant",
            "Relevant features that the anchor set activates above δ and the seed set does not. Counted are those that "
            "the anchor set activates; features that fire nearly everywhere are left out.",
        ),
        (
            "Filled since",
            count(len(filled)),
            f"of {count(live.n_missing)} missing",
            "Missing features that a verified text aimed at them now activates; texts a person rejected do not count.",
        ),
        (
            "FAC-freq",
            percent(live.fac_frequency),
            f"FAC-magnitude {percent(live.fac_magnitude)}",
            f"FAC-freq {interval_percent(live.fac_frequency, *bounds[0])}: each feature counts by how many anchor "
            f"texts activate it. FAC-magnitude {interval_percent(live.fac_magnitude, *bounds[1])}: by its mean "
            "activation in those texts. With 95 % intervals.",
        ),
        (
            "More of the same would add",
            _about(more.estimate),
            f"of {count(live.n_missing)} missing; {_about(more.low)} to {_about(more.high)}",
            "Features missing now that ever more texts of the seed set's own kind would still show: the Chao2 "
            f"estimate with its 95 % interval, from the {count(more.n_once)} features that stand in one text and the "
            f"{count(more.n_twice)} that stand in two. It is a lower bound. The rest needs other texts.",
        ),
    ]
    for column, (label, value, beside, explanation) in zip(st.columns(4), shown):
        column.metric(label, value, beside, delta_color="off", delta_arrow="off", help=explanation)


def _about(n: float) -> str:
    """A number of features that is an estimate."""
    return count(n) if n == 0 or n >= 1 else "< 1"


def show_provenance(facts: Sequence[Fact]) -> None:
    """Where every number of the page comes from, one line each."""
    rows = "".join(
        f"<tr><td class='fv-quiet'>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts
    )
    st.html(f"<table class='fv-facts'>{rows}</table>")


def keep_button(here: Here, question: Question, live: Live, run: Mapping[str, Any] | None) -> None:
    """Stores what is shown, or says that it is stored."""
    if run is not None:
        st.caption(f":material/check: Kept as measurement {literal(run['coverage_id'])}")
    elif not question.is_pair:
        st.caption("To keep a measurement of joined sets, add them to the workspace as one data set.")
    elif st.button(
        "Keep this measurement",
        key="fv_coverage_keep",
        icon=":material/bookmark_add:",
        help="Writes FAC, interval and missing list into the workspace; texts are written for a kept measurement.",
    ):
        flags = coverage_flags(question, live.kind, live.threshold)
        title = f"Measure coverage of {question.seed} at δ {number(live.threshold)}"
        jobs.start(here.root, title=title, page="coverage", arguments=["coverage", *flags])


def measure(here: Here, question: Question, kind: Kind, threshold: float) -> Live | None:
    """Coverage at this δ; where it has no answer, why, beside the control that changes it."""
    try:
        return measured.live_coverage(here.database, question, kind, threshold)
    except CoverageError as error:
        st.text(str(error))
        return None


def states_of(here: Here, question: Question, live: Live) -> tuple[set[int], set[int], dict[int, str]]:
    """Filled and tried features, and both as words."""
    filled, tried = filled_and_tried(here.database, question, live)
    return filled, tried, dict.fromkeys(filled, "filled") | dict.fromkeys(tried, "exhausted")
