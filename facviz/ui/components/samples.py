"""Candidates to read and decide on: facets, cards with heat where asked for, approve, reject, undo, and the file."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from html import escape
from typing import Any

import streamlit as st

from facviz.errors import FacvizError
from facviz.pipeline.export_samples import FORMATS, MANIFEST, NEED_ANSWER, packed, sample_files
from facviz.store.events import candidate_of
from facviz.ui import resources
from facviz.ui.components.coverage import literal
from facviz.ui.frame import Here
from facviz.ui.state import query_text, set_query
from facviz.views.format import count
from facviz.views.heat import SpanRow, spans_html
from facviz.views.report import stakeholder_report
from facviz.views.samples import (
    PAGE_SIZE,
    Facet,
    Sample,
    Waiting,
    facets,
    pair_of,
    sample_page,
    unreviewed,
)
from facviz.views.synthesis import Closing, Run

HEAT = "fv_synthesis_heat"
_PROBLEM = "fv_synthesis_problem"
_SHOW = "fv_synthesis_show"
_PAGE = "fv_synthesis_page"
FORMAT_WORDS = {
    "messages": "Messages (JSON lines)",
    "sft": "Plain text for SFT (JSON lines)",
    "prompt-completion": "Prompt and completion (JSON lines)",
    "preference": "Preference: chosen and rejected (JSON lines)",
    "alpaca": "Alpaca (JSON lines)",
    "sharegpt": "ShareGPT (JSON lines)",
    "choices": "Questions with two options (JSON lines)",
    "tsv": "Text and label (TSV)",
    "parquet": "Parquet",
    "hf": "Hugging Face data set (ZIP)",
}
_LOOKS = {"approved": "fv-filled"}


def show_samples(here: Here, closed: Closing) -> None:
    """Every candidate of a coverage run, by what became of it."""
    run = closed.run
    found = facets(here.database, run["coverage_id"])
    if not found:
        return
    title, actions = st.columns([3, 4], vertical_alignment="bottom")
    title.subheader("The texts", anchor=False, help="Verified ones first; those turned down keep their reason.")
    with actions.container(horizontal=True, horizontal_alignment="right", vertical_alignment="bottom"):
        _bulk(here, run)
        _downloads(here, closed)
    facet = _facet(found)
    heat_toggle("Show where each text fires", HEAT)
    if problem := st.session_state.pop(_PROBLEM, ""):
        st.error(problem)
    n_pages = -(-facet.n // PAGE_SIZE)
    shown = sample_page(here.database, run, facet, min(st.session_state.get(_PAGE, 1), n_pages))
    first = next((s.candidate_id for s in shown if s.is_accepted and s.review == "unreviewed"), "")
    for sample in shown:
        _card(here, run, sample, has_keys=sample.candidate_id == first)
    if n_pages > 1:
        st.pagination(n_pages, key=_PAGE)
    if st.session_state.get(HEAT):
        _wait_for(encodings(here, run, shown))


def heat_toggle(label: str, key: str) -> bool:
    """Whether texts are read with the language model, which only a person's wish loads."""
    explanation = "Reads the texts with the language model on this machine; it takes a while to load the first time."
    return st.toggle(label, key=key, persist_state="session", help=explanation)


def _facet(found: Sequence[Facet]) -> Facet:
    by_key = {facet.key: facet for facet in found}
    asked = query_text("show")
    chosen = st.pills(
        "Show",
        list(by_key),
        default=asked if asked in by_key else found[0].key,
        required=True,
        format_func=lambda key: f"{literal(by_key[key].label)} {count(by_key[key].n)}",
        key=_SHOW,
        label_visibility="collapsed",
        on_change=_turn_to_first,
    )
    set_query(show=chosen if chosen != found[0].key else None)
    return by_key.get(chosen or "", found[0])


def _turn_to_first() -> None:
    st.session_state[_PAGE] = 1


def _card(here: Here, run: Run, sample: Sample, *, has_keys: bool) -> None:
    with st.container(border=True, key=f"fv_synthesis_card_{sample.candidate_id}"):
        st.html(sample_html(here, run, sample, heat=bool(st.session_state.get(HEAT))))
        with st.container(horizontal=True, vertical_alignment="center"):
            if sample.is_accepted:
                _decide(here, sample, has_keys=has_keys)
            _origin(here, sample)


def sample_html(here: Here, run: Run, sample: Sample, *, heat: bool) -> str:
    """Feature, text and measure as escaped HTML; with `heat` the tokens are marked once the text is encoded."""
    row = sample.row
    for future in encodings(here, run, [sample]) if heat else ():
        row = _heat_of(sample, future)
    body = spans_html([row], mode=here.mode, context="window", warn=here.blurred)
    look = _LOOKS.get(sample.review if sample.is_accepted else "", "fv-quiet")
    facts = f'{escape(sample.measure)} · <b class="{look}">{escape(sample.verdict)}</b>'
    return f'<b>{escape(sample.explanation)}</b>{body}<div class="fv-quiet">{facts}</div>'


def encodings(here: Here, run: Run, samples: Sequence[Sample]) -> list[Future[Any]]:
    """Token activations of these texts, on their way since the first call."""
    root = str(here.root)
    return [resources.encoded_text(root, run["sae_id"], s.text) for s in samples if s.text.strip()]


def _heat_of(sample: Sample, future: Future[Any]) -> SpanRow:
    is_ready = future.done() and future.exception() is None
    return sample.heat(future.result()) if is_ready else sample.row


def _wait_for(futures: Sequence[Future[Any]]) -> None:
    failed = [f.exception() for f in futures if f.done() and f.exception() is not None]
    if failed:
        st.caption(literal(str(failed[0])))
    elif not all(f.done() for f in futures):
        _until_done(futures)


@st.fragment(run_every="1s", key="fv_synthesis_encoding")
def _until_done(futures: Sequence[Future[Any]]) -> None:
    if all(f.done() for f in futures):
        st.rerun()
    st.caption(":material/hourglass_empty: Reading the texts with the language model …")


def _decide(here: Here, sample: Sample, *, has_keys: bool) -> None:
    key = sample.candidate_id
    if sample.review != "unreviewed":
        st.button("Undo", key=f"fv_synthesis_undo_{key}", icon=":material/undo:", on_click=_undo, args=(here, sample))
        return
    st.button(
        "Approve",
        key=f"fv_synthesis_approve_{key}",
        icon=":material/check:",
        shortcut="A" if has_keys else None,
        on_click=_record,
        args=(here, [sample], "approve"),
    )
    with st.popover("Reject", icon=":material/close:", key=f"fv_synthesis_popover_{key}"):
        why = f"fv_synthesis_why_{key}"
        st.text_input("Why", key=why, max_chars=200, placeholder="off topic, not fluent, unsafe … (optional)")
        st.button("Reject this text", key=f"fv_synthesis_reject_{key}", on_click=_reject, args=(here, sample, why))


def _origin(here: Here, sample: Sample) -> None:
    with st.popover("How it was made", key=f"fv_synthesis_origin_{sample.candidate_id}", type="tertiary"):
        st.caption(literal(sample.origin))
        st.page_link(
            "pages/feature.py",
            label=f"Feature {sample.feature_id}",
            icon=":material/arrow_forward:",
            query_params={"feature": str(sample.feature_id)},
        )
        pair = pair_of(here.database, sample)
        if pair is None:
            return
        st.caption(literal(pair.words))
        for name, text, act in (("Strong", pair.strong, pair.strong_act), ("Weak", pair.weak, pair.weak_act)):
            if text:
                st.caption(f"{name}, fires at {act}")
                st.text(text)
        if pair.strong:
            st.caption(f"Margin {pair.margin}")


def _bulk(here: Here, run: Run) -> None:
    waiting = unreviewed(here.database, run)
    if not waiting:
        return
    amount = f"{count(len(waiting))} {'text' if len(waiting) == 1 else 'texts'}"
    with st.popover("Decide on all", key="fv_synthesis_bulk"):
        st.caption(f"{amount} nobody decided on yet. Each can be undone.")
        for kind, words in (("approve", f"Approve {amount}"), ("reject", f"Reject {amount}")):
            st.button(
                words, key=f"fv_synthesis_{kind}_all", on_click=_record, args=(here, waiting, kind), width="stretch"
            )


def _downloads(here: Here, closed: Closing) -> None:
    """The verified texts in a format of choice, and the report."""
    with st.popover("Take the texts", icon=":material/download:", key="fv_synthesis_take"):
        name = st.selectbox("Format", list(FORMATS), format_func=FORMAT_WORDS.__getitem__, key="fv_synthesis_format")
        only_approved = st.toggle(
            "Only texts that a person approved", key="fv_synthesis_only_approved", disabled=not closed.n_approved
        )
        is_archive = name == "hf"
        st.download_button(
            "Download",
            data=lambda: _export(here, name, only_approved=only_approved),
            file_name=f"samples{'.zip' if is_archive else FORMATS[name]}",
            mime="application/zip" if is_archive else "application/octet-stream",
            key="fv_synthesis_download",
            icon=":material/download:",
            on_click="ignore",
            disabled=closed.n_accepted == closed.n_rejected or not _has_format(here, name, only_approved=only_approved),
            help="All verified texts of this workspace that nobody rejected, each with where it comes from: what "
            f"`facviz export samples --format {name}` writes.",
            width="stretch",
        )
        if not _has_format(here, name, only_approved=only_approved):
            st.caption(_why_not(here, name, only_approved=only_approved))
        st.download_button(
            "Report for others",
            data=lambda: _report(here, closed.run),
            file_name="facviz-report.html",
            mime="text/html",
            key="fv_synthesis_report",
            icon=":material/summarize:",
            on_click="ignore",
            help="One page that opens anywhere: the gap, the texts, before and after, method and limits.",
            width="stretch",
        )


def _export(here: Here, name: str, *, only_approved: bool) -> bytes:
    files, _ = sample_files(here.database, name, only_approved=only_approved)
    if name == "hf":
        return packed(files)
    return next(content for file, content in files.items() if file != MANIFEST)


def _why_not(here: Here, name: str, *, only_approved: bool) -> str:
    try:
        sample_files(here.database, name, only_approved=only_approved)
    except FacvizError as error:
        return literal(str(error))
    return ""


def _has_format(here: Here, name: str, *, only_approved: bool) -> bool:
    """Whether anything fits; only formats that need an answer can lack it."""
    return name not in NEED_ANSWER or not _why_not(here, name, only_approved=only_approved)


def _report(here: Here, run: Run) -> str:
    page, _ = stakeholder_report(here.database, here.database.workspace.manifest, run["coverage_id"])
    return page


def _record(here: Here, samples: Sequence[Sample | Waiting], kind: str, reason: str = "") -> None:
    payload = {"reason": reason} if reason else None
    try:
        for sample in samples:
            here.database.record(here.reviewer, candidate_of(sample.candidate_id), kind, payload, seen=sample.event_id)
    except FacvizError as error:
        st.session_state[_PROBLEM] = str(error)


def _reject(here: Here, sample: Sample, why: str) -> None:
    _record(here, [sample], "reject", str(st.session_state.get(why, "")).strip())


def _undo(here: Here, sample: Sample) -> None:
    try:
        here.database.undo(here.reviewer, candidate_of(sample.candidate_id))
    except FacvizError as error:
        st.session_state[_PROBLEM] = str(error)
