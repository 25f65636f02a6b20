"""The known-gaps benchmark on a corpus whose gap is planted: truth, list, scores, cache and chart."""

from __future__ import annotations

import gzip
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from scipy import sparse

from benchmarks import gap_texts, known_gaps
from benchmarks.coverage import bench_interval, bench_move, entries
from facviz import records
from facviz.coverage import index_entries

N_OF_THEME, N_OTHERS, D_SAE = 60, 140, 20


@pytest.fixture
def corpus():
    """Features 0-3 fire on the theme x alone, 4-7 everywhere, 8-11 on y alone, the rest never; strengths differ."""
    rng = np.random.default_rng(0)
    themes = ["x"] * N_OF_THEME + ["y"] * N_OTHERS
    acts = np.zeros((len(themes), D_SAE))
    acts[:N_OF_THEME, :4] = rng.gamma(3.0, 1.0, (N_OF_THEME, 4))
    acts[:, 4:8] = rng.gamma(3.0, 1.0, (len(themes), 4))
    acts[N_OF_THEME:, 8:12] = rng.gamma(3.0, 1.0, (N_OTHERS, 4))
    return gap_texts.Encoded(sparse.csr_matrix(acts), tuple(themes), np.full(len(themes), 5))


def test_the_known_gap_is_the_features_of_the_theme_alone(corpus):
    is_x = np.array(corpus.themes) == "x"
    in_a = known_gaps.halves(len(corpus.themes), 0)
    truth = known_gaps.known_gap(corpus, in_a & is_x, in_a & ~is_x)
    # About 30 texts of x in A: the 95th percentile leaves two above it, too few to count, so nothing is known yet.
    assert truth.sum() == 0
    everything = known_gaps.known_gap(corpus, is_x, ~is_x)
    assert np.flatnonzero(everything).tolist() == [0, 1, 2, 3]


def test_the_list_recovers_a_planted_gap_and_the_random_list_does_not(corpus):
    doubled = gap_texts.Encoded(
        sparse.vstack([corpus.acts] * 3).tocsr(), corpus.themes * 3, np.tile(corpus.n_tokens, 3)
    )
    found = known_gaps.recover(doubled, ["x"], 1)["as defined"]
    assert found.n_truth == 4
    assert found.recall == 1
    assert found.precision == pytest.approx(4 / found.n_listed)
    assert found.random_recall == pytest.approx(found.n_listed / 12)
    assert found.random_precision == pytest.approx(4 / 12)


def test_halves_have_every_document_once():
    first = known_gaps.halves(101, 3)
    assert first.sum() == 51
    assert (known_gaps.halves(101, 3) == first).all()
    assert (known_gaps.halves(101, 4) != first).any()


def test_scores_by_hand():
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    candidates = np.array([1, 1, 1, 0, 1, 1, 0, 0], bool)
    not_covered = np.array([1, 1, 0, 1, 1, 0, 1, 0], bool)
    found = known_gaps._score(truth, candidates, not_covered)
    assert (found.n_truth, found.n_listed) == (4, 3)
    assert (found.recall, found.precision) == (2 / 4, 2 / 3)
    assert (found.random_recall, found.random_precision) == (3 * 3 / (5 * 4), 3 / 5)


@pytest.mark.parametrize(("recall", "by_chance", "reached"), [(0.5, 0.1, True), (0.49, 0.0, False), (0.9, 0.19, False)])
def test_the_bar_asks_for_half_and_five_times_chance(recall, by_chance, reached):
    assert known_gaps.reaches_bar({"recall": recall, "random_recall": by_chance}) is reached


def test_the_record_its_table_and_its_chart_name_every_choice(corpus, monkeypatch):
    choices = (known_gaps.Choice("x & co", "general", ("x",)), known_gaps.Choice("y", "demo", ("y",), False))
    monkeypatch.setattr(known_gaps, "CHOICES", choices)
    record = known_gaps.measure({"general": corpus, "demo": corpus})
    assert record["passed"] is False  # nothing is known of x in a half
    assert record["choices"][1]["rules"]["as defined"]["n_splits"] == 5
    assert "| y, 140 of 200 |" in known_gaps.table(record)
    chart = known_gaps.gap_chart(record)
    words = [text.text for text in ET.fromstring(chart).iter("{http://www.w3.org/2000/svg}text")]
    assert {"x & co", "y", "random list"} <= set(words)


def test_encoding_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    asked = []

    class Encoder:
        def encode(self, documents):
            asked.append(len(documents))
            acts = sparse.csr_matrix(np.arange(2.0 * len(documents)).reshape(-1, 2))
            return records.Encoded(acts, acts, np.full(len(documents), 3))

    monkeypatch.setattr(gap_texts, "demo_encoder", Encoder)
    monkeypatch.setattr(gap_texts, "CHUNK", 2)
    texts = [gap_texts.Text(records.Document.from_text(f"text {i}"), "t") for i in range(5)]
    assert gap_texts.encode(texts, tmp_path, stop_after=-1) is None
    assert asked == []
    whole = gap_texts.encode(texts, tmp_path)
    assert asked == [2, 2, 1]
    again = gap_texts.encode(texts, tmp_path, stop_after=-1)  # all from the cache
    assert (again.acts != whole.acts).nnz == 0
    assert again.n_tokens.tolist() == [3] * 5
    gap_texts.encode([*texts[:2], gap_texts.Text(records.Document.from_text("new"), "t")], tmp_path)
    assert asked == [2, 2, 1, 1]


def test_templates_of_one_set_are_one_theme_and_every_text_stands_once(tmp_path):
    folder = tmp_path / "general_instructions"
    folder.mkdir()
    rows = [
        {"source": source, "messages": [{"role": "user", "content": text}]}
        for source, text in [("t0:imdb_a", "one"), ("t0:imdb_b", "one"), ("t0:imdb_b", "two"), ("hh_harmless", "three")]
    ]
    with gzip.open(folder / "conversations.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    texts = gap_texts.general_texts(tmp_path)
    assert sorted((t.theme, t.document.messages[0].content) for t in texts) == [
        ("hh_harmless", "three"),
        ("imdb", "one"),
        ("imdb", "two"),
    ]
    assert len({t.theme for t in gap_texts.demo_texts()}) == 12


def test_the_benches_of_coverage_are_measured_against_the_time_allowed():
    size = {"d_sae": 500, "n_docs": 400, "n_active": 20}
    for found, allowed in ((bench_move(**size), 0.3), (bench_interval(**size), 5.0)):
        assert found.ratio == pytest.approx(allowed * found.ours)
        assert found.settings["seconds_allowed"] == allowed
        assert found.passed
    features, docs, values = entries(500, 400, 20, 0)
    index = index_entries(features, docs, values, d_sae=500, n_docs=400)
    assert len(index.values) == 8000
    assert len(set(zip(features.tolist(), docs.tolist()))) == 8000
