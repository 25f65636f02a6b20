"""Embedding scores against planted vectors whose AUROC is on paper."""

import itertools

import numpy as np
import pytest

from facviz.errors import InputError
from facviz.explain.scorers import EmbeddingScore, _auroc, derangement, embedding_scores, to_scores
from facviz.records import Explanation, ExplanationOutcome, Span, Split

THEMES = ["kill", "code", "cook"]


class ThemeEmbedder:
    """Unit vectors along the themes named in a text, so equal themes tie exactly; remembers what it was asked."""

    name = "themes"

    def __init__(self):
        self.requests = []

    def embed(self, texts):
        self.requests.append(list(texts))
        rows = np.array([[float(theme in text) for theme in THEMES] for text in texts], dtype=np.float32)
        vectors = np.hstack([rows, np.full((len(texts), 1), 0.1, dtype=np.float32)])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def span(feature_id, text, doc_no, split=Split.SCORE):
    return Span(feature_id, 0, 1.0, split, doc_no, 0, 1, 0, len(text), 0, 1.0, (text,), (1.0,))


def explanation(feature_id, text, outcome=ExplanationOutcome.EXPLAINED):
    return Explanation(feature_id, text, outcome, "lexical", "test")


@pytest.fixture
def world():
    held_out = {
        f: [span(f, f"{theme} number {i}", doc_no=100 * f + i) for i in range(6)] for f, theme in enumerate(THEMES)
    }
    background = list(itertools.chain.from_iterable(held_out.values()))
    return [explanation(f, f"fires on {theme}") for f, theme in enumerate(THEMES)], held_out, background


def test_true_explanations_score_one_and_swapped_ones_at_most_half(world):
    scores = embedding_scores(*world, ThemeEmbedder(), rng_seed=0)
    assert set(scores) == {0, 1, 2}
    for score in scores.values():
        assert (score.auroc, score.n_active, score.n_background) == (1.0, 6, 6)
        assert score.shuffled_auroc <= 0.5


def test_a_wrong_explanation_scores_at_most_half(world):
    explanations, held_out, background = world
    wrong = [explanation(0, "fires on code"), *explanations[1:]]
    assert embedding_scores(wrong, held_out, background, ThemeEmbedder(), rng_seed=0)[0].auroc <= 0.5


def test_each_distinct_text_is_embedded_once(world):
    explanations, held_out, background = world
    held_out[0].append(span(0, held_out[0][0].text, doc_no=99))
    embedder = ThemeEmbedder()
    embedding_scores(explanations, held_out, background, embedder, rng_seed=0)
    asked = list(itertools.chain.from_iterable(embedder.requests))
    assert len(asked) == len(set(asked))
    assert len(embedder.requests) == 1


def test_background_never_comes_from_the_feature_or_its_documents(world):
    explanations, held_out, _ = world
    own_document = [span(7, "kill next door", doc_no=held_out[0][0].doc_no) for _ in range(50)]
    own_span = [span(0, "kill elsewhere", doc_no=5000 + i) for i in range(50)]
    stranger = span(8, "gardening", doc_no=9000)
    embedder = ThemeEmbedder()
    for rng_seed in range(20):
        score = embedding_scores(
            explanations[:1], held_out, [*own_document, stranger, *own_span], embedder, rng_seed=rng_seed
        )[0]
        assert (score.auroc, score.n_background) == (1.0, 1)
    asked = set(itertools.chain.from_iterable(embedder.requests))
    assert "gardening" in asked
    assert not asked & {"kill next door", "kill elsewhere"}


def test_background_is_as_large_as_the_active_side_and_drawn_at_random(world):
    explanations, held_out, _ = world
    pool = [span(50, f"text {i}", doc_no=10_000 + i) for i in range(1000)]
    draws = []
    for rng_seed in (0, 0, 1):
        embedder = ThemeEmbedder()
        assert embedding_scores(explanations[:1], held_out, pool, embedder, rng_seed=rng_seed)[0].n_background == 6
        draws.append({text for text in embedder.requests[0] if text.startswith("text")})
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("outcome", [ExplanationOutcome.CANNOT_TELL, ExplanationOutcome.FAILED])
def test_only_explained_features_are_scored(world, outcome):
    explanations, held_out, background = world
    mixed = [explanation(0, "fires on kill", outcome), *explanations[1:]]
    assert set(embedding_scores(mixed, held_out, background, ThemeEmbedder(), rng_seed=0)) == {1, 2}


def test_features_without_spans_or_background_are_left_out(world):
    explanations, held_out, background = world
    embedder = ThemeEmbedder()
    assert embedding_scores(explanations, {0: [], 1: held_out[1]}, [], embedder, rng_seed=0) == {}
    assert embedding_scores(explanations, {}, background, embedder, rng_seed=0) == {}
    assert embedding_scores([], held_out, background, embedder, rng_seed=0) == {}
    assert embedder.requests == []


def test_a_single_feature_has_no_shuffled_score(world):
    explanations, held_out, background = world
    score = embedding_scores(explanations[:1], held_out, background, ThemeEmbedder(), rng_seed=0)[0]
    assert score.shuffled_auroc is None
    assert "embedding_auroc_shuffled" not in to_scores(score)


@pytest.mark.parametrize("side", ["held_out", "background"])
def test_spans_of_the_explain_split_are_refused(world, side):
    explanations, held_out, background = world
    leaked = span(0, "kill", 1, Split.EXPLAIN)
    if side == "held_out":
        held_out[0].append(leaked)
    else:
        background.append(leaked)
    with pytest.raises(InputError, match="score split"):
        embedding_scores(explanations, held_out, background, ThemeEmbedder(), rng_seed=0)


def test_two_explanations_of_one_feature_are_refused(world):
    explanations, held_out, background = world
    with pytest.raises(InputError, match="more than one explanation"):
        embedding_scores([*explanations, explanations[0]], held_out, background, ThemeEmbedder(), rng_seed=0)


def test_auroc_equals_counting_pairs_with_ties_as_half():
    rng = np.random.default_rng(0)
    for n_active in (1, 3, 7):
        similarity = rng.integers(0, 5, 12).astype(float)
        pairs = list(itertools.product(similarity[:n_active], similarity[n_active:]))
        counted = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)
        assert _auroc(similarity, n_active) == pytest.approx(counted)


def test_the_interval_keeps_its_width_at_a_perfect_score(world):
    score = embedding_scores(*world, ThemeEmbedder(), rng_seed=0)[0]
    # Wilson at 6 of 6: low = 1 / (1 + z²/6) = 6 / (6 + 3.8415).
    assert score.low == pytest.approx(6 / 9.8415, abs=1e-4)
    assert score.high == 1.0


@pytest.mark.parametrize("n", [2, 3, 10, 101])
def test_nobody_keeps_their_own_explanation_when_they_are_shuffled(n):
    for rng_seed in range(5):
        partners = derangement(n, rng_seed)
        assert sorted(partners) == list(range(n))
        assert all(i != partner for i, partner in enumerate(partners))


def test_scores_of_one_feature_do_not_depend_on_which_others_are_scored(world):
    explanations, held_out, _ = world
    pool = [span(50, f"{theme} {i}", doc_no=10_000 + i) for i, theme in enumerate(THEMES * 50)]
    everyone = embedding_scores(explanations, held_out, pool, ThemeEmbedder(), rng_seed=3)
    alone = embedding_scores(explanations[1:2], held_out, pool, ThemeEmbedder(), rng_seed=3)
    assert alone[1].auroc == everyone[1].auroc
    assert 0.5 < alone[1].auroc < 1


def test_scores_are_recorded_under_their_names():
    assert to_scores(EmbeddingScore(0.9, 6, 5, 0.6, 0.98, 0.4)) == {
        "embedding_auroc": 0.9,
        "embedding_auroc_low": 0.6,
        "embedding_auroc_high": 0.98,
        "embedding_n_active": 6.0,
        "embedding_n_background": 5.0,
        "embedding_auroc_shuffled": 0.4,
    }
