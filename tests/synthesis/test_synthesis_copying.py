"""The anti-copy gate: on the planted model, whose features fire on a word, and on a feature that needs context."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from facviz.overlap import runs, words_of
from facviz.records import Candidate, Document, Encoded, Message
from facviz.synthesis.copying import MASKED_RUN_WORDS, ONLY_COPIED, CopyGate, own_parts, without_copied
from facviz.synthesis.gates import COPY_RUN_WORDS
from facviz.testing.planted import D_SAE

FEATURE = 12
SHOWN = ["apple bread cloud drum mirror eagle"]


def never(run):
    return False


def masked(text, peak_word, shown=SHOWN, is_formula=never):
    start = text.index(peak_word) if peak_word else -1
    found, n = without_copied(Document.from_text(text), shown, (start, start + len(peak_word)), is_formula)
    return found.text, n


def test_a_run_of_four_words_is_taken_out_and_one_of_three_is_not():
    assert MASKED_RUN_WORDS == 4
    assert masked("now apple bread cloud drum later", "now") == ("now later", 4)
    assert masked("now apple bread cloud later", "now") == ("now apple bread cloud later", 0)


def test_the_word_at_the_peak_stays_and_all_else_that_was_copied_goes():
    assert masked("see apple bread, cloud; drum mirror eagle now", "mirror") == ("see mirror now", 5)
    assert masked("apple bread cloud drum mirror eagle", "mirror") == ("mirror", 5)


def test_a_peak_on_a_mark_keeps_the_word_before_it():
    found, n = without_copied(Document.from_text("apple bread cloud drum."), SHOWN, (22, 23), never)
    assert (found.text, n) == ("drum.", 3)


def test_a_run_that_the_corpus_shares_is_nobodys():
    assert masked("apple bread cloud drum later", "later", is_formula=lambda run: run == "apple bread cloud drum") == (
        "apple bread cloud drum later",
        0,
    )


def test_every_message_is_masked_and_only_the_one_with_the_peak_keeps_a_word():
    copied = "apple bread cloud drum"
    document = Document((Message("user", copied), Message("assistant", copied)))
    start = document.text.rindex("drum")
    found, n = without_copied(document, SHOWN, (start, start + 4), never)
    assert ([m.content for m in found.messages], n) == (["", "drum"], 7)


def test_what_the_corpus_shares_is_left_out_of_a_texts_own_parts():
    asked = "did the reviewer find this movie good or bad"
    shared = runs(asked.split(), COPY_RUN_WORDS)
    text = "We laughed. Then we cried! Did the reviewer find this movie good or bad?"
    assert own_parts([text], shared.__contains__) == ("We laughed. Then we cried",)
    assert own_parts([asked], shared.__contains__) == ()
    more = own_parts([f"{text} Nobody would know why"], shared.__contains__)
    assert more == ("We laughed. Then we cried", "Nobody would know why")


def test_a_text_too_short_for_a_run_is_a_formula_as_a_whole_or_its_own():
    assert own_parts(["Make a title", "★★★"], lambda run: run == "make a title") == ("★★★",)
    assert own_parts(["Make a title."], never) == ("Make a title",)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=24), st.sets(st.text("abc", min_size=8, max_size=8)))
def test_a_word_stands_in_an_own_part_unless_a_formula_holds_it(letters, formulas):
    text, shared = ", ".join(letters), {" ".join(formula) for formula in formulas}
    parts = own_parts([text], shared.__contains__)
    firsts = [i for i in range(len(letters) - 7) if " ".join(letters[i : i + 8]) in shared]
    own = [letter for i, letter in enumerate(letters) if not any(first <= i < first + 8 for first in firsts)]
    assert [word for part in parts for word in words_of(part)] == own
    assert all(part in text for part in parts)


class ContextEncoder:
    """Fires feature 12 on "mirror", at 2, and only where "drum" stands before it: a feature that needs its context."""

    d_sae = D_SAE

    def __init__(self):
        self.alone = []

    def encode_alone(self, document):
        self.alone.append(document.text)
        words = document.text.split()
        fires = "mirror" in words and "drum" in words[: words.index("mirror")]
        acts = np.zeros((1, D_SAE), np.float32)
        acts[0, FEATURE] = 2.0 if fires else 0.0
        return Encoded(sparse.csr_matrix(acts), sparse.csr_matrix((acts > 0) * 3), np.array([len(words)]))


def candidate(text):
    return Candidate("c", FEATURE, "paper", "guided", 0, 0, text, 2.0, 2, {}, False, None, 0)


def check(encoder, brief, text, *, is_rejecting=True, word="mirror"):
    place = text.index(word) if word in text else -1
    gate = CopyGate(encoder, lambda document, position: (place, place + len(word)), never, is_rejecting)
    return gate.check(brief, candidate(text), SHOWN, encoder.encode_alone(brief.document(text)))


def test_defect_3_a_context_that_was_pasted_in_carries_no_sample(brief):
    encoder = ContextEncoder()
    measures, reason = check(encoder, brief, "today apple bread cloud drum mirror tonight")
    assert encoder.alone[-1] == "today mirror tonight"
    assert measures == {"masked_words": 4, "masked_act": 0.0, "anti_copy": True}
    assert reason == ONLY_COPIED


def test_a_context_of_the_samples_own_carries_it(brief):
    measures, reason = check(ContextEncoder(), brief, "a drum near apple bread cloud drum mirror tonight")
    assert (measures["masked_words"], measures["masked_act"], reason) == (4, 2.0, None)


def test_a_feature_that_fires_on_a_word_is_not_punished_for_the_word(brief, planted_encoder):
    measures, reason = check(planted_encoder, brief, "apple bread cloud drum mirror eagle")
    assert (measures["masked_words"], measures["masked_act"], reason) == (5, 2.0, None)


def test_switched_off_the_same_is_measured_and_nothing_turned_down(brief):
    measures, reason = check(ContextEncoder(), brief, "today apple bread cloud drum mirror", is_rejecting=False)
    assert measures == {"masked_words": 4, "masked_act": 0.0, "anti_copy": False}
    assert reason is None


def test_where_nothing_was_copied_nothing_is_measured_again(brief):
    encoder = ContextEncoder()
    measures, reason = check(encoder, brief, "a drum and a mirror")
    assert (len(encoder.alone), measures["masked_act"], reason) == (1, None, None)


@pytest.mark.parametrize(("act", "passes"), [(0.5, False), (0.51, True)])
def test_what_is_left_must_exceed_the_threshold_itself_not_the_verification_margin(brief, act, passes):
    class Weak(ContextEncoder):
        def encode_alone(self, document):
            found = super().encode_alone(document)
            acts = np.zeros((1, D_SAE), np.float32)
            acts[0, FEATURE] = act
            return Encoded(sparse.csr_matrix(acts), found.peaks, found.n_content_tokens)

    assert (check(Weak(), brief, "apple bread cloud drum mirror")[1] is None) is passes
