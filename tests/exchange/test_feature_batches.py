"""Neuronpedia's lines: its field names, its count of layers, and the same bytes for the same rows."""

from __future__ import annotations

import gzip
import json

from facviz.exchange.feature_batches import (
    Source,
    activation_line,
    explanation_line,
    feature_line,
    packed,
    source_files,
)

SOURCE = Source("SmolLM2", "abc", 15, "chats", 576)
SPAN = {
    "feature_id": 7, "split": "explain", "rank": 0, "tokens": [" a", "<b>"], "acts": [0.0, 2.5], "act": 2.5,
    "peak_token": 41, "start_token": 40, "doc_no": 3,
}  # fmt: skip


def test_a_span_is_an_activation_whose_peak_counts_from_its_start():
    line = activation_line(SOURCE, SPAN)
    assert (line["modelId"], line["layer"], line["index"]) == ("SmolLM2", "14-facviz-abc", "7")
    assert (line["tokens"], line["values"]) == ([" a", "<b>"], [0.0, 2.5])
    assert (line["maxValue"], line["maxValueTokenIndex"], line["minValue"]) == (2.5, 1, 0.0)
    assert line["id"] != activation_line(SOURCE, SPAN | {"rank": 1})["id"]


def test_a_feature_without_directions_has_no_fields_about_them():
    stats = {"feature_id": 7, "max_act": 3.0, "density": 0.01}
    assert "pos_str" not in feature_line(SOURCE, stats, None)
    direction = {"top_tokens": [" x"], "top_logits": [1.5], "neighbours": [9], "neighbour_cosines": [0.5]}
    line = feature_line(SOURCE, stats, direction)
    assert (line["frac_nonzero"], line["pos_str"], line["topkCosSimIndices"]) == (0.01, [" x"], [9])


def test_an_explanation_names_who_wrote_it():
    said = {"feature_id": 7, "text": "Robbery", "author_kind": "human", "author": "ann"}
    line = explanation_line(SOURCE, said)
    assert (line["description"], line["typeName"], line["explanationModelName"]) == ("Robbery", "facviz-human", "ann")


def test_packed_lines_carry_no_time(monkeypatch):
    lines = [activation_line(SOURCE, SPAN)]
    first = packed(lines)
    monkeypatch.setattr("time.time", lambda: 0)
    assert packed(lines) == first
    assert [json.loads(text) for text in gzip.decompress(first).decode().splitlines()] == lines


def test_what_nobody_measured_is_null_and_never_nan():
    line = feature_line(SOURCE, {"feature_id": 7, "max_act": float("nan"), "density": None}, None)
    assert (line["maxActApprox"], line["frac_nonzero"]) == (None, None)


def test_model_and_source_stand_beside_the_batches():
    files = source_files(SOURCE)
    assert json.loads(files["source.jsonl"])["setName"] == "facviz-abc"
    assert json.loads(files["model.jsonl"])["dimension"] == 576
