"""Clusters named by the words of their own features' explanations."""

from __future__ import annotations

from facviz.explain.cluster_names import name_clusters


def test_a_cluster_is_named_by_what_its_features_share_and_others_lack():
    texts = dict.fromkeys(range(4), 'fires on "tea"; after "hot"') | {i: f'fires on "word{i}"' for i in range(4, 40)}
    texts[1] = 'fires on "tea", "coffee"'
    texts[2] = 'fires on "coffee"'
    cluster_of = dict.fromkeys(range(4), 0) | {i: 1 + i // 20 for i in range(4, 40)}
    assert name_clusters(cluster_of, texts)[0] == "tea, coffee, hot"


def test_what_every_explanation_says_and_features_in_no_cluster_name_nothing():
    texts = dict.fromkeys(range(10), "fires on the words of a recipe")
    cluster_of = {i: 0 if i < 5 else -1 for i in range(10)}
    assert name_clusters(cluster_of, texts) == {0: ""}


def test_prose_without_quotes_is_read_word_by_word_and_short_words_and_numbers_are_no_names():
    texts = {0: "Terms of marine biology in 1999", 1: "marine life", 2: "of no use", 3: "12 34 an", 4: "other", 5: "x"}
    texts |= {i: f"unlike{i} things{i}" for i in range(6, 30)}
    cluster_of = {i: 0 if i < 2 else 1 for i in range(30)}
    assert name_clusters(cluster_of, texts)[0] == "marine"


def test_one_feature_alone_names_no_cluster_and_unexplained_ones_leave_it_without_a_name():
    texts = {0: 'fires on "zebra"', **{i: f'fires on "w{i}x"' for i in range(5, 20)}}
    cluster_of = {0: 0, 1: 0, 2: 1, 3: 1, **dict.fromkeys(range(5, 20), 2)}
    assert name_clusters(cluster_of, texts) == {0: "", 1: "", 2: ""}
