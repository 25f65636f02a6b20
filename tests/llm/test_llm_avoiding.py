"""The local model does not repeat what it was shown beyond a few tokens, and writes on as it otherwise would."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facviz.backbone import Backbone
from facviz.llm.avoiding import RUN_TOKENS, RUN_WORDS, Avoided
from facviz.llm.local import LocalChat
from facviz.overlap import words_of
from facviz.records import LLMRequest, Message
from facviz.testing.planted import WORDS, planted_model, planted_tokenizer

REQUEST = LLMRequest((Message("user", "apple river tiger"),), n=6, max_tokens=40, temperature=0.4, top_p=0.8)
SHOWN = " ".join(WORDS[i % 3] for i in range(30))


@pytest.fixture(scope="module")
def parrot():
    """A planted model with random weights that tends to go round in circles."""
    model = planted_model()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))
    return Backbone(model, planted_tokenizer(), 1, "parrot")


def ids_of(parrot, text):
    return parrot.tokenizer.encode(text, add_special_tokens=False)


def longest_run(ids, others):
    runs = {tuple(other[i : i + n]) for other in others for n in range(1, len(other) + 1) for i in range(len(other))}
    found = [n for n in range(1, len(ids) + 1) if any(tuple(ids[i : i + n]) in runs for i in range(len(ids) - n + 1))]
    return max(found, default=0)


def test_a_token_that_lengthens_a_run_is_named_and_no_other(parrot):
    ids = ids_of(parrot, SHOWN)
    avoided = Avoided(parrot.tokenizer, [SHOWN])
    assert avoided.after(ids[3 : 3 + RUN_TOKENS]) == {ids[3 + RUN_TOKENS]}
    assert avoided.after([99_999, *ids[3 : 3 + RUN_TOKENS]]) == {ids[3 + RUN_TOKENS]}
    assert avoided.after(ids[3 : 2 + RUN_TOKENS]) == avoided.after(ids[:RUN_TOKENS][::-1]) == set()
    assert Avoided(parrot.tokenizer, []).after(ids) == set()


class Letters:
    """A tokenizer with a token for every character."""

    def encode(self, text):
        return list(map(ord, text))

    def __call__(self, text, *, add_special_tokens, return_offsets_mapping):
        return {"input_ids": self.encode(text), "offset_mapping": [(i, i + 1) for i in range(len(text))]}


def test_marks_alone_are_nobodys_and_a_run_ends_with_its_fourth_word():
    letters = Letters()
    assert Avoided(letters, ["<><><><><><>", "a <><><><><><> b"]).longest == 0
    avoided = Avoided(letters, ["It was<><>a bad film"])
    assert avoided.after(letters.encode("It was<><>a")) == set()
    assert avoided.after(letters.encode("It was<><>a b")) == {ord("a")}
    assert avoided.after(letters.encode("He was<><>a b")) == set()
    assert avoided.after(letters.encode("was<><>a bad f")) == {ord("i")}


@given(st.text("ab .", max_size=40))
def test_a_run_to_avoid_is_the_shortest_with_so_many_tokens_and_words(text):
    letters = Letters()
    found = Avoided(letters, [text])._next
    expected = {}
    for spelled in (text, f" {text}"):
        for place in range(RUN_TOKENS, len(spelled)):
            starts = range(place - RUN_TOKENS, -1, -1)
            run = next((spelled[i:place] for i in starts if len(words_of(spelled[i:place])) >= RUN_WORDS), None)
            if run is not None:
                expected.setdefault(tuple(letters.encode(run)), set()).add(ord(spelled[place]))
    assert found == expected


def test_what_the_model_would_write_is_not_written_again_at_length(parrot):
    chat = LocalChat(parrot)
    free = [reply.text for reply in chat.complete([REQUEST])[0]]
    written = [ids_of(parrot, text) for text in free]
    assert max(map(len, written)) > RUN_TOKENS
    held = chat.complete([dataclasses.replace(REQUEST, avoid=tuple(free))])[0]
    lengths = [longest_run(ids_of(parrot, reply.text), written) for reply in held]
    assert max(lengths) <= RUN_TOKENS
    assert max(len(ids_of(parrot, reply.text)) for reply in held) > RUN_TOKENS


def test_another_request_of_the_batch_writes_as_it_would_alone(parrot):
    chat = LocalChat(parrot)
    other = dataclasses.replace(REQUEST, messages=(Message("user", "tiger tiger apple"),), rng_seed=5)
    alone = chat.complete([other])[0]
    held = dataclasses.replace(REQUEST, avoid=tuple(reply.text for reply in chat.complete([REQUEST])[0]))
    assert chat.complete([held, other])[1] == alone


def test_texts_that_never_come_up_change_nothing(parrot):
    chat = LocalChat(parrot)
    far = "mirror " * 20
    assert chat.complete([dataclasses.replace(REQUEST, avoid=(far,))]) == chat.complete([REQUEST])
