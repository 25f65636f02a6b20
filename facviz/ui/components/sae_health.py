"""Whether the chosen SAE fits its model: verdict, reason, FVU by layer and template; and what it preserves."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from facviz.jobs import Job
from facviz.ui.frame import Here
from facviz.views.format import count, number, percent, short, visible
from facviz.views.plot import CONFIG
from facviz.views.sae import SaeRow
from facviz.views.sae_charts import fit_chart
from facviz.views.sae_quality import BADGES, Evaluation, Fit, fit_of, newest, probing_table


def health(here: Here, row: SaeRow, evaluations: Sequence[Evaluation], jobs: Sequence[Job]) -> None:
    """The verdict as words and icon, its sentence, and the evidence; before any check at most why there was none."""
    fit = fit_of(evaluations)
    if fit is None:
        if note := _why_unchecked(row, jobs):
            st.caption(f"Not checked whether it fits the model: {_plain(short(note, 300))}")
        return
    with st.container(border=True, key="fv_sae_health"):
        icon = BADGES.get(fit.verdict, ("", ":material/help:"))[1]
        title = {"fits": "Fits the model", "plausible": "Plausible"}.get(fit.verdict, "Does not fit the model")
        st.markdown(f"{icon} **{title}**", help=_HELP)
        st.html(f'<div dir="auto">{escape(visible(short(fit.sentence, 600)))}</div>')
        if fit.table:
            with st.expander(
                "FVU by layer and template", key=f"fv_sae_fit_{row.sae_id}", expanded=fit.verdict != "fits"
            ):
                _evidence(here, fit)


def preserved(evaluations: Sequence[Evaluation]) -> None:
    """What the model loses with the SAE spliced in, and what probes read from its features; nothing unless measured."""
    found = newest(evaluations, "fidelity")
    if found is not None:
        m = found.measures
        st.markdown("**What the model loses with it spliced in**", help=_LOSS_HELP)
        for column, (label, value) in zip(
            st.columns(3),
            (
                ("ΔCE, nats", number(m.get("delta_ce"))),
                ("CE score, zero", percent(m.get("ce_score_zero"))),
                ("CE score, mean", percent(m.get("ce_score_mean"))),
            ),
        ):
            column.metric(label, value)
        st.caption(f"On {count(m.get('n_tokens'))} content tokens of {_plain(found.dataset)}.")
    if table := probing_table(evaluations):
        st.markdown("**What a few features tell of the labels**", help=_PROBING_HELP)
        st.dataframe(
            table, key="fv_sae_probing", width="stretch", hide_index=True, alt="Accuracy of sparse probes by label"
        )


def _why_unchecked(row: SaeRow, jobs: Sequence[Job]) -> str:
    """What loading said of a check that it left out; empty when it said nothing."""
    loads = (j.result for j in jobs if j.arguments[:2] == ("sae", "load") and j.result)
    return next((str(r.get("health_note") or "") for r in loads if r.get("sae_id") == row.sae_id), "")


def _evidence(here: Here, fit: Fit) -> None:
    lowest = fit.table[0]
    alt = f"FVU by layer and template: lowest {number(lowest.fvu)} at {lowest.name}"
    st.plotly_chart(
        fit_chart(fit.table, here.mode), theme=None, width="stretch", key="fv_sae_fit_chart", config=CONFIG, alt=alt
    )
    tokens = f"{count(fit.n_tokens)} content tokens" if fit.n_tokens else "The same content tokens"
    st.caption(f"{tokens} of {_plain(fit.dataset)}, read at each layer. The line is a 95 % interval over documents.")


def _plain(text: str) -> str:
    """A name for a Markdown place."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|<>~$:" else c for c in text) or "held-out texts"


_HELP = (
    "Ranks the SAE's FVU at this layer against the layers around it, with the chat template and without, on the same "
    "tokens. It fits when nothing near is better and the FVU is at most 1.25 times the recorded one; without a record "
    "it is plausible."
)
_LOSS_HELP = (
    "Cross-entropy of the model on content tokens with the SAE's reconstruction in place of its activations, minus "
    "without. The score is the share kept of what zeros, or the mean activation, in that place would lose."
)
_PROBING_HELP = "Accuracy of logistic probes on the k best features; compare with guessing and with text length alone."
