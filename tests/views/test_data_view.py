"""Data sets on the planted loop: sizes, labels, lengths, search against a loop, and hostile texts as text."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from facviz.records import Document, Message
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.workspace import Workspace, open_workspace
from facviz.testing.workspaces import anchor_rows
from facviz.views.data import (
    MAX_CHARS,
    MAX_DROPPED,
    MAX_LABELS,
    MAX_MESSAGES,
    PAGE_DOCS,
    DatasetRow,
    Shown,
    documents_html,
    label_chart,
    length_chart,
    list_datasets,
    read_detail,
    read_documents,
    read_dropped,
    show_document,
)

XSS = '<img src=x onerror=alert(1)>"&'


@pytest.fixture(scope="module")
def planted(planted_loop):
    workspace = open_workspace(planted_loop / "workspace")
    with workspace.reader() as reader:
        yield reader, workspace


@pytest.fixture
def long_workspace(tmp_path):
    """One document of twelve messages, the first of 5,000 characters, without a label."""
    workspace = Workspace.create(tmp_path / "w")
    messages = [{"role": "user", "content": "é" * 5000}] + [
        {"role": "assistant", "content": f"m{i}"} for i in range(11)
    ]
    text = "\n\n".join(m["content"] for m in messages)
    row = {"dataset_id": "d", "doc_no": 0, "text": text, "messages": messages, "n_content_tokens": 9}
    workspace.manifest.write_shard(Scope("data", "long", "f" * 16), "document", "0", rows_to_arrow("document", [row]))
    return workspace


def test_the_table_and_its_totals_are_those_of_the_planted_corpora(planted):
    found = list_datasets(planted[0])
    assert [(r.name, r.role, r.n_docs, r.n_content_tokens) for r in found.rows] == [
        ("anchor", "anchor", 96, 768),
        ("seed", "seed", 40, 320),
    ]
    assert (found.n_docs, found.n_content_tokens, found.n_left_out) == ("136", "1,088", "0")


def test_the_detail_counts_labels_lengths_and_what_has_read_it(planted):
    reader, workspace = planted
    anchor, seed = list_datasets(reader).rows
    found = read_detail(reader, workspace.manifest, workspace.root, anchor)
    assert found.labels == (("0", 48), ("1", 48))
    assert found.lengths == ((8, 96),)
    assert [(fires, always_on) for _, fires, always_on in found.encoded] == [("25 of 26", "0")]
    assert dict(found.facts)["Length"] == "median 8, longest 8 content tokens"
    assert (found.dropped_by_reason, found.dropped_file) == ((), None)
    assert read_detail(reader, workspace.manifest, workspace.root, seed).labels == (("0", 40),)


@pytest.mark.parametrize("search", ["", "apple", "APPLE cloud", "zebra", "%", "'; DROP TABLE document; --"])
@pytest.mark.parametrize("label", [None, "0", "1", ""])
def test_search_and_label_find_what_a_loop_over_the_corpus_finds(planted, search, label):
    reader, _ = planted
    anchor = list_datasets(reader).rows[0]
    wanted = [
        row["text"]
        for row in anchor_rows()
        if search.lower() in row["text"].lower() and label in (None, str(row["label"]))
    ]
    found = read_documents(reader, anchor.dataset_id, label=label, search=search)
    assert found.n_matches == len(wanted)
    assert [d.messages[0][1] for d in found.documents] == wanted[:PAGE_DOCS]


def test_pages_add_up_to_all_documents_and_a_page_too_far_is_the_last(planted):
    reader, _ = planted
    anchor = list_datasets(reader).rows[0]
    pages = [read_documents(reader, anchor.dataset_id, page=i) for i in range(1, 96 // PAGE_DOCS + 1)]
    assert Counter(d.note for page in pages for d in page.documents).most_common(1)[0][1] == 1
    assert sum(len(page.documents) for page in pages) == 96
    assert read_documents(reader, anchor.dataset_id, page=99).documents == pages[-1].documents
    assert read_documents(reader, anchor.dataset_id, page=-3).documents == pages[0].documents


def test_a_long_document_is_bounded_and_says_so(long_workspace):
    with long_workspace.reader() as reader:
        [shown] = read_documents(reader, "d").documents
    assert len(shown.messages) == MAX_MESSAGES
    assert shown.messages[0] == ("user", "é" * MAX_CHARS)
    assert shown.note.endswith("the first 8 of 12 messages")
    many = tuple(Message("user", "x") for _ in range(20))
    assert len(show_document(Document(many)).messages) == MAX_MESSAGES


def test_documents_of_no_label_are_found_by_the_empty_label(long_workspace):
    with long_workspace.reader() as reader:
        assert read_documents(reader, "d", label="").n_matches == 1
        assert read_documents(reader, "d", label="1").n_matches == 0


@pytest.mark.parametrize("blurred", [False, True])
def test_texts_labels_and_roles_are_escaped(blurred):
    shown = Shown(((XSS, XSS), ("user", "line\nbreak")), XSS, XSS)
    html = documents_html([shown], "light", blurred=blurred)
    assert "<img" not in html
    assert html.count("&lt;img") >= 4
    assert "line↵\nbreak" in html
    assert ("fv-warn" in html.split("<style>")[0]) == blurred
    assert ('tabindex="0"' in html) == blurred


def test_left_out_rows_are_read_from_the_beginning_of_the_file_only(tmp_path):
    path = tmp_path / "x-dropped.jsonl"
    lines = [json.dumps({"row": i, "reason": "empty", "excerpt": "x" * 500, "file": ""}) for i in range(1000)]
    path.write_text("torn {\n" + "\n".join(lines), encoding="utf-8")
    found = read_dropped(path)
    assert len(found) == MAX_DROPPED - 1
    assert found[0] == {"Row": 0, "Reason": "empty", "Beginning": "x" * 159 + "…"}


def test_a_data_set_whose_name_is_a_path_has_no_file_of_left_out_rows(planted, tmp_path):
    reader, workspace = planted
    (tmp_path / "datasets").mkdir()
    (tmp_path / "secret-dropped.jsonl").write_text("{}")
    row = DatasetRow("../secret", "", 0, 0, 0, 1, "", "", "", "d")
    assert read_detail(reader, workspace.manifest, tmp_path, row).dropped_file is None


def test_the_label_chart_sums_what_is_beyond_the_first_labels_and_escapes_names():
    labels = [(XSS, 50), *((f"label {i}", 20 - i) for i in range(15)), ("", 1)]
    [bars] = label_chart(labels, "light").data
    assert len(bars.x) == MAX_LABELS + 1
    assert sum(bars.x) == sum(n for _, n in labels)
    assert "<img" not in json.dumps(list(bars.hovertext))


@pytest.mark.parametrize("lengths", [((8, 96),), ((1, 2), (3, 4), (1000, 1)), tuple((i, 1) for i in range(1, 500))])
def test_the_length_chart_counts_every_document_once(lengths):
    [bars] = length_chart(lengths, "dark").data
    assert sum(y for y in bars.y if y) == sum(n for _, n in lengths)
    assert len(bars.x) <= 41
