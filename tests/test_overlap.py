"""Duplicates by hand and against a loop that is obviously right."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from facviz.overlap import (
    ShingleIndex,
    distinct_trigrams,
    exact_duplicates,
    longest_shared_run,
    near_duplicates,
    placed_words,
    shared_runs,
    shingles,
    words_of,
)

WORD = st.sampled_from("abcd")


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


def contains(words, run):
    return any(words[i : i + len(run)] == run for i in range(len(words) - len(run) + 1))


@given(st.lists(WORD, max_size=12), st.lists(st.lists(WORD, max_size=12), max_size=3))
def test_the_longest_shared_run_equals_that_of_a_brute_force_search(words, others):
    runs = [words[i:j] for i in range(len(words)) for j in range(i + 1, len(words) + 1)]
    shared = [len(run) for run in runs if any(contains(other, run) for other in others)]
    assert longest_shared_run(words, others) == max(shared, default=0)


@given(st.lists(WORD, max_size=12), st.lists(st.lists(WORD, max_size=12), max_size=3), st.integers(1, 5))
def test_there_are_shared_runs_of_every_size_up_to_the_longest_and_each_stands_in_both(words, others, size):
    found = shared_runs(words, others, size)
    assert bool(found) == (longest_shared_run(words, others) >= size)
    for run in found:
        assert contains(words, run.split())
        assert any(contains(other, run.split()) for other in others)


@given(st.lists(WORD, max_size=12))
def test_the_share_of_distinct_trigrams_equals_that_of_a_loop(words):
    seen = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    expected = sum(trigram not in seen[:i] for i, trigram in enumerate(seen)) / len(seen) if seen else 1.0
    assert distinct_trigrams(words) == expected


def test_text_written_without_spaces_is_counted_by_character():
    assert len(words_of("我喜欢读书 and tea")) == 7


@given(st.lists(st.lists(WORD, min_size=1, max_size=10), min_size=1, max_size=6), st.lists(WORD, max_size=10))
def test_the_nearest_text_is_that_of_a_loop_over_all(known, words):
    index = ShingleIndex()
    for other in known:
        index.add(other)
    own = shingles(words)
    likeness = [len(own & shingles(other)) / len(own | shingles(other)) for other in known]
    value, number = index.nearest(words)
    assert len(index) == len(known)
    assert value == max(likeness)
    assert number == (likeness.index(value) if value else -1)


def test_words_know_their_places():
    text = "Größe, naïve!"
    assert [(w.text, text[w.start : w.end]) for w in placed_words(text)] == [("größe", "Größe"), ("naïve", "naïve")]
