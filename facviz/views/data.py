"""Data sets as people compare them: sizes, labels, lengths, documents to read, and what was left out and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from facviz.records import Document, DroppedRow
from facviz.store.manifest import Manifest
from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.views.format import count, number, short, visible
from facviz.views.heat import heat_style
from facviz.views.palette import Mode, palette
from facviz.views.plot import add_bins, new_figure, plain

PAGE_DOCS = 6
MAX_CHARS = 1500
MAX_LABELS = 12
MAX_DROPPED = 200
MAX_MESSAGES = 8

_LABEL_PX = 128
_FEW_TOKENS = 10

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One line of the table; numbers stay numbers, so that the table can sort them."""

    name: str
    role: str
    n_docs: int
    n_content_tokens: int
    n_duplicates: int
    n_dropped: int
    licence: str
    source: str
    mapping: str
    dataset_id: str


@dataclass(frozen=True, slots=True)
class Datasets:
    """All of them, with the totals of the page's metrics."""

    rows: tuple[DatasetRow, ...]
    n_docs: str
    n_content_tokens: str
    n_left_out: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One document to read."""

    messages: tuple[tuple[str, str], ...]
    label: str
    note: str


@dataclass(frozen=True, slots=True)
class DatasetDetail:
    """What is known of one dataset beside its documents."""

    labels: tuple[tuple[str, int], ...]  # ("", n) for documents without one
    lengths: tuple[tuple[int, int], ...]  # content tokens, documents
    facts: tuple[tuple[str, str], ...]
    encoded: tuple[tuple[str, str, str], ...]  # SAE, features that fire, always-on
    dropped_by_reason: tuple[tuple[str, int], ...]
    dropped_file: Path | None


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """A page of matching documents and how many match in all."""

    documents: tuple[Shown, ...]
    n_matches: int
    n_pages: int


def list_datasets(queries: Queries) -> Datasets:
    """Every dataset in the order it was added."""
    rows = [_dataset_row(row) for row in queries.rows("datasets")]
    return Datasets(
        rows=tuple(rows),
        n_docs=count(sum(r.n_docs for r in rows)),
        n_content_tokens=count(sum(r.n_content_tokens for r in rows)),
        n_left_out=count(sum(r.n_duplicates + r.n_dropped for r in rows)),
    )


def read_detail(queries: Queries, manifest: Manifest, root: Path, row: DatasetRow) -> DatasetDetail:
    """Labels, lengths, encodings and left-out rows of one dataset."""
    summary = manifest.latest_done("data").get(row.name, {})
    counted = queries.rows("label_counts", dataset_id=row.dataset_id)
    lengths = queries.rows("length_counts", dataset_id=row.dataset_id)
    encoded = [r for r in queries.rows("encoded_datasets", mode=MODE) if r["dataset_id"] == row.dataset_id]
    reasons = summary.get("dropped_by_reason") or {}
    return DatasetDetail(
        labels=tuple((r["label"] or "", r["n_docs"]) for r in counted),
        lengths=tuple((r["n_content_tokens"], r["n_docs"]) for r in lengths),
        facts=_facts(row, summary),
        encoded=tuple(
            (r["sae_id"], f"{count(r['n_active'])} of {count(r['n_features'])}", count(r["n_always_on"]))
            for r in encoded
        ),
        dropped_by_reason=tuple(sorted(reasons.items(), key=lambda item: -item[1])),
        dropped_file=_dropped_file(root, row.name),
    )


def read_documents(
    queries: Queries, dataset_id: str, *, label: str | None = None, search: str = "", page: int = 1
) -> DocumentPage:
    """The documents that hold `search` in any letter case; `label` "" means those without one, None all."""
    wanted = {"dataset_id": dataset_id, "label": label, "search": search or None}
    found = queries.rows("document_matches", **wanted)
    n_matches = found[0]["n_docs"] if found else 0
    n_pages = max(1, -(-n_matches // PAGE_DOCS))
    offset = (min(max(page, 1), n_pages) - 1) * PAGE_DOCS
    rows = queries.rows("document_page", **wanted, n=PAGE_DOCS, offset=offset)
    return DocumentPage(tuple(map(_shown, rows)), n_matches, n_pages)


def show_document(document: Document) -> Shown:
    """A document of a preview, before it has a number."""
    messages = tuple((m.role, m.content) for m in document.messages[:MAX_MESSAGES])
    return Shown(messages, document.label or "", _left_out(len(document.messages), len(document.text)))


def read_dropped(path: Path, n: int = MAX_DROPPED) -> list[dict[str, Any]]:
    """The first rows that became no document, as records ready for a table."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        entries = [_entry(line) for line in islice(lines, n)]
    return [dropped_record(**e) for e in entries if e is not None]


def dropped_record(row: object, reason: object, excerpt: object, file: object = "") -> dict[str, Any]:
    """One line of the table of left-out rows, bounded."""
    record = {"Row": row, "Reason": short(str(reason), 80), "Beginning": short(str(excerpt), 160)}
    return {"File": short(str(file), 80), **record} if file else record


def dropped_records(dropped: Sequence[DroppedRow]) -> list[dict[str, Any]]:
    """The same for rows of a preview."""
    return [dropped_record(d.row, d.reason, d.excerpt, d.file) for d in dropped]


def documents_html(documents: Sequence[Shown], mode: Mode, *, blurred: bool) -> str:
    """Documents as escaped rows, who speaks before each message; `blurred` until a row is pointed at."""
    longest = max((len(document.label) for document in documents), default=0)
    width = min(_LABEL_PX, 26 + 8 * longest)
    body = "".join(_document_html(document, width, blurred) for document in documents)
    return f'<div class="fv-spans{" fv-warn" * blurred}">{heat_style(mode)}{body}</div>'


def label_chart(labels: Sequence[tuple[str, int]], mode: Mode) -> go.Figure:
    """Documents by label as bars, the largest on top; beyond 12 the rest summed in the last."""
    shown = [(plain(label, 24) if label else "no label", n) for label, n in labels[:MAX_LABELS]]
    if rest := labels[MAX_LABELS:]:
        shown.append((f"{count(len(rest))} more", sum(n for _, n in rest)))
    figure, colours = new_figure(mode, 60 + 26 * max(1, len(shown))), palette(mode)
    figure.add_bar(
        orientation="h",
        x=[n for _, n in shown],
        y=list(range(len(shown))),
        text=[count(n) for _, n in shown],
        textposition="outside",
        cliponaxis=False,
        marker={"color": colours.covered},
        hovertext=[f"{label}<br>{count(n)} documents" for label, n in shown],
        hoverinfo="text",
    )
    figure.update_layout(margin={"t": 8, "r": 56})
    figure.update_xaxes(title_text="documents", rangemode="tozero", tickformat=",", nticks=5)
    ticks = {"tickvals": list(range(len(shown))), "ticktext": [label for label, _ in shown]}
    figure.update_yaxes(**ticks, showgrid=False, ticklabelstandoff=6, range=[max(1, len(shown)) - 0.5, -0.5])
    return figure


def length_chart(lengths: Sequence[tuple[int, int]], mode: Mode) -> go.Figure:
    """Documents by content tokens, in at most 40 bins of whole tokens."""
    tokens = np.array([n for n, _ in lengths], np.int64)
    weights = np.array([n for _, n in lengths], np.int64)
    width = max(1, -(-int(tokens.max() - tokens.min() + 1) // 40))
    edges = np.arange(int(tokens.min()), int(tokens.max()) + width + 1, width)
    counts = np.histogram(tokens, edges, weights=weights)[0].astype(int)
    hover = [f"{_bin_words(int(low), width)}<br>{count(n)} documents" for low, n in zip(edges, counts)]
    figure, colours = new_figure(mode, 240), palette(mode)
    add_bins(figure, edges - 0.5, counts, colours.covered, hover)
    figure.update_layout(margin_t=8)
    ticks = {"dtick": 1} if edges[-1] - edges[0] < _FEW_TOKENS else {}
    figure.update_xaxes(title_text="content tokens of a document", tickformat=",", **ticks)
    figure.update_yaxes(title_text="documents", tickformat=",", rangemode="tozero")
    return figure


def _bin_words(low: int, width: int) -> str:
    return f"{count(low)} tokens" if width == 1 else f"{count(low)} to {count(low + width - 1)} tokens"


def _dataset_row(row: Row) -> DatasetRow:
    numbers = ("n_docs", "n_content_tokens", "n_duplicates", "n_dropped")
    words = ("role", "licence", "source", "mapping")
    return DatasetRow(
        name=row["name"],
        dataset_id=row["dataset_id"],
        **{n: int(row[n] or 0) for n in numbers},  # type: ignore[arg-type]
        **{w: row[w] or "" for w in words},  # type: ignore[arg-type]
    )


def _facts(row: DatasetRow, summary: Row) -> tuple[tuple[str, str], ...]:
    """Name and value of what the tables and the import's own report say; what nobody measured is left out."""
    facts = [("How rows are read", row.mapping), ("Source", row.source), ("Licence", row.licence)]
    if summary.get("median_tokens") is not None:
        lengths = f"median {number(summary['median_tokens'])}, longest {count(summary['max_tokens'])} content tokens"
        facts.append(("Length", lengths))
    if summary.get("n_files", 0) > 1:
        facts.append(("Files", count(summary["n_files"])))
    if skipped := summary.get("skipped_files"):
        facts.append(("Files not read", ", ".join(f"{reason} {count(n)}" for reason, n in skipped.items())))
    if summary.get("n_label_conflicts"):
        facts.append(("Equal texts with different labels", count(summary["n_label_conflicts"])))
    return tuple((name, short(value, 300)) for name, value in facts if value)


def _dropped_file(root: Path, name: str) -> Path | None:
    """The import's list of left-out rows; a name that is no plain file name has none."""
    path = root / "datasets" / f"{name}-dropped.jsonl"
    return path if Path(name).name == name and path.is_file() else None


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    known = ("row", "reason", "excerpt", "file")
    return {k: entry.get(k, "") for k in known} if isinstance(entry, dict) else None


def _shown(row: Row) -> Shown:
    messages = tuple((m["role"], m["content"]) for m in row["messages"])
    note = f"text {count(row['doc_no'] + 1)} · {count(row['n_content_tokens'])} content tokens"
    rest = _left_out(row["n_messages"], row["n_chars"])
    return Shown(messages, row["label"] or "", f"{note} · {rest}" if rest else note)


def _left_out(n_messages: int, n_chars: int) -> str:
    """Says when more stands in a document than is shown."""
    if n_messages > MAX_MESSAGES:
        return f"the first {MAX_MESSAGES} of {count(n_messages)} messages"
    return f"the beginning of {count(n_chars)} characters" if n_chars > MAX_CHARS else ""


def _document_html(document: Shown, label_px: int, blurred: bool) -> str:
    name = escape(short(document.label, 40))
    label = f'<div class="fv-pill" dir="auto" style="width:{label_px}px" title="{name}">{name}</div>'
    label *= bool(document.label)
    said = "".join(_message_html(role, content, len(document.messages)) for role, content in document.messages)
    note = f'<div class="fv-note">{escape(document.note)}</div>' if document.note else ""
    focus = ' tabindex="0"' * blurred
    return f'<div class="fv-row"{focus}>{label}<div class="fv-body">{said}{note}</div></div>'


def _message_html(role: str, content: str, n_messages: int) -> str:
    who = f'<span class="fv-quiet">{escape(visible(role[:20]))} </span>' if n_messages > 1 else ""
    text = escape(visible(content[:MAX_CHARS])).replace("↵", "↵\n")
    return f'<div class="fv-span" dir="auto" lang="">{who}{text}</div>'
