"""The block of scores on the feature page: what was measured of the explanation shown, and scoring it in a click."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from facviz.jobs import list_jobs
from facviz.llm.providers import set_up
from facviz.ui.components.explain_forms import cost_and_start
from facviz.ui.components.jobs import start, watch
from facviz.ui.frame import Here
from facviz.views.decisions import Said
from facviz.views.explain_jobs import PROVIDERS, Wish
from facviz.views.palette import palette
from facviz.views.scope import Looked
from facviz.views.scores import KINDS, Scores, read_scores, scores_html

PAGE = "feature"
JUDGED = ("detection", "fuzzing", "intruder")
_MODEL_HELP = "Another than the explainer’s is the harder test; both are named beside the score."


def show_scores(here: Here, looked: Looked, feature_id: int, said: Said) -> None:
    """Scores with their baselines, and the buttons that measure them; nothing without an explanation or a score."""
    scores = read_scores(here.database, looked.sae_id, feature_id)
    if not scores.rows and not said.is_explained:
        return
    with st.container(key="fv_scores", gap="small"):
        st.markdown("**How well it holds**", help="On texts of the other half of the corpus, which no explainer saw.")
        if scores.rows:
            st.html(_style(here) + scores_html(scores))
        if scores.is_stale:
            st.caption("The words have changed since; score them again.")
        _buttons(here, looked, feature_id, scores, said)
        newest = next((job for job in list_jobs(here.root) if job.page == PAGE), None)
        if newest is not None and f"--features={feature_id}" in newest.arguments:
            watch(here.root, PAGE)


def _buttons(here: Here, looked: Looked, feature_id: int, scores: Scores, said: Said) -> None:
    key = f"{looked.sae_id}_{feature_id}"
    providers = [name for name, is_set in set_up().items() if is_set]
    with st.container(horizontal=True, gap="small"):
        has_similarity = any(row.kind == "embedding" and row.is_current for row in scores.rows)
        words = "Score again" if scores.rows else "Score it"
        if said.is_explained and st.button(
            words,
            key=f"fv_score_{key}",
            icon=":material/speed:",
            disabled=has_similarity,
            help="Similarity of held-out texts; needs no language model and costs nothing.",
        ):
            wish = _wish(looked, feature_id, ("embedding",))
            start(here.root, title=f"Score feature {feature_id}", page=PAGE, arguments=wish.arguments)
        if providers:
            with st.popover("Ask a judge", key=f"fv_judge_{key}", icon=":material/gavel:"):
                _judge(here, looked, feature_id, said, providers[0])


def _judge(here: Here, looked: Looked, feature_id: int, said: Said, provider: str) -> None:
    usable = JUDGED if said.is_explained else ("intruder",)
    kinds = st.pills(
        "Questions",
        usable,
        default=list(usable),
        selection_mode="multi",
        format_func=lambda kind: KINDS[kind],
        key=f"fv_judge_kinds_{feature_id}",
    )
    model = st.text_input("Model", placeholder="the provider’s default", key="fv_judge_model", help=_MODEL_HELP)
    budget = st.number_input(
        "At most, in US dollars", 0.01, 100.0, 0.25, 0.05, key="fv_judge_budget", help="For this SAE’s scores in all."
    )
    st.caption(f"Sends held-out texts of this feature to {PROVIDERS[provider]}.")
    wish = _wish(looked, feature_id, tuple(kinds))
    if kinds:
        named = replace(wish, provider=provider, model=model.strip(), budget_usd=float(budget))
        cost_and_start(here, named, PAGE)


def _wish(looked: Looked, feature_id: int, kinds: tuple[str, ...]) -> Wish:
    """`facviz score` of one feature."""
    return Wish("score", looked.sae_id, looked.dataset.name, "local", ids=(feature_id,), kinds=kinds)


def _style(here: Here) -> str:
    colours = palette(here.mode)
    return f"""<style>
.fv-score{{display:grid;grid-template-columns:5.2rem minmax(90px,1fr) 8.2rem;column-gap:12px;align-items:center;
padding:3px 0}}
.fv-score-name{{font-size:.9rem}}
.fv-score-value{{font-size:.9rem;font-variant-numeric:tabular-nums;text-align:right;white-space:nowrap}}
.fv-score-notes{{grid-column:2 / 4;overflow-wrap:anywhere}}
.fv-score-old{{opacity:.55}}
.fv-score-bar{{position:relative;height:14px;border-radius:7px;background:{colours.hairline};display:block}}
.fv-score-bar i{{position:absolute;display:block}}
.fv-score-interval{{top:5px;height:4px;border-radius:2px;background:{colours.muted}}}
.fv-score-chance{{top:0;height:14px;width:1px;background:{colours.ink}}}
.fv-score-dot{{top:2px;height:10px;width:10px;margin-left:-5px;border-radius:5px;background:{colours.ink}}}
.fv-score-shuffled{{top:3px;height:7px;width:7px;margin-left:-4px;transform:rotate(45deg);
border:1px solid {colours.ink};background:{colours.surface}}}
.fv-score-legend{{padding-top:2px}}
</style>"""
