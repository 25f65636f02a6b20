"""Duplicates by hand and against a loop that is obviously right."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from facviz.evaluation.duplicates import exact_duplicates, near_duplicates


def split(*texts):
    return [text.split() for text in texts]


def test_the_same_words_are_an_exact_duplicate_and_no_words_never_are():
    found = exact_duplicates(split("how do I rob", "how do I cook", ""), split("how do I rob", ""))
    assert found.tolist() == [True, False, False]


def test_half_of_the_trigrams_in_common_is_near():
    # trigrams abc bcd cde against abc bcd cdx: 2 shared of 4
    assert near_duplicates(split("a b c d e"), split("a b c d x"), min_jaccard=0.5).tolist() == [True]
    assert near_duplicates(split("a b c d e"), split("a b c d x"), min_jaccard=0.51).tolist() == [False]


def test_short_texts_are_compared_whole():
    found = near_duplicates(split("hi", "hi there", ""), split("hi", "hello there", ""), min_jaccard=0.5)
    assert found.tolist() == [True, False, False]


def test_nothing_to_compare_with_is_no_duplicate():
    assert near_duplicates(split("a b c"), [], min_jaccard=0.5).tolist() == [False]
    assert near_duplicates([], split("a b c"), min_jaccard=0.5).tolist() == []


texts = st.lists(st.lists(st.sampled_from("abcd"), max_size=7), max_size=6)


@given(texts, texts, st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_the_matrix_product_finds_what_a_loop_over_sets_finds(words, others, share):
    def shingles(text):
        return {tuple(text[i : i + 3]) for i in range(max(1, len(text) - 2))} if text else set()

    def is_near(text):
        own = shingles(text)
        sets = [shingles(other) for other in others]
        return any(own & s and len(own & s) >= share * len(own | s) for s in sets)

    assert near_duplicates(words, others, min_jaccard=share).tolist() == [is_near(text) for text in words]
