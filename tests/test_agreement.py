"""Agreement beyond chance: by hand, against published examples, and against scikit-learn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facviz.agreement import Agreement, cohen_kappa, in_words, krippendorff_alpha

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), sections A to C.
BINARY = ("0100000010", "1110010000")
TWO_OBSERVERS = ("aabbdcccedda", "babbbccceddd")
FOUR_OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def items(*rows):
    return [[answer for answer in column if answer != "."] for column in zip(*rows, strict=True)]


def test_kappa_of_a_table_computed_by_hand():
    # 20 + 15 of 50 equal: .7. By chance: .5 × .6 + .5 × .4 = .5. So (.7 - .5) / (1 - .5) = .4.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    found = cohen_kappa(pairs)
    assert found.value == pytest.approx(0.4)
    assert (found.n_items, found.n_ratings, found.observed) == (50, 100, 0.7)


def test_kappa_of_two_tables_with_equal_agreement_and_unequal_chance():
    # Both agree on .6; by chance .54 and .46: .13 and .26, the textbook pair.
    first = [("y", "y")] * 45 + [("y", "n")] * 15 + [("n", "y")] * 25 + [("n", "n")] * 15
    second = [("y", "y")] * 25 + [("y", "n")] * 35 + [("n", "y")] * 5 + [("n", "n")] * 35
    assert cohen_kappa(first).value == pytest.approx(0.1304, abs=1e-4)
    assert cohen_kappa(second).value == pytest.approx(0.2593, abs=1e-4)


def test_alpha_of_the_published_example_with_two_observers_and_two_kinds():
    assert krippendorff_alpha(items(*BINARY)).value == pytest.approx(0.095, abs=5e-4)


def test_alpha_of_the_published_example_with_two_observers_and_five_kinds():
    assert krippendorff_alpha(items(*TWO_OBSERVERS)).value == pytest.approx(0.692, abs=5e-4)


def test_alpha_of_the_published_example_with_four_observers_and_missing_answers():
    found = krippendorff_alpha(items(*FOUR_OBSERVERS))
    assert found.value == pytest.approx(0.743, abs=5e-4)
    assert (found.n_items, found.n_ratings) == (11, 40)


def test_alpha_by_hand():
    # Three items by two people, two equal: 2 of 6 ordered pairs unequal. By chance, of a a a b b b: 18 / 5 of 6.
    found = krippendorff_alpha([("a", "a"), ("a", "b"), ("b", "b"), ("b",)])
    assert found.value == pytest.approx(1 - 2 / (18 / 5))
    assert (found.n_items, found.n_ratings, found.observed) == (3, 6, pytest.approx(2 / 3))


ANSWERS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=40)


@given(ANSWERS)
def test_kappa_equals_the_one_of_scikit_learn(pairs):
    from sklearn.metrics import cohen_kappa_score

    found = cohen_kappa(pairs).value
    if found is not None:
        assert found == pytest.approx(cohen_kappa_score(*zip(*pairs)), abs=1e-12)
    else:
        assert len({answer for pair in pairs for answer in pair}) == 1


@given(ANSWERS)
def test_alpha_of_two_equals_a_loop_over_all_pairs_of_answers(pairs):
    answers = [answer for pair in pairs for answer in pair]
    n = len(answers)
    by_chance = sum(a != b for i, a in enumerate(answers) for j, b in enumerate(answers) if i != j) / (n * (n - 1))
    unequal = sum(a != b for a, b in pairs) / len(pairs)
    found = krippendorff_alpha(pairs).value
    assert found is None if by_chance == 0 else found == pytest.approx(1 - unequal / by_chance)


def test_what_cannot_be_known_is_unknown():
    assert cohen_kappa([]) == krippendorff_alpha([("a",)]) == Agreement(None, 0, 0, None)
    assert cohen_kappa([("a", "a")] * 3).value is None
    assert krippendorff_alpha([("a", "a")] * 3) == Agreement(None, 3, 6, 1.0)


@pytest.mark.parametrize(
    ("value", "n", "words"),
    [
        (None, 0, "nothing judged by two yet"),
        (None, 9, "everybody always said the same"),
        (-0.1, 50, "no better than chance"),
        (0.2, 50, "slight"),
        (0.41, 50, "moderate"),
        (0.81, 50, "almost perfect"),
        (0.81, 19, "almost perfect, on few items"),
    ],
)
def test_a_coefficient_is_said_in_words(value, n, words):
    assert in_words(Agreement(value, n, 2 * n, None)) == words
