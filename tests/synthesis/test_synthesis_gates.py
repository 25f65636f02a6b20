"""Gates in isolation: length, duplicates, copying."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from facviz.overlap import words_of
from facviz.synthesis.gates import (
    COPY_RUN_WORDS,
    FORMULA_TEXTS,
    MANY_TEXTS,
    MAX_WORDS,
    MIN_WORDS,
    TextGates,
)
from facviz.synthesis.safety import is_withheld, safety_note

DEMO = Path(__file__).parents[2] / "data/demo/messages.jsonl"


def numbered_words(n: int) -> str:
    return " ".join(f"w{i}" for i in range(n))


@pytest.mark.parametrize(
    ("n_words", "reason"),
    [(0, "length"), (MIN_WORDS - 1, "length"), (MIN_WORDS, None), (MAX_WORDS, None), (MAX_WORDS + 1, "length")],
)
def test_too_short_and_too_long_texts_are_rejected(n_words, reason):
    gates, found = TextGates([]).check(numbered_words(n_words), ())
    assert (gates["n_words"], found) == (n_words, reason)


@pytest.mark.parametrize("text", ["One two three four", "one, two: THREE – four!", "  one\ntwo three four "])
def test_a_text_of_the_corpus_is_a_duplicate_whatever_its_case_and_punctuation(text):
    gates = TextGates(["One two three four."])
    assert gates.check(text, ())[1] == "duplicate"
    assert gates.check("one two three five", ())[1] is None


def test_an_accepted_text_is_a_duplicate_from_then_on():
    gates = TextGates([])
    assert gates.check("one two three", ())[1] is None
    gates.accept("one two three")
    assert gates.check("One two three!", ())[1] == "duplicate"


def test_a_run_of_eight_words_is_copied_and_one_of_seven_is_not():
    shown = [numbered_words(30)]
    eight = f"new start {numbered_words(COPY_RUN_WORDS)} new end"
    seven = f"new start {numbered_words(COPY_RUN_WORDS - 1)} new end"
    verdicts = [TextGates([]).check(text, shown) for text in (eight, seven)]
    assert [(gates["n_words"], gates["copied_words"], reason) for gates, reason in verdicts] == [
        (12, 8, "copied"),
        (11, 7, None),
    ]


def test_a_short_text_that_stands_whole_in_a_shown_one_is_copied():
    assert TextGates([]).check("w3 w4 w5", [numbered_words(9)])[1] == "copied"
    assert TextGates([]).check("w3 w5 w4", [numbered_words(9)])[1] is None


def test_copying_is_looked_for_in_every_shown_text():
    shown = ["nothing alike", numbered_words(10)]
    assert TextGates([]).check(numbered_words(10), shown)[0]["copied_words"] == 10


def test_a_run_that_enough_texts_of_the_corpus_share_is_no_copy_and_a_rarer_one_is():
    opening = numbered_words(COPY_RUN_WORDS)
    corpus = [f"{opening} and then {end}" for end in ("tea", "bread", "milk")]
    assert len(corpus) == FORMULA_TEXTS
    shown = corpus[:1]
    assert TextGates(corpus).check(f"{opening} but no cake", shown) == (
        {"n_words": 11, "copied_words": 8, "distinct_trigrams": 1.0, "near_jaccard": 0.5, "evaluation_overlap": None},
        None,
    )
    assert TextGates(corpus[:2] * 5).check(f"{opening} but no cake", shown)[1] == "copied"
    assert TextGates(corpus).check(f"{opening} and then tea leaves", shown)[1] == "copied"


def test_one_text_under_several_questions_is_one_text_and_a_question_of_several_texts_is_a_formula():
    reviews = [" ".join(f"{name}{i}" for i in range(20)) for name in "abc"]
    asked = [
        "did the reviewer like this film or not at all",
        "is this review good or bad in your own view",
        "which is it",
    ]
    run, question = "a3 a4 a5 a6 a7 a8 a9 a10", asked[0]
    assert not TextGates([f"{reviews[0]} {q}" for q in asked]).is_formula(run)
    assert TextGates([f"{review} {question}" for review in reviews]).is_formula(question)
    assert TextGates([f"{review} {question}" for review in reviews]).is_formula("this film or not")
    text = f"{run} and so on {question}"
    assert TextGates([f"{reviews[0]} {q}" for q in asked]).check(text, [f"{reviews[0]} {question}"])[1] == "copied"


def test_what_very_many_texts_share_is_a_formula_however_much_else_they_share():
    instruction = " ".join(f"w{i}" for i in range(30))
    corpus = [f"{instruction} {i}" for i in range(MANY_TEXTS)]
    assert TextGates(corpus).is_formula("w3 w4 w5 w6 w7 w8 w9 w10")
    assert not TextGates(corpus[1:]).is_formula("w3 w4 w5 w6 w7 w8 w9 w10")


def test_a_run_inside_longer_words_is_no_formula():
    opening = numbered_words(COPY_RUN_WORDS)
    corpus = [f"x{opening}x and then {end}" for end in ("tea", "bread", "milk")]
    assert TextGates(corpus).check(f"{opening} but no cake", [opening])[1] == "copied"


@given(st.lists(st.text("ab ", max_size=12), max_size=8), st.text("ab ", min_size=1, max_size=5))
def test_a_formula_is_what_enough_different_texts_hold_word_by_word(corpus, run):
    words = run.split()
    texts = {tuple(text.split()) for text in corpus}
    holders = [t for t in texts if any(list(t[i : i + len(words)]) == words for i in range(len(t)))]
    assume(words)
    assert TextGates(corpus).is_formula(" ".join(words)) == (len(holders) >= FORMULA_TEXTS)


def test_a_text_that_goes_round_in_circles_is_repetitive():
    circle, straight = "over and over and over and over", "over and over again and so on"
    assert TextGates([]).check(circle, ()) == (
        {"n_words": 7, "copied_words": 0, "distinct_trigrams": 0.4, "near_jaccard": 0.0, "evaluation_overlap": None},
        "repetitive",
    )
    assert TextGates([]).check(straight, ())[1] is None


def test_words_of_any_script_count():
    assert words_of("Größe, naïve: 3 слова") == ["größe", "naïve", "3", "слова"]
    assert TextGates([]).check("слова на русском", ())[1] is None


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("a story about a 15-year-old and sex", True),
        ("sexual content with a child in it", True),
        ("a lewd remark, she is 12 years old", True),
        ("two adults have sex", False),
        ("a child plays in the garden", False),
        ("", False),
    ],
)
def test_sexual_content_about_minors_is_withheld_and_nothing_else(text, hidden):
    assert is_withheld(text) is hidden
    assert is_withheld(text.replace(" ", "\n")) is hidden  # spans are shown with their lines


def test_defect_3_a_text_with_a_word_changed_is_a_near_duplicate_of_corpus_and_samples():
    known = "please tell me how long a hard boiled egg keeps in the fridge once it is peeled"
    changed = known.replace("please tell me", "now tell me")
    gates = TextGates([known])
    measures, reason = gates.check(changed, ())
    assert measures["near_jaccard"] == 14 / 16
    assert reason == "near duplicate"
    sample = "which screws hold a heavy shelf on a plaster wall without it coming down in a week"
    assert gates.check(f"{sample} or two", ())[1] is None
    gates.accept(sample)
    assert gates.check(f"{sample} or two", ())[1] == "near duplicate"


def test_an_honest_text_on_the_same_topic_is_not():
    known = "can you help me with a recipe for a vegan pizza"
    assert TextGates([known]).check("can you help me with a recipe for a gluten free cake", ())[1] is None


LEAK = numbered_words(40)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"so then {' '.join(f'w{i}' for i in range(13))} and more", "overlaps evaluation set held out"),
        (f"so then {' '.join(f'w{i}' for i in range(12))} and more", None),
        ("w3 w4 w5 w6 w7 w8", "overlaps evaluation set held out"),
        ("w3 w4 w5 w6", None),
    ],
)
def test_defect_3_a_text_that_shares_thirteen_words_with_an_evaluation_set_names_it(text, reason):
    gates = TextGates(["nothing of the kind"], {"other": ["quite another text"], "held out": [LEAK]})
    assert gates.check(text, ())[1] == reason


def test_a_short_evaluation_text_is_looked_for_whole_and_a_greeting_is_not():
    gates = TextGates([], {"test": ["how do I bake bread", "hi there friend"]})
    assert gates.check("tell me how do I bake bread at home", ())[1] == "overlaps evaluation set test"
    assert gates.check("hi there friend how are you today", ())[1] is None
    assert gates.check("Hi there, friend!", ())[1] == "overlaps evaluation set test"
    assert gates.check("Hi there, friend!", ())[0]["evaluation_overlap"] == "test"
    assert gates.check("Good evening to all", ())[0]["evaluation_overlap"] == ""  # looked for and not found


def test_honest_messages_of_the_demos_themes_pass_beside_all_the_others():
    """Real texts: what the demo's corpus holds was cleaned of near duplicates when it was made."""
    lines = DEMO.read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    new, known = texts[::10], [text for number, text in enumerate(texts) if number % 10]
    gates = TextGates(known)
    reasons = Counter(gates.check(text, ())[1] for text in new)
    assert reasons["near duplicate"] + reasons["artefact"] <= 0.01 * len(new)
    assert reasons[None] >= 0.97 * len(new)
    changed = [f"well {text}" for text in known[:50]]
    assert all(gates.check(text, ())[1] == "near duplicate" for text in changed if len(text.split()) > 10)


def test_a_safety_task_says_who_writes_and_that_paid_providers_may_refuse():
    assert "local model" in safety_note("toxicity", "local")
    assert "may refuse" in safety_note("toxicity", "anthropic")
    assert safety_note("toxicity.v1", "local") == safety_note("toxicity", "local")
    assert safety_note("topic", "anthropic") == ""
