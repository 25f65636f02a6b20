"""Relevance from labels at equal length, from explanations, and the last word of people."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse, stats
from sklearn.metrics import roc_auc_score

from facviz.errors import InputError
from facviz.records import Explanation, ExplanationOutcome, Relevance, TaskGuideline, Verdict
from facviz.relevance import (
    MAX_LABELS,
    SOURCES,
    benjamini_hochberg,
    embedding_relevance,
    label_relevance,
    relevant_features,
    separate_sets,
    theme_relevance,
    to_theme_verdicts,
    to_verdict,
    to_verdicts,
)


def pairwise_auroc(values, positive):
    pairs = [(v > w) + (v == w) / 2 for v in values[positive] for w in values[~positive]]
    return float(np.mean(pairs))


def length_groups(lengths, n_bins):
    edges = sorted({float(np.quantile(lengths, k / n_bins)) for k in range(1, n_bins)})
    keys = [sum(n >= edge for edge in edges) for n in lengths]
    return [np.array([i for i, k in enumerate(keys) if k == key]) for key in sorted(set(keys))]


def controlled_auroc(values, positive, groups):
    parts = []
    for group in groups:
        y = positive[group]
        if 0 < y.sum() < y.size:
            parts.append((pairwise_auroc(values[group], y), y.sum()))
    return float(np.average([a for a, _ in parts], weights=[w for _, w in parts]))


@st.composite
def labelled(draw):
    n = draw(st.integers(4, 14))
    acts = draw(hnp.arrays(np.float32, (n, 3), elements=st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.5])))
    positive = draw(hnp.arrays(np.bool_, n))
    lengths = draw(hnp.arrays(np.int64, n, elements=st.integers(1, 6)))
    return acts, positive, lengths, draw(st.integers(1, 4))


@settings(deadline=None)
@given(labelled())
def test_auroc_equals_a_loop_over_pairs_within_length_groups(case):
    acts, positive, lengths, n_bins = case
    groups = length_groups(lengths, n_bins)
    if not any(0 < positive[g].sum() < g.size for g in groups):
        with pytest.raises(InputError):
            label_relevance(sparse.csr_matrix(acts), positive, lengths, n_bins=n_bins, n_permutations=1)
        return
    found = label_relevance(sparse.csr_matrix(acts), positive, lengths, n_bins=n_bins, n_permutations=1)
    assert found.tested.tolist() == (acts > 0).any(axis=0).tolist()
    for i in range(3):
        if not found.tested[i]:
            assert np.isnan([found.auroc[i], found.raw_auroc[i], found.p[i], found.q[i]]).all()
            continue
        assert found.auroc[i] == pytest.approx(controlled_auroc(acts[:, i], positive, groups))
        assert found.raw_auroc[i] == pytest.approx(roc_auc_score(positive, acts[:, i]))


def exact_p(values, positive, groups):
    """Share of all within-group label assignments with an AUROC at least as high."""
    choices = [list(itertools.combinations(g, int(positive[g].sum()))) for g in groups]
    observed = controlled_auroc(values, positive, groups)
    reached = []
    for chosen in itertools.product(*choices):
        labels = np.zeros(len(values), dtype=bool)
        labels[[i for ids in chosen for i in ids]] = True
        reached.append(controlled_auroc(values, labels, groups) >= observed - 1e-12)
    return float(np.mean(reached))


@pytest.mark.parametrize("rng_seed", range(4))
def test_permutation_p_approaches_the_exact_p_of_all_assignments(rng_seed):
    rng = np.random.default_rng(rng_seed)
    lengths = np.repeat([10, 90], 6)
    positive = np.tile([True, False, False, True, False, True], 2)
    # Half the values tie, so that equal sums must count as equal.
    acts = np.round(rng.exponential(size=(12, 5)), 0).astype(np.float32) + np.eye(12, 5, dtype=np.float32)
    found = label_relevance(sparse.csr_array(acts), positive, lengths, n_bins=2, n_permutations=20_000)
    groups = length_groups(lengths, 2)
    assert len(groups) == 2
    expected = [exact_p(acts[:, i], positive, groups) for i in range(5)]
    np.testing.assert_allclose(found.p, expected, atol=0.015)


def test_the_smallest_possible_p_is_one_over_permutations_plus_one():
    acts = sparse.csr_array(np.r_[np.linspace(5, 6, 50), np.linspace(1, 2, 50)][:, None])
    positive = np.arange(100) < 50
    found = label_relevance(acts, positive, np.full(100, 7), n_permutations=199)
    assert found.p[0] == 1 / 200
    assert found.auroc[0] == pytest.approx(1.0)


def planted(rng_seed=0, n=2000, spread=1.0):
    """Positive texts are 2.5 times longer. Features: 0 the maximum of noise over the tokens, 1 the topic, 2 noise,
    3 never fires, 4 the length itself.
    """
    rng = np.random.default_rng(rng_seed)
    positive = rng.random(n) < 0.3
    lengths = np.exp(rng.normal(np.log(np.where(positive, 75, 30)), spread)).astype(int) + 1
    acts = np.zeros((n, 5), dtype=np.float32)
    acts[:, 0] = [rng.exponential(size=tokens).max() for tokens in lengths]
    acts[:, 1] = np.maximum(0, rng.normal(0, 1, n) + 0.9 * positive)
    acts[:, 2] = rng.exponential(size=n)
    acts[:, 4] = lengths
    return sparse.csr_matrix(acts), positive, lengths


def test_a_feature_that_only_tracks_length_is_not_relevant_and_a_topical_one_is():
    found = label_relevance(*planted(), n_permutations=1000)
    assert (found.raw_auroc[[0, 4]] > 0.64).all()
    assert found.relevant.tolist() == [False, True, False, False, False]
    assert found.auroc[1] > 0.65


def test_finer_length_groups_take_away_what_deciles_leave_of_the_length_itself():
    acts, positive, lengths = planted(spread=0.5)
    deciles, finer = (
        label_relevance(acts, positive, lengths, n_permutations=200, n_bins=n_bins) for n_bins in (10, 40)
    )
    assert deciles.raw_auroc[4] > 0.85
    assert finer.auroc[4] < deciles.auroc[4] < 0.65
    assert finer.relevant.tolist() == [False, True, False, False, False]


def test_results_do_not_depend_on_chunks_and_repeat_with_the_seed():
    acts, positive, lengths = planted(n=300)
    wide = sparse.hstack([acts] + [acts[:, [2]]] * 600).tocsr()
    found = label_relevance(wide, positive, lengths, n_permutations=200, rng_seed=4)
    assert np.array_equal(
        found.p, label_relevance(wide, positive, lengths, n_permutations=200, rng_seed=4).p, equal_nan=True
    )
    assert set(found.p[5:].tolist()) == {found.p[2]}  # equal columns in other chunks meet the same permutations
    other = label_relevance(wide, positive, lengths, n_permutations=200, rng_seed=5)
    assert not np.array_equal(found.p, other.p, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, y, n: (a, y[1:], n), "one of each per document"),
        (lambda a, y, n: (a, y, n[1:]), "one of each per document"),
        (lambda a, y, n: (a, y | True, n), "same label"),
        (lambda a, y, n: (a, y & False, n), "same label"),
        (lambda a, y, n: (a, y.astype(int), n), "true or false"),
        (lambda a, y, n: (a, y, np.where(y, 90, 10)), "length alone"),
        (lambda a, y, n: (a * np.nan, y, n), "NaN"),
    ],
)
def test_unusable_labels_are_refused_in_one_sentence(change, message):
    acts, positive, lengths = planted(n=60)
    with pytest.raises(InputError, match=message):
        label_relevance(*change(acts, positive, lengths), n_permutations=10)


@settings(deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0.0001, 1)))
def test_benjamini_hochberg_equals_scipys(p):
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p))


def test_correcting_no_tests_at_all_gives_nothing():
    found = label_relevance(sparse.csr_matrix((4, 2)), np.array([True, False] * 2), np.full(4, 3), n_permutations=10)
    assert not found.tested.any()
    assert not found.relevant.any()
    assert to_verdicts(found) == []


def test_verdicts_from_labels_carry_the_numbers_they_rest_on():
    found = label_relevance(*planted(), n_permutations=1000)
    verdicts = to_verdicts(found)
    assert [v.feature_id for v in verdicts] == [0, 1, 2, 4]
    assert [v.verdict for v in verdicts] == [Verdict.NO, Verdict.YES, Verdict.NO, Verdict.NO]
    topic = verdicts[1]
    assert (topic.feature_id, topic.source, topic.score) == (1, "label", found.auroc[1])
    for number in (f"{found.auroc[1]:.3f}", f"raw {found.raw_auroc[1]:.3f}", f"{found.q[1]:.3g}"):
        assert number in topic.rationale
    with pytest.raises(InputError, match="no labelled document"):
        to_verdict(found, 3)


THEMES = ("bread", "stars", "trains")


def themed(rng_seed=0, n=900):
    """Features 0-2 belong to one theme each, 3 to the first two, 4 is noise, 5 never fires, 6 tracks length."""
    rng = np.random.default_rng(rng_seed)
    theme = rng.integers(0, 3, n)
    lengths = rng.integers(5, 60, n) + 8 * theme
    acts = np.maximum(0, rng.normal(0, 1, (n, 7))).astype(np.float32)
    for i in range(3):
        acts[:, i] += 0.9 * (theme == i)
    acts[:, 3] += 0.5 * (theme == 0) + 0.9 * (theme == 1)
    acts[:, 5] = 0
    acts[:, 6] = lengths
    return sparse.csr_matrix(acts), [THEMES[i] for i in theme], lengths


def test_every_label_in_turn_gives_what_that_label_alone_gives_but_for_the_shared_correction():
    acts, labels, lengths = themed()
    found = theme_relevance(acts, labels, lengths, n_permutations=400)
    assert list(found) == sorted(THEMES)
    for name, result in found.items():
        alone = label_relevance(acts, np.array(labels) == name, lengths, n_permutations=400)
        for field in ("auroc", "raw_auroc", "p"):
            np.testing.assert_array_equal(getattr(result, field), getattr(alone, field))
    p = np.concatenate([r.p[r.tested] for r in found.values()])
    q = np.concatenate([r.q[r.tested] for r in found.values()])
    assert p.size == 3 * 6
    np.testing.assert_allclose(q, stats.false_discovery_control(p))


def test_a_feature_gets_the_theme_it_separates_best_and_noise_and_length_get_a_no():
    found = theme_relevance(*themed(), n_permutations=1000, n_bins=40)
    verdicts = {v.feature_id: v for v in to_theme_verdicts(found)}
    assert sorted(verdicts) == [0, 1, 2, 3, 4, 6]
    assert {i: v.theme for i, v in verdicts.items() if v.verdict is Verdict.YES} == {
        0: "bread", 1: "stars", 2: "trains", 3: "stars",
    }  # fmt: skip
    assert verdicts[3].score == max(r.auroc[3] for r in found.values())
    assert verdicts[3].rationale.startswith("stars: AUROC ")
    assert verdicts[4].theme in THEMES


def test_a_relevant_label_is_chosen_over_a_higher_auroc_that_chance_explains():
    acts, labels, lengths = themed()
    found = theme_relevance(acts, labels, lengths, n_permutations=100)
    found["stars"].relevant[0] = True
    found["bread"].relevant[0] = False
    assert found["bread"].auroc[0] > found["stars"].auroc[0]
    assert to_theme_verdicts(found)[0].theme == "stars"


def test_unlabelled_documents_count_among_the_others():
    acts, labels, lengths = themed()
    some = [None if label == "trains" else label for label in labels]
    found = theme_relevance(acts, some, lengths, n_permutations=50)
    assert list(found) == ["bread", "stars"]
    whole = theme_relevance(acts, labels, lengths, n_permutations=50)
    np.testing.assert_array_equal(found["stars"].auroc, whole["stars"].auroc)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 900, "There are 1 different labels; every label in turn needs 2 to"),
        ([None] * 900, "There are 0 different labels"),
        ([f"label {i % (MAX_LABELS + 1)}" for i in range(900)], f"There are {MAX_LABELS + 1} different labels"),
        (["a", "b"], "one of each per document"),
    ],
)
def test_labels_that_are_no_themes_are_refused(labels, message):
    acts, _, lengths = themed()
    with pytest.raises(InputError, match=message):
        theme_relevance(acts, labels, lengths)


def test_a_theme_that_length_alone_tells_apart_is_named():
    acts, labels, _ = themed()
    apart = np.where(np.array(labels) == "stars", 500, 20)
    with pytest.raises(InputError, match="Label 'bread': Text length alone"):
        theme_relevance(acts, ["stars" if x == "stars" else "bread" for x in labels], apart, n_permutations=10)


class AngleEmbedder:
    """Texts are cosines to the first axis; unit vectors in the plane of that axis and one of their own."""

    name = "angles"

    def __init__(self):
        self.seen = []

    def embed(self, texts):
        self.seen += texts
        cosines = np.array([float(t) for t in texts])
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)


def guideline(*points):
    return TaskGuideline("t", "T", ("user",), 1, "d", points, "s")


def explained(feature_id, text, outcome=ExplanationOutcome.EXPLAINED):
    return Explanation(feature_id, text, outcome, "lexical", "test")


@pytest.mark.parametrize(
    ("cosine", "verdict"),
    [(0.51, Verdict.YES), (0.49, Verdict.PROBABLY), (0.39, Verdict.MAYBE), (0.29, Verdict.NO), (-0.5, Verdict.NO)],
)
def test_the_cosine_to_a_rubric_point_gives_the_verdict(cosine, verdict):
    (found,) = embedding_relevance([explained(7, str(cosine))], guideline("1.0"), AngleEmbedder())
    assert (found.feature_id, found.source, found.verdict) == (7, "embedding", verdict)
    assert found.score == pytest.approx(cosine, abs=1e-6)


def test_meeting_one_rubric_point_is_enough_and_the_rationale_names_it():
    found = embedding_relevance([explained(0, "0.0"), explained(1, "1.0")], guideline("1.0", "0.0"), AngleEmbedder())
    assert [v.verdict for v in found] == [Verdict.YES, Verdict.YES]
    assert "0.0 (cosine 1.00)" in found[0].rationale
    assert "1.0 (cosine 1.00)" in found[1].rationale


def test_defect_24_unexplained_features_are_not_judged_by_status_not_by_text():
    embedder = AngleEmbedder()
    unexplained = [
        explained(1, "Cannot Tell.", ExplanationOutcome.CANNOT_TELL),
        explained(2, "", ExplanationOutcome.FAILED),
    ]
    assert embedding_relevance(unexplained, guideline("1.0"), embedder) == []
    assert embedder.seen == []
    found = embedding_relevance([*unexplained, explained(3, "0.9")], guideline("1.0"), embedder)
    assert [v.feature_id for v in found] == [3]


def test_a_guideline_without_points_is_refused():
    with pytest.raises(InputError, match="no rubric points"):
        embedding_relevance([explained(0, "1.0")], guideline(), AngleEmbedder())


verdict_lists = st.lists(
    st.builds(
        Relevance,
        feature_id=st.integers(0, 6),
        source=st.sampled_from(SOURCES),
        verdict=st.sampled_from(Verdict),
        score=st.just(0.5),
        rationale=st.just(""),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(verdict_lists, st.sampled_from(["yes", "probably", "maybe"]), st.sampled_from(SOURCES))
def test_relevant_features_equal_a_feature_by_feature_reading(verdicts, level, source):
    order = ["yes", "probably", "maybe", "no"]
    expected = []
    for feature_id in range(7):
        mine = [v.verdict for v in verdicts if v.feature_id == feature_id and v.source == source]
        human = [v.verdict for v in verdicts if v.feature_id == feature_id and v.source == "human"]
        final = (human or mine or [Verdict.NO])[-1]
        if order.index(final) <= order.index(level):
            expected.append(feature_id)
    assert relevant_features(verdicts, level, source).tolist() == expected


def test_a_person_overrules_the_machine_in_both_directions():
    def said(feature_id, source, verdict):
        return Relevance(feature_id, source, verdict, 0.0, "")

    verdicts = [
        said(1, "human", Verdict.NO),
        said(1, "label", Verdict.YES),
        said(2, "label", Verdict.NO),
        said(2, "human", Verdict.MAYBE),
        said(3, "embedding", Verdict.YES),
    ]
    assert relevant_features(verdicts, "maybe", "label").tolist() == [2]
    assert relevant_features(verdicts, "yes", "label").tolist() == []
    assert relevant_features(iter(verdicts), "yes", "embedding").tolist() == [3]


def test_unknown_levels_and_sources_are_refused_by_name():
    with pytest.raises(InputError, match="choose one of yes, probably, maybe"):
        relevant_features([], "no", "label")
    with pytest.raises(InputError, match="choose one of label"):
        relevant_features([], "yes", "oracle")


def test_sets_are_separated_in_both_directions_and_what_only_tracks_length_is_not():
    rng = np.random.default_rng(0)
    n = 400
    is_first = np.arange(n) < n // 2
    lengths = rng.integers(10, 60, n) + 30 * is_first
    more_in_first = np.where(is_first, 1.0, 0.3) * rng.random(n)
    acts = np.stack(
        [more_in_first, more_in_first.max() - more_in_first, lengths / 90, rng.random(n), np.zeros(n)], axis=1
    )
    found = separate_sets(acts.astype(np.float32), is_first, lengths, n_permutations=2000)
    assert found.tested.tolist() == [True, True, True, True, False]
    assert found.auroc[0] > 0.7
    assert found.auroc[1] == pytest.approx(1 - found.auroc[0], abs=1e-6)
    assert found.q[0] == found.q[1] == pytest.approx(0.002, rel=0.5)
    assert found.q[3] > 0.05
    assert np.isnan(found.q[4])
    assert abs(found.auroc[2] - 0.5) < abs(label_relevance(acts, is_first, lengths).raw_auroc[2] - 0.5) / 2


def test_the_two_sided_p_of_a_separation_is_twice_the_smaller_tail():
    rng = np.random.default_rng(1)
    is_first = rng.random(60) < 0.5
    acts = rng.random((60, 5)).astype(np.float32)
    lengths = np.full(60, 7)
    found = separate_sets(acts, is_first, lengths, n_permutations=999)
    upper = label_relevance(acts, is_first, lengths, n_permutations=999).p
    lower = label_relevance(-acts, is_first, lengths, n_permutations=999).p
    expected = benjamini_hochberg(np.minimum(1, 2 * np.where(found.auroc < 0.5, lower, upper)))
    assert found.q == pytest.approx(expected)
