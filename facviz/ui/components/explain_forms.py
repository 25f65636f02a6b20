"""Asking a language model about features: what and which, a dry run before anything paid, the job, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import streamlit as st

from facviz.config import ExplainConfig, RelevanceConfig, ScoreConfig, from_mapping
from facviz.errors import FacvizError
from facviz.jobs import JobState, list_jobs
from facviz.llm.providers import set_up
from facviz.prompts import load_task, task_names
from facviz.ui.components.address import plain_markdown
from facviz.ui.components.exchange_forms import exchange_dialog
from facviz.ui.components.jobs import start, watch
from facviz.ui.components.task_form import task_form
from facviz.ui.frame import Here
from facviz.views.candidate import facts_html
from facviz.views.explain_jobs import (
    PROVIDERS,
    WHAT,
    WHICH,
    Wish,
    asked_by,
    chosen_ids,
    cost_cells,
    outcome_words,
)
from facviz.views.scope import Looked, look
from facviz.views.scores import KINDS, WHAT_IT_ASKS

_CONFIGS = {"explain": ExplainConfig, "score": ScoreConfig, "judge": RelevanceConfig}


def explain_entry(here: Here, looked: Looked, page: str) -> None:
    """Two small buttons that open the forms, the job they started while it runs, and how the last one ended."""
    with st.container(horizontal=True, gap="small", key="fv_ask"):
        if st.button("Explain…", key="fv_ask_open", icon=":material/auto_awesome:", help=_ENTRY_HELP):
            _form(here, looked, page)
        if st.button("Exchange…", key="fv_exchange_open", icon=":material/swap_horiz:", help=_EXCHANGE_HELP):
            exchange_dialog(here, looked)
    if not watch(here.root, page):
        _last_outcome(here.root, page)


def ask_button(here: Here, sae_id: str, page: str) -> None:
    """The same form for one SAE, from a page that shows SAEs."""
    if not st.button("Explain…", key="fv_ask_sae", icon=":material/auto_awesome:", help=_ENTRY_HELP):
        return
    looked = look(here.database, here.database.workspace.manifest, sae=sae_id)
    if looked is None or looked.sae_id != sae_id:
        st.toast("Read a data set with this SAE first.", icon=":material/info:")
    else:
        _form(here, looked, page)


def _last_outcome(root: Path, page: str) -> None:
    job = next((job for job in list_jobs(root) if job.page == page), None)
    if job is None or job.state is not JobState.DONE or not job.result or not asked_by(job.arguments):
        return
    st.caption(f":material/check: {plain_markdown(job.title)}: {plain_markdown(outcome_words(job.result))}")


@st.dialog("Ask about features", width="large")
def _form(here: Here, looked: Looked, page: str) -> None:
    ask_form(here, looked, page)


def ask_form(here: Here, looked: Looked, page: str) -> None:
    """What, who, which, then the cost and the start; drawn in a dialog, so that the page stays as it is."""
    what = st.segmented_control(
        "What", list(WHAT), format_func=WHAT.__getitem__, default="explain", required=True, key="fv_ask_what"
    )
    task = _task(here, looked) if what == "judge" else ""
    kinds = _kinds() if what == "score" else ()
    provider, model = _who(what, kinds)
    which, typed, most = _which(looked, what)
    wish = None
    try:
        ids = chosen_ids(here.database, looked, which, typed)
        wish = Wish(what, looked.sae_id, looked.dataset.name, provider, model, ids, most, kinds=kinds, task=task)
        wish = _details(wish)
    except FacvizError as error:
        st.warning(str(error), icon=":material/info:")
    if wish is not None and (what != "judge" or task) and (what != "score" or kinds):
        cost_and_start(here, wish, page)


def _task(here: Here, looked: Looked) -> str:
    names = task_names()
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    chosen = left.selectbox(
        "Task",
        names,
        index=names.index(looked.task) if looked.task in names else 0,
        format_func=lambda name: load_task(name).title,
        key="fv_ask_task",
        help="The rubric is the only thing that changes in the judge’s prompt.",
    )
    with right, st.popover("Write a task", key="fv_ask_task_new", icon=":material/edit_note:", width="stretch"):
        task_form(here)
    return str(chosen or "")


def _kinds() -> tuple[str, ...]:
    chosen = st.pills(
        "Scores",
        list(KINDS),
        default=["embedding"],
        selection_mode="multi",
        format_func=KINDS.__getitem__,
        key="fv_ask_kinds",
    )
    for kind in chosen:
        st.caption(f"**{KINDS[kind]}**: {WHAT_IT_ASKS[kind]}")
    return tuple(chosen)


def _who(what: str, kinds: tuple[str, ...]) -> tuple[str, str]:
    ready = [name for name, is_set in set_up().items() if is_set]
    offered = [*(["lexical"] if what == "explain" else []), "local", *ready]
    if what == "score" and set(kinds) <= {"embedding"}:
        return "local", ""
    left, right = st.columns(2, vertical_alignment="bottom")
    words = "Who explains" if what == "explain" else "Who judges"
    provider = left.selectbox(
        words,
        offered,
        index=len(offered) - 1 if ready else 0,
        format_func=PROVIDERS.__getitem__,
        key=f"fv_ask_provider_{what}",
        help=_WHO_HELP,
    )
    model = ""
    if provider in ready:
        model = right.text_input("Model", placeholder="the provider’s default", key="fv_ask_model", max_chars=120)
    elif not ready:
        right.caption("No key is set: ANTHROPIC_API_KEY, OPENAI_API_KEY or OPENAI_BASE_URL adds a larger model.")
    if what != "explain" and provider == "local":
        st.caption("The packaged model is too small to judge: most of its answers cannot be read.")
    return str(provider), model.strip()


def _which(looked: Looked, what: str) -> tuple[str, str, int | None]:
    if what == "judge":
        st.caption("Every explained feature with held-out spans is judged.")
        return "all", "", None
    offered = [key for key in WHICH if key != "missing" or looked.run is not None]
    offered = [key for key in offered if what == "explain" or key != "unexplained"]
    left, right = st.columns(2, vertical_alignment="bottom")
    which = left.selectbox("Which features", offered, format_func=WHICH.__getitem__, key=f"fv_ask_which_{what}")
    if which == "these":
        typed = right.text_input("Feature ids", placeholder="12, 40, 100-120", key="fv_ask_ids", max_chars=4000)
        return which, typed, None
    if which == "all" and right.toggle("Only some, at random", key="fv_ask_sample"):
        return which, "", int(right.number_input("How many", 1, 100_000, 300, key="fv_ask_most"))
    return str(which), "", None


def _details(wish: Wish) -> Wish:
    if wish.provider == "lexical" and wish.what == "explain":
        return replace(wish, ids=(), max_features=None)
    if wish.asks_model and wish.what == "explain":
        n = st.number_input("Candidates of each", 1, 5, 1, key="fv_ask_candidates", help=_CANDIDATES_HELP)
        wish = replace(wish, n_candidates=int(n))
    if not wish.is_paid:
        return wish
    left, right = st.columns(2)
    budget = left.number_input("Budget in US dollars", 0.01, 10_000.0, 1.0, 0.5, key="fv_ask_budget", help=_BUDGET_HELP)
    at_once = right.number_input("Requests at a time", 1, 64, 4, key="fv_ask_concurrency")
    can_batch = wish.provider == "anthropic"
    is_batch = can_batch and st.toggle("As a batch, at half the price", key="fv_ask_batch", help=_BATCH_HELP)
    return replace(wish, budget_usd=float(budget), concurrency=int(at_once), is_batch=is_batch)


class Priced(Protocol):
    """A job that may cost money, whatever stage it is; equal to another that is asked for in the same way."""

    @property
    def asks_model(self) -> bool:
        """Whether a dry run is offered."""

    @property
    def is_paid(self) -> bool:
        """Whether nothing starts before its cost is shown."""

    @property
    def budget_usd(self) -> float | None:
        """The most it may cost."""

    @property
    def title(self) -> str:
        """What the job is called."""

    @property
    def arguments(self) -> Sequence[str]:
        """The command."""


def cost_and_start(
    here: Here,
    wish: Priced,
    page: str,
    *,
    dry_run: Callable[[], dict[str, Any]] | None = None,
    prefix: str = "fv_ask",
    label: str = "Start",
    is_narrow: bool = False,
) -> None:
    """A dry run on request, and the start; of what costs money only once its cost is shown.

    `dry_run` finds the cost, by itself that of a `Wish`; widget keys begin with `prefix`. In a narrow place
    numbers and buttons stand below each other.
    """
    costs = st.container()
    left, right = (st.container(), st.container()) if is_narrow else st.columns(2)
    if wish.asks_model and left.button(
        "What would it cost?", key=f"{prefix}_dry_run", icon=":material/calculate:", width="stretch"
    ):
        try:
            with st.spinner("Reading spans, sending nothing…"):
                found = dry_run() if dry_run else estimate(here.root, wish)  # type: ignore[arg-type]
                st.session_state[f"{prefix}_estimate"] = (wish, found)
        except FacvizError as error:
            costs.error(str(error))
    known = st.session_state.get(f"{prefix}_estimate")
    is_known = known is not None and known[0] == wish
    if known is not None and is_known:
        with costs:
            _costs(known[1], wish, is_narrow=is_narrow)
    if wish.is_paid and not is_known:
        right.caption("Nothing paid is started before its cost stands here.")
    elif (right if wish.asks_model else costs).button(
        label, key=f"{prefix}_start", type="primary", icon=":material/play_arrow:", width="stretch"
    ):
        start(here.root, title=wish.title, page=page, arguments=wish.arguments)


def _costs(found: dict[str, Any], wish: Priced, *, is_narrow: bool) -> None:
    cells = cost_cells(found)
    if is_narrow:
        st.html(facts_html([(label, value) for label, value, _ in cells]))
    for column, (label, value, note) in zip(st.columns(len(cells)) if not is_narrow else (), cells):
        column.metric(label, value, help=note or None)
    if found.get("n_cached"):
        st.caption(f":material/inventory_2: {cells[0][2]}")
    usd = found.get("usd")
    if wish.is_paid and usd is not None and wish.budget_usd is not None and usd > wish.budget_usd:
        st.caption(":material/savings: It may stop at the budget; what was answered until then is kept.")


def estimate(root: Path, wish: Wish) -> dict[str, Any]:
    """A dry run in this process: reads, counts and sends nothing."""
    from facviz.config import BackboneConfig
    from facviz.pipeline import explaining, judging, scoring
    from facviz.pipeline.session import Session
    from facviz.protocols import NoProgress
    from facviz.store.workspace import open_workspace

    session = Session(open_workspace(root), BackboneConfig(), NoProgress())
    config: Any = from_mapping(_CONFIGS[wish.what], wish.settings, where="the form")
    if wish.what == "explain":
        return explaining.estimate(session, wish.sae_id, config)
    if wish.what == "score":
        return scoring.estimate(session, wish.sae_id, config)
    return judging.estimate(session, wish.sae_id, wish.task, config)


_ENTRY_HELP = "Explain, score or judge features, by counting words or by a language model; a dry run says the cost."
_EXCHANGE_HELP = "Features as HTML, JSON lines, CSV or FAC tables; reviewed tables back in, with conflicts listed."
_WHO_HELP = "A model’s words are shown only where they held better on unseen texts than counting words did."
_CANDIDATES_HELP = "Written from different spans; the one that holds best on unseen texts is kept."
_BATCH_HELP = "All requests are handed in together and answered within a day, mostly within an hour."
_BUDGET_HELP = "For this SAE and kind of job in all, over every run. It is never exceeded, whatever is killed."
