"""A typed text token by token: the tokens join to the text and every activation stands on its own token."""

from __future__ import annotations

import numpy as np
import pytest

from facviz.errors import InputError
from facviz.testing.planted import WORDS
from facviz.views.text import MAX_CHARS, encode_text


def test_tokens_join_to_the_text_and_each_planted_feature_fires_on_its_word(planted_encoder):
    words = [WORDS[3], WORDS[12], WORDS[3]]
    encoded = encode_text(planted_encoder, " ".join(words))
    assert "".join(encoded.tokens) == " ".join(words)
    acts = np.array(encoded.acts_of(3))
    assert [token.strip() for token, act in zip(encoded.tokens, acts) if act > 0] == [WORDS[3], WORDS[3]]
    assert not any(encoded.acts_of(20))


def test_the_strongest_features_come_once_each_with_where_they_fire(planted_encoder):
    encoded = encode_text(planted_encoder, " ".join([WORDS[3], WORDS[12], WORDS[3]]))
    found = encoded.strongest(10)
    assert [f for f, _, _ in found] == [3, 12]
    assert [encoded.tokens[t].strip() for _, _, t in found] == [WORDS[3], WORDS[12]]
    for feature, act, token in found:
        assert act == max(encoded.acts_of(feature)) == encoded.acts_of(feature)[token]
    assert encoded.strongest(1) == found[:1]


@pytest.mark.parametrize(("text", "sentence"), [(" \n", "type a sentence"), ("x" * (MAX_CHARS + 1), "at most 8,000")])
def test_nothing_and_too_much_are_refused_in_one_sentence(planted_encoder, text, sentence):
    with pytest.raises(InputError, match=sentence):
        encode_text(planted_encoder, text)
