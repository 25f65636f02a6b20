"""Text diversity by hand, and the vectors' measures against their definitions."""

from __future__ import annotations

import doctest
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from facviz import diversity
from facviz.errors import InputError

TEXTS = ["The cat sat.", "the cat ran", "A dog"]


def test_every_lexical_measure_by_hand():
    found = diversity.measure_texts(TEXTS)
    # the cat sat the cat ran a dog: eight words, six different; pairs: the-cat, cat-sat, the-cat, cat-ran, a-dog.
    assert found["distinct_1"] == pytest.approx(6 / 8)
    assert found["distinct_2"] == pytest.approx(4 / 5)
    assert found["entropy_1"] == pytest.approx(2 * 2 / 8 * 2 + 4 * 1 / 8 * 3)
    assert found["entropy_2"] == pytest.approx(2 / 5 * math.log2(5 / 2) + 3 / 5 * math.log2(5))
    assert found["cosine"] is found["vendi"] is found["pos_distinct_2"] is None
    assert set(found) == {measure.key for measure in diversity.MEASURES}


def test_what_no_text_shows_is_unknown_not_zero():
    assert set(diversity.measure_texts([]).values()) == {None}
    alone = diversity.measure_texts(["word"])
    assert alone["distinct_1"] == 1
    assert alone["distinct_2"] is alone["entropy_2"] is None
    assert alone["entropy_1"] == 0


def test_repetition_compresses_and_variety_does_not():
    again = diversity.compression_ratio(["the same words once more"] * 50)
    varied = diversity.compression_ratio(
        ["".join(np.random.default_rng(i).permutation(list("abcdefghij"))) for i in range(50)]
    )
    assert again > 20 > varied > 1


def test_words_of_any_script_and_lone_surrogates_are_counted():
    assert diversity.words_of("Größe d’accord naïve_x 東京") == ["größe", "d’accord", "naïve", "x", "東京"]
    assert diversity.measure_texts(["a \ud800 b"])["compression"] is not None


def test_the_mean_cosine_is_that_of_all_pairs():
    rows = np.random.default_rng(0).normal(size=(9, 4))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = [unit[i] @ unit[j] for i in range(9) for j in range(9) if i != j]
    assert diversity.mean_pairwise_cosine(rows) == pytest.approx(np.mean(pairs))
    assert diversity.mean_pairwise_cosine(rows[:1]) is None


@pytest.mark.parametrize("shape", [(5, 8), (8, 5)])
def test_the_vendi_score_is_that_of_the_similarity_matrix_whichever_side_is_smaller(shape):
    rows = np.random.default_rng(1).normal(size=shape)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    shares = np.linalg.eigvalsh(unit @ unit.T / len(rows))
    shares = shares[shares > 1e-12]
    assert diversity.vendi_score(rows) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_the_vendi_score_counts_texts_that_differ():
    assert diversity.vendi_score(np.ones((7, 3))) == pytest.approx(1)
    assert diversity.vendi_score(np.eye(3)[[0, 0, 1, 1]]) == pytest.approx(2)
    assert diversity.vendi_score(np.empty((0, 3))) is None
    with pytest.raises(InputError, match="length 0"):
        diversity.vendi_score(np.zeros((2, 3)))


def test_tag_pairs_come_from_the_tagger_given():
    found = diversity.measure_texts(["a b c", "d e"], tagger=lambda words: ["N" if w in "ad" else "V" for w in words])
    assert found["pos_distinct_2"] == pytest.approx(2 / 3)  # N-V, V-V, N-V


def test_a_tagger_is_found_only_with_its_data(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)  # as if it were not installed
    assert diversity.find_tagger() is None

    def without_data(words, tagset):
        raise LookupError

    monkeypatch.setitem(sys.modules, "nltk", SimpleNamespace(pos_tag=without_data))
    assert diversity.find_tagger() is None
    tags = SimpleNamespace(pos_tag=lambda words, tagset: [(w, tagset[:4]) for w in words])
    monkeypatch.setitem(sys.modules, "nltk", tags)
    assert diversity.find_tagger()(["x", "y"]) == ["univ", "univ"]


def test_only_single_words_and_pairs_are_counted():
    with pytest.raises(InputError, match="give 1 or 2"):
        diversity.distinct([["a"]], 3)


def test_the_examples_hold_and_every_measure_is_one_sentence():
    assert doctest.testmod(diversity).failed == 0
    for measure in diversity.MEASURES:
        assert measure.definition.endswith(".")
        assert ". " not in measure.definition
