"""The measurement of explanations: the local explainer on planted features, the tables and the intervals."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import explanations as program
from facviz.explain.plain import PLAIN_TEMPLATE
from facviz.store.workspace import open_workspace

PAGE = "# A page\n\nbefore\n\n<!-- measured: begin -->\nold\n<!-- measured: end -->\n\nafter\n"


class Embedder:
    """Texts by how often they use each letter."""

    name = "letters"

    def embed(self, texts):
        vectors = np.array([[text.count(c) + 1e-3 for c in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def measured(loop_copy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("facviz.embeddings.SentenceTransformerEmbedder", Embedder)
    monkeypatch.setattr(program, "_embedder", Embedder)
    root, page = loop_copy / "workspace", tmp_path / "page.md"
    page.write_text(PAGE)
    asked = ["--workspace", str(root), "--dataset", "anchor", "--n", "9", "--out", str(page)]
    assert program.main(asked) == 0
    capsys.readouterr()
    return root, page, asked


def test_the_page_gets_its_tables_between_its_marks_and_keeps_the_rest(measured):
    _, page, _ = measured
    text = page.read_text()
    assert text.startswith("# A page\n\nbefore\n")
    assert text.endswith("<!-- measured: end -->\n\nafter\n")
    assert "old" not in text
    assert "9 features of SAE" in text
    assert "words alone, another feature's label" in text
    assert "local/" in text


def test_the_sample_is_the_seeds_and_every_feature_of_it_ends_typed(measured):
    root, _, _ = measured
    workspace = open_workspace(root)
    with workspace.reader() as reader:
        sae_id = reader.rows("saes")[0]["sae_id"]
        rows = reader.rows("explanations_by", sae_id=sae_id, wrote_by="llm")
        dataset_id = reader.dataset("anchor")["dataset_id"]
        able = [r["feature_id"] for r in reader.rows("explainable_features", sae_id=sae_id, dataset_id=dataset_id)]
    drawn = sorted(np.random.default_rng(0).choice(able, 9, replace=False).tolist())
    assert [row["feature_id"] for row in rows] == drawn
    assert {row["outcome"] for row in rows} <= {"explained", "cannot_tell", "failed"}
    assert {row["prompt"] for row in rows} == {PLAIN_TEMPLATE}


def test_a_second_run_writes_the_same_page(measured):
    _, page, asked = measured
    first = page.read_text()
    assert program.main(asked) == 0
    assert page.read_text() == first


def test_the_interval_of_a_median_covers_it_and_narrows_with_more_features():
    rng = np.random.default_rng(3)
    few, many = rng.normal(0.1, 0.2, 30), rng.normal(0.1, 0.2, 3000)
    for values in (few, many):
        low, high = program.median_interval(values, 0)
        assert low <= np.median(values) <= high
    widths = [high - low for low, high in (program.median_interval(values, 0) for values in (few, many))]
    assert widths[1] < widths[0] / 5


def test_a_difference_is_paired_and_counts_its_sides():
    line = program._difference("a − b", np.array([0.6, 0.5, 0.9]), np.array([0.5, 0.5, 1.0]), 0)
    assert line.startswith("| a − b | 3 | +0.000 | ")
    assert line.endswith("| 1 / 1 / 1 |")
