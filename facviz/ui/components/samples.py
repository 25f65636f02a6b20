"""Candidates to read and decide on: by feature and by what became of them, many at once, strategies, and the file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from facviz.errors import FacvizError
from facviz.pipeline.export_samples import FORMATS, NEED_ANSWER, packed, sample_files
from facviz.store.deciding import Choice
from facviz.store.events import candidate_of
from facviz.ui import state
from facviz.ui.components.address import follow
from facviz.ui.components.coverage import literal
from facviz.ui.components.decisions import say
from facviz.ui.components.keys import listen
from facviz.ui.components.sample_desk import EDIT_KEY, HELP_KEY, TEXT_KEY, Desk, show_desk
from facviz.ui.components.sample_text import kept_away
from facviz.ui.frame import Here
from facviz.ui.state import query_text
from facviz.views.candidate import compare_strategies, compared_html
from facviz.views.format import count, count_of, short, visible
from facviz.views.missing import explanations
from facviz.views.report import stakeholder_report
from facviz.views.samples import (
    PAGE_SIZE,
    Facet,
    Sample,
    facets,
    find_place,
    read_sample,
    sample_page,
    tally_html,
    tried_features,
    unreviewed,
)
from facviz.views.synthesis import Closing, Run

MAX_BULK, PREVIEWED = 1000, 8
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


def show_samples(here: Here, closed: Closing) -> None:
    """Every candidate of a coverage run, one at a time in its list."""
    run = closed.run
    feature_id = _feature(here, run)
    found = facets(here.database, run["coverage_id"], feature_id)
    if not found:
        st.caption("Nothing was written yet; choose features under “Write”.")
        return
    st.html(tally_html(found, here.mode))
    facet = _facet(found)
    place = find_place(here.database, run, facet, query_text("candidate"))
    sample = read_sample(here.database, run, place.candidate_id) if place is not None else None
    if place is not None and sample is not None:
        show_desk(Desk(here, run, facet, place, sample))
    _list(here, run, facet)
    _strategies(here, run, feature_id)
    listen(HELP_KEY, state.given_name(), state.set_reviewer, opens=EDIT_KEY, field=TEXT_KEY)


def sample_actions(here: Here, closed: Closing) -> None:
    """Deciding on many, and taking the texts away."""
    _bulk(here, closed.run)
    _downloads(here, closed)


def _feature(here: Here, run: Run) -> int | None:
    ids = tried_features(here.database, run["coverage_id"])
    words = explanations(here.database, run["sae_id"], ids)
    asked = state.query_int("of")
    value = str(asked) if asked in words else ""
    chosen = st.selectbox(
        "Feature",
        ["", *map(str, ids)],
        format_func=lambda f: f"{short(words[int(f)], 80)} ({f})" if f else f"All {count(len(ids))} features",
        label_visibility="collapsed",
        width=420,
        **follow("fv_synthesis_of", "of", value, resets=("candidate", "show")),
    )
    return int(chosen) if chosen else None


def _facet(found: Sequence[Facet]) -> Facet:
    by_key = {facet.key: facet for facet in found}
    asked = query_text("show")
    chosen = st.pills(
        "Show",
        list(by_key),
        required=True,
        format_func=lambda key: f"{literal(by_key[key].label)} {count(by_key[key].n)}",
        label_visibility="collapsed",
        **follow(
            "fv_synthesis_show",
            "show",
            asked if asked in by_key else found[0].key,
            default=found[0].key,
            resets=("candidate", "list_page"),
        ),
    )
    return by_key.get(chosen or "", found[0])


def _list(here: Here, run: Run, facet: Facet) -> None:
    listed = st.expander(f"All {count(facet.n)} of this list", key="fv_synthesis_list", on_change="rerun")
    if not listed.open:
        return
    with listed:
        n_pages = -(-facet.n // PAGE_SIZE)
        page = min(state.query_int("list_page") or 1, n_pages)
        for sample in sample_page(here.database, run, facet, page):
            _line(here, sample)
        if n_pages > 1:
            key = f"fv_synthesis_list_page_{page}_{n_pages}"
            st.pagination(n_pages, default=page, key=key, on_change=_turn_to, args=(key,))


def _line(here: Here, sample: Sample) -> None:
    left, right = st.columns([1, 22], vertical_alignment="center")
    left.button(
        "",
        icon=":material/open_in_full:",
        key=f"fv_synthesis_open_{sample.candidate_id}",
        type="tertiary",
        help="Read this one above",
        on_click=_open,
        args=(sample.candidate_id,),
    )
    facts = f"{sample.explanation} · {sample.share} · {sample.verdict}"
    text = kept_away(here, escape(visible(short(sample.text, 160))))
    right.html(f'<div dir="auto">{text}<div class="fv-quiet">{escape(visible(facts))}</div></div>')


def _open(candidate_id: str) -> None:
    state.set_query(candidate=candidate_id)


def _turn_to(key: str) -> None:
    page = st.session_state[key]
    state.set_query(list_page=page if page > 1 else None)


def _strategies(here: Here, run: Run, feature_id: int | None) -> None:
    found = compare_strategies(here.database, run, feature_id)
    if len(found) < 2:
        return
    with st.expander(f"{count(len(found))} runs compared", key="fv_synthesis_compared"):
        st.html(compared_html(found))


def _bulk(here: Here, run: Run) -> None:
    feature_id = state.query_int("of")
    waiting = unreviewed(here.database, run, feature_id)
    if st.button(
        "Decide on many",
        key="fv_synthesis_bulk",
        shortcut="B",
        disabled=not waiting,
        help="Approve or reject all that nobody decided on, in one step that one undo takes back.",
    ):
        _decide_on_many(here, run, feature_id)


@st.dialog("Decide on many", width="medium")
def _decide_on_many(here: Here, run: Run, feature_id: int | None) -> None:
    waiting = unreviewed(here.database, run, feature_id)[:MAX_BULK]
    st.caption("Everything below is decided in one step, in your name; one undo takes all of it back.")
    kept = [read_sample(here.database, run, w.candidate_id) for w in waiting[:PREVIEWED]]
    lines = [
        f'<div style="display:flex;gap:12px;padding:2px 0"><span dir="auto" style="flex:1">'
        f'{escape(visible(short(s.text, 110)))}</span><span class="fv-quiet">{escape(s.share)}</span></div>'
        for s in kept
        if s is not None
    ]
    st.html(kept_away(here, "".join(lines)) or '<span class="fv-quiet">Nothing waits any more.</span>')
    if len(waiting) > PREVIEWED:
        st.caption(f"and {count(len(waiting) - PREVIEWED)} more")
    amount = count_of(len(waiting), "text")
    choices = [(w.candidate_id, w.event_id) for w in waiting]
    with st.container(horizontal=True, gap="small"):
        for kind, words in (("approve", f"Approve {amount}"), ("reject", f"Reject {amount}")):
            if st.button(
                words,
                key=f"fv_synthesis_{kind}_all",
                type="primary" if kind == "approve" else "secondary",
                disabled=not waiting,
                on_click=_record_many,
                args=(here, choices, kind),
            ):
                st.rerun()  # which closes the dialog


def _record_many(here: Here, waiting: Sequence[tuple[str, str]], kind: str) -> None:
    payload = {"bulk": {"n": len(waiting)}}
    choices = [Choice(candidate_of(candidate_id), kind, payload, seen) for candidate_id, seen in waiting]
    try:
        here.database.record_many(here.reviewer, choices)
    except FacvizError as error:
        say(str(error))
        return
    state.set_query(candidate=None)
    done = {"approve": "approved", "reject": "rejected"}[kind]
    st.toast(f"{count_of(len(choices), 'text')} {done}; U takes all of them back", icon=":material/done_all:")


def _downloads(here: Here, closed: Closing) -> None:
    """The verified texts in a format of choice, and the report."""
    with st.popover("Take the texts", icon=":material/download:", key="fv_synthesis_take"):
        name = st.selectbox("Format", list(FORMATS), format_func=FORMAT_WORDS.__getitem__, key="fv_synthesis_format")
        only_approved = st.toggle(
            "Only texts that a person approved",
            key="fv_synthesis_only_approved",
            disabled=not closed.n_approved + closed.n_edited,
            help="Or edited, and which verified again.",
        )
        st.download_button(
            "Download",
            data=lambda: _export(here, name, only_approved=only_approved),
            file_name="samples.zip",
            mime="application/zip",
            key="fv_synthesis_download",
            icon=":material/download:",
            on_click="ignore",
            disabled=closed.n_accepted == closed.n_rejected or not _has_format(here, name, only_approved=only_approved),
            help="All verified texts of this workspace that nobody rejected, each with where it comes from, "
            f"and a manifest with checksums: what `facviz export samples --format {name}` writes.",
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
    return packed(files)


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
