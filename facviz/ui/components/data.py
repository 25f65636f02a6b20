"""What the data page draws of data sets that are there: the table, and one of them in detail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from facviz.ui.components.address import follow
from facviz.ui.frame import Here
from facviz.ui.resources import text_key
from facviz.ui.state import query_text, set_query
from facviz.views.data import (
    DatasetDetail,
    DatasetRow,
    Datasets,
    documents_html,
    label_chart,
    length_chart,
    read_detail,
    read_documents,
    read_dropped,
)
from facviz.views.facts import facts_html
from facviz.views.format import count

_NO_LABEL, _UNLABELLED = "no label", "none"
_MAX_LABELS = 100
_ROLES = {"anchor": "anchor set", "seed": "seed set", "eval": "evaluation"}
_CONFIG = {"displayModeBar": False}


def metrics(datasets: Datasets) -> None:
    """What there is in all."""
    sets, docs, tokens, left_out = st.columns(4)
    sets.metric("Data sets", count(len(datasets.rows)))
    docs.metric("Documents", datasets.n_docs)
    tokens.metric("Content tokens", datasets.n_content_tokens, help="Tokens of what people wrote; no template tokens.")
    left_out.metric("Rows left out", datasets.n_left_out, help="Duplicates, and rows that could not become a document.")


def table(datasets: Datasets) -> DatasetRow:
    """All data sets; the chosen one, which the address remembers."""
    names = [row.name for row in datasets.rows]
    current = query_text("dataset")
    chosen = names.index(current) if current in names else 0
    found = st.dataframe(
        [_cells(row) for row in datasets.rows],
        key="fv_data_table",
        width="stretch",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row-required",
        selection_default={"selection": {"rows": [chosen], "columns": [], "cells": []}},
        column_config=_columns(),
        alt="Data sets with role, documents, content tokens, duplicates, dropped rows, licence and source",
    )
    rows = found["selection"]["rows"]
    index = rows[0] if rows and rows[0] < len(names) else chosen
    if rows and names[index] != current:
        set_query(dataset=names[index])
    return datasets.rows[index]


def detail(here: Here, row: DatasetRow) -> None:
    """One data set: documents to read, labels and lengths, what was left out, and what has read it."""
    found = read_detail(here.database, here.database.workspace.manifest, here.root, row)
    st.subheader(row.name, anchor=False, divider=False)
    texts, shape = st.columns([3, 2], gap="large")
    with texts:
        _documents(here, row, found)
    with shape:
        _shape(found, here)
        _facts(found)
    if row.n_dropped or row.n_duplicates:
        _left_out(row, found)


def _cells(row: DatasetRow) -> dict[str, object]:
    role = _ROLES.get(row.role, row.role or "–")
    numbers = (row.n_docs, row.n_content_tokens, row.n_duplicates, row.n_dropped)
    names = ("Documents", "Content tokens", "Duplicates", "Dropped")
    return {"Data set": row.name, "Role": role, **dict(zip(names, numbers)), **_origin(row)}


def _origin(row: DatasetRow) -> dict[str, str]:
    return {"Licence": row.licence or "–", "Source": row.source or row.mapping or "–"}


def _columns() -> dict[str, Any]:
    numbers = ("Documents", "Content tokens", "Duplicates", "Dropped")
    return {name: st.column_config.NumberColumn(format="localized") for name in numbers}


def _documents(here: Here, row: DatasetRow, found: DatasetDetail) -> None:
    left, right = st.columns([3, 2])
    asked = query_text("search")
    search = left.text_input(
        "Search in the texts",
        max_chars=200,
        placeholder="words as they stand",
        icon=":material/search:",
        **follow("fv_data_search", "search", asked),
    )
    labels = {f"={label}" if label else _UNLABELLED: f"{label or _NO_LABEL} ({count(n)})" for label, n in found.labels}
    asked_label = query_text("label")
    label = right.selectbox(
        "Label",
        ["", *list(labels)[:_MAX_LABELS]],
        format_func=lambda x: labels.get(x, "all"),
        disabled=len(labels) < 2,
        **follow("fv_data_label", "label", asked_label if asked_label in list(labels)[:_MAX_LABELS] else ""),
    )
    wanted = None if not label else "" if label == _UNLABELLED else label[1:]
    key = f"fv_data_page_{text_key(row.dataset_id, search, label)}"
    page = read_documents(here.database, row.dataset_id, label=wanted, search=search, page=_page(key))
    st.caption(f"{count(page.n_matches)} of {count(row.n_docs)} documents" + " match" * (page.n_matches < row.n_docs))
    if page.documents:
        st.html(documents_html(page.documents, here.mode, blurred=here.blurred))
    if page.n_pages > 1:
        st.pagination(page.n_pages, key=key, max_visible_pages=5)


def _page(key: str) -> int:
    return int(st.session_state.get(key, 1) or 1)


def _shape(found: DatasetDetail, here: Here) -> None:
    if len(found.labels) > 1:
        st.markdown("**Labels**")
        alt = ", ".join(f"{label or _NO_LABEL} {count(n)}" for label, n in found.labels[:12])
        figure = label_chart(found.labels, here.mode)
        st.plotly_chart(
            figure, theme=None, width="stretch", key="fv_data_labels", config=_CONFIG, alt=f"Documents by label: {alt}"
        )
    st.markdown("**Lengths**")
    if found.lengths:
        low, high = found.lengths[0][0], found.lengths[-1][0]
        st.plotly_chart(
            length_chart(found.lengths, here.mode),
            theme=None,
            width="stretch",
            key="fv_data_lengths",
            config=_CONFIG,
            alt=f"Documents by content tokens, from {count(low)} to {count(high)}",
        )


def _facts(found: DatasetDetail) -> None:
    st.markdown("**About**")
    reads = [(f"Read by SAE {sae[:6]}", f"{fires} features fire") for sae, fires, _ in found.encoded]
    st.html(facts_html([*found.facts, *(reads or [("Read by", "no SAE yet")])]))


def _left_out(row: DatasetRow, found: DatasetDetail) -> None:
    st.subheader("Left out", anchor=False)
    reasons = [f"{count(n)} {reason}" for reason, n in found.dropped_by_reason]
    duplicates = [f"{count(row.n_duplicates)} duplicates"] if row.n_duplicates else []
    st.text(" · ".join([*duplicates, *reasons]))
    if found.dropped_file is None:
        return
    path: Path = found.dropped_file
    st.dataframe(
        read_dropped(path),
        key="fv_data_dropped",
        width="stretch",
        hide_index=True,
        height=260,
        alt="Rows that became no document, with the reason and their beginning",
    )
    st.download_button(
        "Download all left-out rows",
        data=path.read_bytes,
        file_name=path.name,
        mime="application/jsonl",
        key="fv_data_dropped_file",
        icon=":material/download:",
        on_click="ignore",
    )
