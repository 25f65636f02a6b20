"""How to write, by whom and within which limits; what it takes is said before it starts, in dollars where it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from facviz.config import BackboneConfig, CoverageConfig, SynthesisConfig, from_mapping
from facviz.errors import InputError
from facviz.jobs import list_jobs
from facviz.llm.providers import set_up
from facviz.store.workspace import open_workspace
from facviz.synthesis.safety import safety_note
from facviz.ui import state
from facviz.ui.components.address import follow, plain_markdown
from facviz.ui.components.explain_forms import cost_and_start
from facviz.ui.frame import Here
from facviz.views.format import count
from facviz.views.plan import (
    BASELINES,
    ORDERS,
    STRATEGIES,
    TARGETED,
    USUAL,
    WRITERS,
    Plan,
    Run,
    Writing,
    measure_of,
    pace_of,
    planned_arguments,
    projection,
)


def plan_form(here: Here, run: Run, chosen: Sequence[int]) -> None:
    """Strategy, writer, amounts and the start."""
    with st.container(border=True, key="fv_synthesis_form"):
        plan = _writer(_strategy(Plan()))
        plan = _amounts(plan)
        plan = _more(plan)
        if note := safety_note(run["task"], plan.provider):
            st.caption(f":material/shield: {plain_markdown(note)}")
        try:
            arguments = planned_arguments(run, chosen, plan)
        except InputError as error:
            st.caption(f":material/info: {plain_markdown(str(error))}")
            st.button("Write texts", key="fv_synthesis_start", type="primary", disabled=True, width="stretch")
            return
        st.caption(projection(len(chosen), plan, pace_of(list_jobs(here.root))))
        wish = Writing(run["coverage_id"], run["seed"], tuple(chosen), plan, tuple(arguments))
        _start(here, run, wish)


def _start(here: Here, run: Run, wish: Writing) -> None:
    label = f"Write texts for {count(len(wish.features))}"
    cost_and_start(
        here,
        wish,
        "synthesis",
        dry_run=lambda: _dry_run(here, run, wish),
        prefix="fv_synthesis",
        label=label,
        is_narrow=True,
    )


def _dry_run(here: Here, run: Run, wish: Writing) -> dict[str, Any]:
    """What the job would ask and cost, found in this process: it reads, counts and sends nothing."""
    from facviz.pipeline import synthesis
    from facviz.pipeline.session import Session
    from facviz.protocols import NoProgress

    session = Session(open_workspace(here.root), BackboneConfig(), NoProgress())
    coverage = from_mapping(CoverageConfig, measure_of(run), where="the coverage run")
    config = from_mapping(SynthesisConfig, wish.settings, where="the form")
    return synthesis.estimate(session, run, coverage, config)


def _strategy(plan: Plan) -> Plan:
    asked = state.query_text("strategy")
    is_baseline = asked in BASELINES
    offered = BASELINES if is_baseline else TARGETED
    st.selectbox(
        "How to write",
        list(offered),
        format_func=lambda name: STRATEGIES[name].label,
        **follow(
            "fv_synthesis_strategy",
            "strategy",
            asked if asked in offered else offered[0],
            default=USUAL.strategy,
        ),
    )
    chosen = st.session_state["fv_synthesis_strategy"]
    st.caption(plain_markdown(STRATEGIES[chosen].sentence))
    st.toggle(
        "Compare with a baseline",
        value=is_baseline,
        key=f"fv_synthesis_baseline_{is_baseline}",
        on_change=_turn_baseline,
        args=(is_baseline,),
        help="Baselines do not know which feature is missing; they draw as many candidates and are credited with every "
        "missing feature that any of them activates.",
    )
    return replace(plan, strategy=chosen)


def _turn_baseline(was: bool) -> None:
    state.set_query(strategy=None if was else BASELINES[0])


def _writer(plan: Plan) -> Plan:
    ready = [name for name, is_set in set_up().items() if is_set]
    provider = st.selectbox(
        "Who writes",
        ["local", *ready],
        format_func=WRITERS.__getitem__,
        key="fv_synthesis_provider",
        help=None if ready else "ANTHROPIC_API_KEY, OPENAI_API_KEY or OPENAI_BASE_URL adds a larger model.",
    )
    plan = replace(plan, provider=str(provider))
    if plan.provider == "local":
        return plan
    model = st.text_input("Model", placeholder="the provider’s default", key="fv_synthesis_model", max_chars=120)
    return replace(plan, model=model.strip())


def _amounts(plan: Plan) -> Plan:
    left, right = st.columns(2)
    wanted = left.number_input(
        "Texts each", 1, 50, plan.per_feature, key="fv_synthesis_per_feature", help="Verified ones, per feature."
    )
    most = right.number_input(
        "Candidates",
        1,
        1000,
        plan.max_candidates,
        key="fv_synthesis_max_candidates",
        help="At most, per feature and pass, before the feature counts as exhausted.",
    )
    plan = replace(plan, per_feature=int(wanted), max_candidates=int(most))
    if not plan.is_paid:
        return plan
    budget = left.number_input(
        "Budget in US dollars",
        0.01,
        10_000.0,
        1.0,
        0.5,
        key="fv_synthesis_budget",
        help="For this synthesis in all. It is never exceeded, whatever is killed.",
    )
    at_once = right.number_input("Requests at a time", 1, 64, plan.concurrency, key="fv_synthesis_concurrency")
    return replace(plan, budget_usd=float(budget), concurrency=int(at_once))


def _more(plan: Plan) -> Plan:
    with st.popover("More settings", icon=":material/tune:", key="fv_synthesis_settings", width="stretch"):
        plan = _rounds(plan)
        plan = _sampling(plan)
        return _judge(plan)


def _rounds(plan: Plan) -> Plan:
    passes = st.number_input(
        "Passes over what is still missing",
        1,
        10,
        plan.passes,
        key="fv_synthesis_passes",
        help="Each pass but the first attempts only the features that are then still missing.",
    )
    order = st.selectbox("Order", list(ORDERS), format_func=ORDERS.__getitem__, key="fv_synthesis_plan_order")
    axes = st.toggle(
        "Vary persona, register, length and topic",
        plan.axes,
        key="fv_synthesis_axes",
        help="After a feature’s first batch, with more of what was accepted.",
    )
    anti_copy = st.toggle(
        "Turn down copies",
        plan.anti_copy,
        key="fv_synthesis_anti_copy",
        help="A text whose target falls silent once the words it copied are taken out does not count.",
    )
    return replace(plan, passes=int(passes), order=str(order), axes=axes, anti_copy=anti_copy)


def _sampling(plan: Plan) -> Plan:
    temperature = st.slider(
        "Temperature",
        0.1,
        2.0,
        plan.temperature,
        0.05,
        key="fv_synthesis_temperature",
        help="Of a feature’s first batch; later ones are .2 warmer, up to 1. Models that take none pass it over.",
    )
    top_p = st.slider("Top-p", 0.05, 1.0, plan.top_p, 0.05, key="fv_synthesis_top_p")
    plan = replace(plan, temperature=temperature, top_p=top_p)
    if not STRATEGIES[plan.strategy].is_local:
        return plan
    max_kl = st.slider(
        "Push at most, in nats a token",
        0.1,
        8.0,
        plan.max_kl,
        0.1,
        key="fv_synthesis_max_kl",
        help="How far the push may move the model’s predictions on average.",
    )
    return replace(plan, max_kl=max_kl)


def _judge(plan: Plan) -> Plan:
    ready = [name for name, is_set in set_up().items() if is_set]
    judge = st.selectbox(
        "Who judges whether a text belongs to the task",
        ["", "local", *ready],
        format_func=lambda name: WRITERS[name] if name else "nobody",
        key="fv_synthesis_judge",
    )
    plan = replace(plan, judge_provider=str(judge or ""))
    if plan.judge_provider not in ready:
        return plan
    model = st.text_input("Judge’s model", placeholder="its default", key="fv_synthesis_judge_model", max_chars=120)
    return replace(plan, judge_model=model.strip())
