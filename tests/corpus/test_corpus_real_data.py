"""Published data sets are read whole; skipped unless FACVIZ_DATA names their folder."""

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from facviz.config import DatasetConfig
from facviz.corpus import CorpusReader
from facviz.records import Message

pytestmark = pytest.mark.skipif("FACVIZ_DATA" not in os.environ, reason="FACVIZ_DATA is not set")


def open_set(relative):
    return CorpusReader(DatasetConfig(name="d", path=str(Path(os.environ["FACVIZ_DATA"]) / relative)))


def source_rows(reader):
    with gzip.open(reader.config.path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def test_toxicchat_rows_add_up():
    reader = open_set("toxicchat/train.jsonl.gz")
    documents = list(reader)
    report, rows = reader.report, source_rows(reader)
    assert report.n_rows == len(rows) == 2779
    assert report.n_documents + report.n_duplicates + report.n_dropped == 2779
    assert report.n_documents == len(documents) == len({row["text"].replace("\r\n", "\n") for row in rows})
    first_labels = {}
    for row in rows:
        first_labels.setdefault(row["text"], row["label"])
    assert sum(row["label"] for row in rows) == 364
    assert report.labels["1"] == sum(first_labels.values())


def test_hh_rlhf_pairs_lose_no_turn():
    reader = open_set("hh_rlhf_harmless_test/test.jsonl.gz")
    assert reader.mapping.shape == "chosen_rejected"
    documents = list(reader)
    texts = [row[label] for row in source_rows(reader) for label in ("chosen", "rejected")]
    assert reader.report.n_rows == 2271
    assert len(documents) + reader.report.n_duplicates == len(texts) == 4542
    marker = re.compile(r"^(?:Human|Assistant):", re.MULTILINE)
    for document, text in zip(documents, texts):
        assert re.sub(r"\s", "", "".join(m.content for m in document.messages)) == re.sub(
            r"\s", "", marker.sub("", text)
        )
        assert len(document.messages) == len(marker.findall(text))


def test_conversations_keep_every_message():
    reader = open_set("general_instructions/conversations.jsonl.gz")
    documents = list(reader)
    rows = source_rows(reader)
    assert reader.report.n_documents == len(rows) == 19_245
    for document, row in zip(documents, rows):
        expected = tuple(Message(m["role"], m["content"].replace("\r\n", "\n")) for m in row["messages"])
        assert document.messages == expected


def test_wikitext_lines_are_documents():
    reader = open_set("wikitext2/test.txt.gz")
    documents = list(reader)
    with gzip.open(reader.config.path, "rt", encoding="utf-8", newline="\n") as stream:
        lines = [line.removesuffix("\n") for line in stream]
    kept = [line for line in lines if line.strip()]
    assert len(lines) == 4358
    assert reader.report.n_rows == len(kept)
    assert [d.text for d in documents] == list(dict.fromkeys(kept))
