"""Sets side by side, wording beside FAC, themes from explanations, and the charts of the coverage page."""

from __future__ import annotations

import numpy as np
import pytest

from facviz.coverage import compute_fac, dataset_difference, index_activity, positive_p95
from facviz.diversity import MEASURES, measure_texts
from facviz.store.gap import TaskFeatures
from facviz.views.charts import ThemeShare
from facviz.views.coverage_charts import MapPoint, equal_tokens_chart, feature_map, growth_chart, theme_treemap
from facviz.views.live import make_lens, measure_live
from facviz.views.sets import change_rows, compare_sets
from facviz.views.themes import cluster_explanations, lay_out, map_places
from facviz.views.wording import draw_sets, measure_wording, most_varied

MODES = ("light", "dark")


@pytest.fixture
def matrices():
    rng = np.random.default_rng(0)
    return {
        name: np.where(rng.random((n, 30)) < share, rng.gamma(2.0, 1.0, (n, 30)), 0)
        for name, n, share in (("anchor", 60, 0.2), ("seed", 20, 0.1), ("other", 30, 0.15))
    }


@pytest.fixture
def indices(matrices):
    return {name: index_activity(matrix, np.full(len(matrix), 10)) for name, matrix in matrices.items()}


@pytest.fixture
def live(matrices, indices):
    p95 = positive_p95(matrices["anchor"])
    task = TaskFeatures(np.arange(30), np.zeros(30, int), p95, {}, {})
    return measure_live(make_lens(task, indices["anchor"], indices["seed"]), "yes", "relative", 0.6)


def test_every_set_gets_its_own_answer_to_the_same_question(matrices, indices, live):
    budget, rows = compare_sets(live, indices, n_bootstrap=50, n_draws=30)
    assert budget == 200  # the seed set's twenty texts of ten tokens
    threshold = 0.6 * positive_p95(matrices["anchor"])
    for row in rows:
        assert row.fac == compute_fac(matrices["anchor"], matrices[row.name], act_threshold=threshold)
        assert row.n_missing == round((1 - row.fac) * live.n_anchor)
        assert row.interval[0] <= row.fac <= row.interval[1]
        assert row.equal.n_tokens == 200
    by_name = {row.name: row for row in rows}
    assert by_name["seed"].equal.fac == pytest.approx(live.fac)  # the whole set is its only draw
    assert by_name["seed"].fills == 0
    assert by_name["anchor"].fills == live.n_missing
    assert by_name["anchor"].equal.fac < by_name["anchor"].fac == 1


def test_a_set_without_tokens_is_left_out(indices, live):
    empty = index_activity(np.zeros((0, 30)))
    assert [row.name for row in compare_sets(live, indices | {"empty": empty}, n_bootstrap=5, n_draws=20)[1]] == list(
        indices
    )
    assert compare_sets(live, {"empty": empty}) == (0, [])


def test_change_rows_name_the_documents_of_each_feature(matrices, indices, live):
    found = dataset_difference(indices["anchor"], indices["seed"], live.target, live.target_threshold)
    lost = found.of("lost").tolist()
    assert sorted(lost) == live.missing.tolist()
    for feature, (before, after, ratio, q) in change_rows(found, lost).items():
        assert before == live.n_docs_of[feature]
        assert (after, ratio) == (0, 0)
        assert 0 < q <= 1


def test_wording_and_fac_are_of_the_same_texts(indices, live):
    budget, draws = draw_sets(live, indices, n_draws=5)
    assert budget == 200
    texts = {i: f"text number {i % 7}" for i in range(60)}
    embedded = []

    def embed(chosen):
        embedded.append(len(chosen))
        return np.eye(8)[[int(t[-1]) for t in chosen]]

    rows = [measure_wording(found, texts, embed, None) for found in draws]
    assert embedded == [20, 20, 20]
    seed = rows[1]
    assert seed.fac == pytest.approx((live.fac,) * 3)
    assert seed.measures["distinct_1"][0] == pytest.approx(measure_texts([texts[i] for i in range(20)])["distinct_1"])
    assert seed.measures["pos_distinct_2"] is None
    assert seed.measures["vendi"][0] > 6
    by_key = {measure.key: measure for measure in MEASURES}
    assert most_varied(rows, by_key["pos_distinct_2"]) == ""
    lowest = min(rows, key=lambda row: row.measures["compression"][0]).name
    assert most_varied(rows, by_key["compression"]) == lowest


def test_clusters_are_named_by_their_own_words_and_alike_features_lie_close():
    themes = {"bread": [1.0, 0, 0], "train": [0, 1.0, 0], "piano": [0, 0, 1.0]}
    texts, vectors = [], []
    for word, middle in themes.items():
        for i in range(10):
            texts.append(f"words about {word} and the {word}s number {'abcdefghij'[i]}")
            vectors.append(np.array(middle) + 0.01 * i * np.array([0.3, 0.2, 0.1]))
    names = cluster_explanations(texts, np.array(vectors))
    for k, word in enumerate(themes):
        assert all(name.startswith(word) for name in names[10 * k : 10 * k + 10])
    places = map_places(np.array(vectors))
    middles = [places[10 * k : 10 * k + 10].mean(axis=0) for k in range(3)]
    within = max(np.linalg.norm(places[i] - middles[i // 10]) for i in range(30))
    assert min(np.linalg.norm(a - b) for i, a in enumerate(middles) for b in middles[:i]) > within


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_features_have_a_place_and_no_cluster(n):
    found = lay_out(range(n + 1), dict.fromkeys(range(n), "words"), np.arange(n), np.eye(6)[:n])
    assert found.features == tuple(range(n))  # the last has no text
    assert set(found.themes) <= {""}
    assert found.places.shape == (n, 2)


@pytest.mark.parametrize("mode", MODES)
def test_the_charts_show_every_feature_once_and_escape_names(mode, live, indices):
    shares = [ThemeShare("<b>x", 3, 2, 1, 0), ThemeShare("y", 0, 0, 0, 4)]
    tree = theme_treemap(shares, mode).data[0]
    leaves = [n for n, parent in zip(tree.values, tree.parents) if parent]
    assert sum(leaves) == sum(n for n, parent in zip(tree.values, tree.parents) if not parent) == 10
    assert not any("<b>x" in label for label in tree.labels)
    points = [
        MapPoint(i, state, "t<i>", "says <u>") for i, state in enumerate(("covered", "missing", "filled", "exhausted"))
    ]
    figure = feature_map(points, np.arange(8).reshape(4, 2), mode)
    assert sorted(f for trace in figure.data for f in trace.customdata) == [0, 1, 2, 3]
    assert "<u>" not in str(figure.to_dict())
    _, rows = compare_sets(live, indices, n_bootstrap=5, n_draws=20)
    dots = equal_tokens_chart([(r.name, "seed", r.fac, r.equal) for r in rows], mode)
    assert list(dots.layout.yaxis.ticktext) == list(indices)
    growth = growth_chart(live.growth, live.beyond, mode)
    assert growth.data[-1].line.dash == "dot"
    assert growth.layout.xaxis.range[1] >= 2 * indices["seed"].n_docs
    assert theme_treemap([], mode).data[0].values == ()
