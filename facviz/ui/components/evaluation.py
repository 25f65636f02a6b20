"""What the evaluation page draws: arms against floor and ceiling, differences in words, and the form that measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import streamlit as st

from facviz.config import EvaluationConfig
from facviz.errors import InputError
from facviz.ui.components import jobs
from facviz.ui.frame import Here
from facviz.ui.state import query_text, set_query
from facviz.views.evaluation import (
    Choices,
    Result,
    Summary,
    evaluation_arguments,
    evaluation_label,
)
from facviz.views.evaluation_charts import (
    arm_intervals,
    coverage_over_samples,
    quality_over_coverage,
    quality_over_samples,
)
from facviz.views.synthesis import run_label

_CONFIG = {"displayModeBar": False}


def choose(evaluations: Mapping[str, Summary]) -> Summary:
    """The evaluation shown, in the address; the newest at first."""
    ids, asked = list(evaluations), query_text("evaluation")
    if len(ids) == 1:
        return evaluations[ids[0]]
    chosen = st.selectbox(
        "Evaluation",
        ids,
        index=ids.index(asked) if asked in evaluations else 0,
        format_func=lambda eval_id: evaluation_label(evaluations[eval_id]),
        key="fv_evaluation_which",
    )
    set_query(evaluation=chosen if chosen != ids[0] else None)
    return evaluations[chosen]


def show_answer(result: Result, here: Here) -> None:
    """The sentence, the metrics and the main picture."""
    st.html(f'<div class="fv-say">{escape(result.sentence)}</div>')
    for column, (label, value, beside, explanation) in zip(st.columns(4), result.metrics):
        column.metric(label, value, beside, delta_color="off", delta_arrow="off", help=explanation)
    alt = "; ".join(f"{arm.name}: AUPRC {arm.row['AUPRC']}" for arm in result.arms)
    _chart(arm_intervals(result, here.mode), "arms", alt)


def show_words(result: Result) -> None:
    """The arms in a table and in sentences."""
    st.subheader("Arm by arm", anchor=False, help="All arms have the same number of texts of each class.")
    st.dataframe([dict(arm.row) for arm in result.arms], hide_index=True, width="stretch", key="fv_evaluation_arms")
    items = "".join(f"<li>{escape(arm.sentence)}</li>" for arm in result.arms)
    st.html(f"<ul>{items}</ul>")
    left_out = result.summary.get("left_out", ())
    if left_out:
        named = ", ".join(f"{arm['arm']} ({arm['n']} texts)" for arm in left_out)
        st.caption(f"Left out for want of texts: {_plain(named)}.")


def show_details(result: Result, here: Here) -> None:
    """The frontier and the correlation."""
    st.subheader("What each text buys", anchor=False, help="Smaller mixes are subsets of larger ones of the same seed.")
    left, right = st.columns(2, gap="large")
    with left:
        _chart(quality_over_samples(result, here.mode), "frontier", "AUPRC over the number of texts added, by arm.")
    with right:
        _chart(
            coverage_over_samples(result, here.mode), "missing", "Missing features covered over texts added, by arm."
        )
    st.subheader("Does coverage predict quality?", anchor=False)
    left, right = st.columns([5, 4], gap="large", vertical_alignment="center")
    with left:
        _chart(quality_over_coverage(result, here.mode), "correlation", "AUPRC over FAC, a point a mix.")
    items = "".join(f"<li>{escape(said)}</li>" for said in result.correlations)
    right.html(f"<ul>{items}</ul>")
    right.caption(
        "A reference arm far from the others can make a correlation by itself, so each number stands without them too."
    )


def show_inputs(result: Result) -> None:
    """What the numbers follow from, how texts are labelled, and what they cannot say."""
    with st.expander("What these numbers follow from", key="fv_evaluation_inputs"):
        for title, lines in (
            ("Inputs", result.inputs),
            ("Labels of generated texts", (result.labels,)),
            ("Limits", result.limits),
        ):
            items = "".join(f"<li>{escape(line)}</li>" for line in lines)
            st.html(f'<b>{escape(title)}</b><ul class="fv-quiet">{items}</ul>')


def start_form(here: Here, choices: Choices, *, is_first: bool) -> None:
    """Measure, or measure again with other data sets."""
    with st.container(border=True, key="fv_evaluation_form"):
        with st.container(horizontal=True, vertical_alignment="center"):
            run, settings = _settings(choices)
            st.space("stretch")
            is_wanted = st.button(
                "Measure" if is_first else "Measure again",
                key="fv_evaluation_start",
                type="primary",
                icon=":material/model_training:",
            )
        st.caption(
            "Reads the texts with the language model, then trains heads: about a minute for the demo, ten at most for "
            "some thousand texts. What is finished is kept when it is stopped."
        )
        if is_wanted:
            _start(here, run, settings)


def _settings(choices: Choices) -> tuple[Mapping[str, Any], dict[str, Any]]:
    by_id = {run["coverage_id"]: run for run in choices.runs}
    with st.popover("Settings", icon=":material/tune:", key="fv_evaluation_settings"):
        chosen = st.selectbox(
            "Samples of", list(by_id), format_func=lambda c: run_label(by_id[c]), key="fv_evaluation_run"
        )
        named: dict[str, Any] = {}
        usual = {"test": ("Test set", "role eval, else half of the real texts"), "gold": ("Real texts", "the anchor")}
        options: list[str] = ["", *choices.datasets]
        for role, (label, words) in usual.items():
            named[role] = st.selectbox(
                label, options, format_func=_usual(words), key=f"fv_evaluation_{role}", help="Labelled texts."
            )
        named["positive"] = st.multiselect(
            "Positive class",
            list(choices.labels),
            key="fv_evaluation_positive",
            placeholder="usual: labels the seed set lacks",
        )
        named["n_seeds"] = st.number_input("Seeds", 1, 50, EvaluationConfig().n_seeds, key="fv_evaluation_seeds")
    return by_id[chosen], named


def _usual(words: str) -> Callable[[str], str]:
    """Names of options, the empty one as what is usual."""
    return lambda name: name or f"usual: {words}"


def _start(here: Here, run: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    try:
        arguments = evaluation_arguments(run, **settings)
    except InputError as error:
        st.error(str(error))
        return
    jobs.start(here.root, title=f"Evaluate samples for {run['seed']}", page="evaluation", arguments=arguments)


def _chart(figure: Any, name: str, alt: str) -> None:
    st.plotly_chart(figure, theme=None, width="stretch", key=f"fv_evaluation_{name}_chart", config=_CONFIG, alt=alt)


def _plain(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|<>~$:" else c for c in text)
