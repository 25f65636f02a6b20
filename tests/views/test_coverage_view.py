"""The live gap against `facviz.coverage` and Python loops, and the planted run's numbers (see `make_planted_run`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import sparse

from facviz.config import CoverageConfig
from facviz.coverage import (
    bootstrap_interval,
    compute_fac,
    coverage_curve,
    fac_frequency,
    fac_magnitude,
    index_activity,
    measure_coverage,
    positive_p95,
    rarefaction,
)
from facviz.errors import CoverageError
from facviz.store.events import candidate_of, relevance_of
from facviz.store.gap import TaskFeatures, read_activity, read_gap, read_task_features
from facviz.views.coverage import (
    Question,
    coverage_choices,
    coverage_flags,
    coverage_runs,
    filled_and_tried,
    flags_of_run,
    stored_run,
    theme_shares,
    usable_saes,
)
from facviz.views.live import fac_curve, highest_threshold, make_lens, measure_live, measure_sure
from facviz.views.missing import explanations, headline, missing_rows, ordered_missing, themes_of


@pytest.fixture
def runs(database):
    return coverage_runs(database, [])


@pytest.fixture
def question(database, runs):
    return coverage_choices(database, runs[0]["sae_id"], runs).question


def open_lens(database, question):
    task = read_task_features(database, question.sae_id, question.task, question.source, question.anchors)
    return make_lens(task, *(read_activity(database, question.sae_id, name) for name in ("anchor", "seed")))


@pytest.fixture
def lens(database, question):
    return open_lens(database, question)


@dataclass(frozen=True)
class Sets:
    """Random matrices, features with their verdicts' ranks, and the lens over them."""

    anchor: sparse.csr_matrix
    seed: sparse.csr_matrix
    task: TaskFeatures

    @property
    def features(self):
        return self.task.features

    @property
    def p95(self):
        return positive_p95(self.anchor)

    @property
    def lens(self):
        return make_lens(self.task, index_activity(self.anchor), index_activity(self.seed))


def random_gap(rng_seed: int, n_features: int = 40) -> Sets:
    rng = np.random.default_rng(rng_seed)

    def matrix(n_docs):
        dense = rng.gamma(2.0, 1.0, (n_docs, n_features)) * (rng.random((n_docs, n_features)) < 0.15)
        return sparse.csr_matrix(dense.astype(np.float32))

    anchor, seed = matrix(60), matrix(25)
    features = np.sort(rng.choice(n_features, n_features // 2, replace=False))
    rank = np.arange(len(features)) % 3
    p95 = positive_p95(anchor)[features]
    return Sets(anchor, seed, TaskFeatures(features, rank, p95, {}, {int(features[0]): "first"}))


@pytest.mark.parametrize("rng_seed", range(4))
@pytest.mark.parametrize(("kind", "threshold"), [("relative", 0.75), ("relative", 1.0), ("absolute", 2.0)])
def test_the_live_gap_is_what_the_stage_measures(rng_seed, kind, threshold):
    gap = random_gap(rng_seed)
    live = measure_live(gap.lens, "maybe", kind, threshold)
    sure = measure_sure(gap.lens, live, n_bootstrap=200)
    stage = measure_coverage(
        gap.anchor, gap.seed, p95=gap.p95, kind=kind, threshold=threshold, features=gap.features, n_bootstrap=200
    )
    assert live.fac == stage.fac
    assert sure.fac == (stage.fac_low, stage.fac_high)
    assert sure.n_bootstrap == 200
    assert live.missing.tolist() == stage.missing.tolist()
    assert (live.n_relevant, live.n_anchor, live.n_covered) == (stage.n_relevant, stage.n_anchor, stage.n_covered)
    assert (live.saturated, live.unsaturated) == (stage.saturated, stage.unsaturated_threshold)
    n_docs = gap.anchor > np.where(np.isnan(gap.p95), np.inf, threshold * gap.p95 if kind == "relative" else threshold)
    assert [live.n_docs_of[f] for f in live.missing.tolist()] == [
        int(n_docs[:, f].sum()) for f in stage.missing.tolist()
    ]


@pytest.mark.parametrize("rng_seed", range(3))
def test_the_curve_equals_a_measurement_at_each_of_its_points(rng_seed):
    gap = random_gap(rng_seed)
    curve = fac_curve(gap.lens, "maybe", "relative", 0.8)
    points = coverage_curve(
        gap.anchor, gap.seed, p95=gap.p95, features=gap.features, grid=[threshold for threshold, _ in curve]
    )
    assert [fac for _, fac in curve] == [point.fac for point in points]
    assert 0.8 in dict(curve)
    assert min(point.n_anchor for point in points) >= 1


def test_the_growth_curves_end_at_the_measured_values():
    gap = random_gap(0)
    live = measure_live(gap.lens, "maybe", "absolute", 2.0)
    seed, anchor = live.growth
    assert (seed.sizes[0], seed.sizes[-1], anchor.sizes[-1]) == (1, 25, 60)
    assert seed.fac[-1] == pytest.approx(live.fac)
    assert anchor.fac[-1] == pytest.approx(1.0)
    middle = rarefaction(gap.anchor, gap.seed, features=gap.features, act_threshold=2.0, sizes=[seed.sizes[5]])
    assert seed.fac[5] == pytest.approx(middle[0])


def test_the_interval_is_the_bootstrap_of_the_task_features_only():
    gap = random_gap(1)
    live = measure_live(gap.lens, "maybe", "absolute", 1.0)
    wanted = bootstrap_interval(gap.anchor, gap.seed, features=gap.features, act_threshold=1.0, n_bootstrap=50)
    assert measure_sure(gap.lens, live, n_bootstrap=50).fac == wanted
    assert live.fac == compute_fac(gap.anchor, gap.seed, features=gap.features, act_threshold=1.0)


def test_a_threshold_that_nothing_exceeds_has_no_answer():
    with pytest.raises(CoverageError, match="lower δ"):
        measure_live(random_gap(0).lens, "maybe", "absolute", 1000.0)


@pytest.mark.parametrize(
    ("threshold", "n_anchor", "n_missing"), [(0.5, 17, 12), (1.0, 16, 12), (2.0, 12, 9), (4.0, 4, 3)]
)
def test_the_planted_gap_at_every_threshold_of_its_table(lens, threshold, n_anchor, n_missing):
    live = measure_live(lens, "maybe", "absolute", threshold)
    assert (live.n_anchor, live.n_missing) == (n_anchor, n_missing)
    assert live.saturated == (threshold == 4.0)
    assert live.unsaturated == 0.0
    assert highest_threshold(lens, "absolute") == 5.0


def test_the_first_question_is_that_of_the_run_that_finished_last(database, runs):
    [sae_id] = usable_saes(database, runs)
    choices = coverage_choices(database, sae_id, runs)
    assert choices.question == Question(sae_id, "toxicity", "label", "anchor", "seed", "maybe")
    assert (choices.kind, choices.threshold, choices.datasets) == ("absolute", 0.5, ("anchor", "seed"))
    unmeasured = coverage_choices(database, sae_id, [])
    assert (unmeasured.question, unmeasured.kind) == (choices.question, "relative")
    assert coverage_choices(database, "another", runs) is None


def test_runs_stand_in_the_order_they_finished(database, runs):
    second = {**runs[0], "coverage_id": "other", "details": "{}"}
    queries = type("Two", (), {"rows": lambda self, name: [dict(second), dict(second) | {"coverage_id": "newest"}]})()
    assert [r["coverage_id"] for r in coverage_runs(queries, ["other", "newest"])] == ["newest", "other"]
    assert [r["coverage_id"] for r in coverage_runs(queries, ["newest", "other"])] == ["other", "newest"]


def test_a_measurement_counts_as_kept_until_somebody_changes_a_verdict(database, runs, question, lens):
    live = measure_live(lens, "maybe", "absolute", 0.5)
    assert stored_run(runs, question, live) is runs[0]
    assert stored_run(runs, question, measure_live(lens, "maybe", "absolute", 1.0)) is None
    database.record("ann", relevance_of(question.sae_id, 12, "toxicity"), "verdict", {"verdict": "no"})
    without = measure_live(open_lens(database, question), "maybe", "absolute", 0.5)
    assert without.n_missing == 11
    assert stored_run(runs, question, without) is None


def test_filled_features_follow_the_threshold_and_what_people_reject(database, question, lens):
    live = measure_live(lens, "maybe", "absolute", 0.5)
    assert filled_and_tried(database, question, live) == (set(range(12, 24)), set())
    filled, tried = filled_and_tried(database, question, measure_live(lens, "maybe", "absolute", 2.9))
    assert filled == {f for f in range(12, 24) if 2 + f % 4 > 1.05 * 2.9}
    assert tried == {f for f in range(12, 24) if 2 + f % 4 == 3}
    [first, *_] = database.rows("samples")
    database.record("ann", candidate_of(first["candidate_id"]), "reject")
    filled, tried = filled_and_tried(database, question, live)
    assert tried == {first["feature_id"]}
    assert filled == set(range(12, 24)) - tried


def test_themes_split_every_feature_of_the_anchor_set_once(lens):
    live = measure_live(lens, "maybe", "absolute", 0.5)
    themed = {12: "marked", 13: "marked", 0: "x"}
    shares = {s.theme: s for s in theme_shares(themed, live, {12}, {13, 14}, "the rest")}
    assert {name: (s.covered, s.missing, s.filled, s.exhausted) for name, s in shares.items()} == {
        "x": (1, 0, 0, 0),
        "marked": (0, 0, 1, 1),
        "the rest": (4, 9, 0, 1),
    }
    assert sum(s.covered + s.gap for s in shares.values()) == live.n_anchor


def test_the_headline_is_a_sentence_of_escaped_names(question, lens):
    live = measure_live(lens, "maybe", "absolute", 0.5)
    said = headline(question, live, None, lens.task)
    assert said.interval == ""
    assert "–" in headline(question, live, measure_sure(lens, live, n_bootstrap=50), lens.task).interval
    assert said.fac == "29 %"
    assert "5 of the 17 features" in said.sentence
    assert "12 never fire" in said.sentence
    hostile = Question("s", "toxicity", "label", "<img src=x>", "<script>", "maybe")
    themed = replace(lens.task, theme=dict.fromkeys(range(12, 20), "<b onload=1>"))
    text = headline(hostile, live, None, themed).sentence
    assert "<script>" not in text
    assert "<img" not in text
    assert "<b onload" not in text
    assert "all about &lt;b onload=1&gt; (8)" in text


def test_the_missing_list_carries_evidence_in_the_asked_order(database, question, lens):
    live = measure_live(lens, "maybe", "absolute", 0.5)
    themed = replace(lens.task, theme={14: "late"}, relevance_score={20: 0.9})
    assert ordered_missing(live, themed)[:2] == [20, 12]
    assert ordered_missing(live, themed, theme="late") == [14]
    assert ordered_missing(live, themed, theme="no theme") == [20, 12, 13, *range(15, 20), 21, 22, 23]
    assert themes_of(live, themed) == ["no theme", "late"]
    assert themes_of(live, lens.task) == []
    [row] = missing_rows(database, question, live, lens.task, [23], {23: "filled"})
    assert (row.n_docs, row.state) == ("8", "filled")
    assert row.span.tokens[row.span.peak].strip() == "yellow"
    assert max(row.span.acts) == row.span.feature_max == 5.0


def test_a_feature_without_words_says_so(database, question):
    words = explanations(database, question.sae_id, [12, 9999])
    assert words[9999] == "Not explained yet"
    assert "mirror" in words[12]


def test_the_flags_ask_for_exactly_the_run(runs):
    run = runs[0] | {"details": {"config": {"include_always_on": True, "n_bootstrap": 200, "rng_seed": 0}}}
    flags = flags_of_run(run)
    assert flags[flags.index("--threshold") + 1] == "0.5"
    assert flags[flags.index("--n-bootstrap") + 1] == "200"
    assert "--include-always-on" in flags
    assert "--rng-seed" not in flags
    assert flags_of_run(runs[0] | {"details": {}}) == coverage_flags(
        Question(run["sae_id"], "toxicity", "label", "anchor", "seed", "maybe"), "absolute", 0.5
    )
    assert runs[0]["details"]["config"]["n_bootstrap"] == 200
    assert CoverageConfig().n_bootstrap != 200


@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_weighted_fac_is_that_of_the_matrices(kind):
    gap = random_gap(2)
    live = measure_live(gap.lens, "maybe", kind, 0.7)
    row = np.where(np.isnan(gap.p95), np.inf, 0.7 * gap.p95 if kind == "relative" else 0.7)
    asked = {"features": gap.features, "act_threshold": row}
    assert live.fac_frequency == pytest.approx(fac_frequency(gap.anchor, gap.seed, **asked))
    assert live.fac_magnitude == pytest.approx(fac_magnitude(gap.anchor, gap.seed, **asked))
    sure = measure_sure(gap.lens, live, n_bootstrap=100)
    assert sure.frequency[0] < live.fac_frequency < sure.frequency[1]
    assert sure.magnitude[0] < live.fac_magnitude < sure.magnitude[1]


def test_each_level_is_the_measurement_from_that_level_on_and_names_what_it_adds():
    gap = random_gap(3)
    live = measure_live(gap.lens, "probably", "relative", 0.8)
    for place, effect in enumerate(live.levels):
        features = gap.features[gap.task.rank <= place]
        stage = measure_coverage(gap.anchor, gap.seed, p95=gap.p95, threshold=0.8, features=features, n_bootstrap=0)
        assert (effect.fac, effect.n_anchor, effect.n_missing) == (stage.fac, stage.n_anchor, stage.n_missing)
        added = set(gap.features[gap.task.rank == place].tolist())
        assert set(effect.added_missing.tolist()) == added & set(stage.missing.tolist())
        assert set(effect.added_covered.tolist()) <= added - set(stage.missing.tolist())
    assert live.fac == live.levels[1].fac
    assert live.n_relevant == live.levels[1].n_relevant < live.levels[2].n_relevant


def test_the_growth_beyond_the_set_begins_at_its_fac_and_adds_what_is_estimated():
    live = measure_live(random_gap(4).lens, "maybe", "relative", 0.6)
    assert live.unseen.estimate > 0
    assert live.beyond.fac[0] == pytest.approx(live.fac)
    assert (live.beyond.sizes[0], live.beyond.sizes[-1]) == (25, 50)
    assert live.fac < live.beyond.fac[-1] <= live.fac + live.unseen.estimate / live.n_anchor + 1e-9
    assert live.unseen.estimate <= live.n_missing


def test_what_the_page_reads_is_what_the_stage_reads(database, question, lens):
    config = CoverageConfig(anchor="anchor", seed="seed")
    gap = read_gap(database, question.sae_id, question.task, question.source, config)
    assert lens.features.tolist() == gap.features.tolist()
    assert lens.task.p95.tolist() == gap.p95[gap.features].tolist()
    assert (lens.anchor.total_tokens, lens.seed.total_tokens) == (gap.anchor_tokens.sum(), gap.seed_tokens.sum())
    for index, matrix in ((lens.anchor, gap.anchor), (lens.seed, gap.seed)):
        whole = index_activity(matrix)
        assert index.values.tolist() == whole.values.tolist()
        assert index.offsets.tolist() == whole.offsets.tolist()


def test_joined_sets_are_no_pair_that_could_be_kept(runs, question, lens):
    live = measure_live(lens, "maybe", "absolute", 0.5)
    joined = replace(question, more_seeds=("other",))
    assert stored_run(runs, joined, live) is None
    assert "seed + other" in headline(joined, live, None, lens.task).sentence
