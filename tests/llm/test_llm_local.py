"""The local model as a client, on the planted backbone; the sampling loop itself is tested in `test_local_sampling`."""

from __future__ import annotations

import dataclasses

import pytest

from facviz.backbone import Backbone
from facviz.errors import BackboneError, LLMError
from facviz.llm.local import LocalChat
from facviz.records import LLMRequest, Message, Outcome
from facviz.testing.planted import LAYER, SPECIAL, TEMPLATE_WORDS, WORDS, planted_model, planted_tokenizer

MESSAGES = (Message("system", "drum"), Message("user", "apple bread"))
REQUEST = LLMRequest(MESSAGES, n=30, max_tokens=24, top_p=1.0)


@pytest.fixture(scope="module")
def chat(planted_backbone):
    return LocalChat(planted_backbone)


def test_every_request_gets_its_number_of_replies_in_order(chat):
    requests = [dataclasses.replace(REQUEST, n=n, rng_seed=n) for n in (3, 1, 7)]
    assert [len(replies) for replies in chat.complete(requests)] == [3, 1, 7]
    assert chat.complete([]) == []


def test_the_seed_fixes_the_replies_and_another_seed_gives_others(chat):
    first, again, other = chat.complete([REQUEST, REQUEST, dataclasses.replace(REQUEST, rng_seed=1)])
    assert first == again
    assert first != other
    assert len({r.text for r in first}) > 20


def test_temperature_zero_gives_one_answer_whatever_the_seed(chat):
    greedy = [dataclasses.replace(REQUEST, n=2, temperature=0.0, rng_seed=s) for s in (0, 1)]
    assert len({r for replies in chat.complete(greedy) for r in replies}) == 1


def test_the_planted_model_writes_words_and_never_a_special_token(chat):
    replies = chat.complete([dataclasses.replace(REQUEST, n=100)])[0]
    words = {word for r in replies for word in r.text.split()}
    assert words == {*WORDS, *TEMPLATE_WORDS}
    assert not any(special in r.text for special in SPECIAL for r in replies)
    assert all(r.text == r.text.strip() for r in replies)


def test_replies_end_by_themselves_or_are_called_truncated(chat):
    replies = chat.complete([REQUEST])[0]
    assert {r.outcome for r in replies} == {Outcome.OK, Outcome.TRUNCATED}
    for reply in replies:
        assert (reply.outcome is Outcome.TRUNCATED) == (reply.n_tokens == REQUEST.max_tokens)
        assert len(reply.text.split()) <= reply.n_tokens


def test_a_prompt_that_leaves_no_room_is_refused_and_one_that_just_fits_is_read():
    model = planted_model()
    model.config.max_position_embeddings = 40
    chat = LocalChat(Backbone(model, planted_tokenizer(), LAYER, "tiny"))
    n_template = len(chat._renderer.generation_prompt((Message("user", ""),)))
    fits = 40 - n_template - REQUEST.max_tokens
    for n_words, refused in ((fits, False), (fits + 1, True)):
        request = dataclasses.replace(REQUEST, messages=(Message("user", "apple " * n_words),), n=1)
        if refused:
            with pytest.raises(
                LLMError, match=r"^The prompt has 17 tokens, too many for local/tiny; show fewer spans\.$"
            ):
                chat.complete([request])
        else:
            assert len(chat.complete([request])[0]) == 1


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((Message("system", "apple bread"),), "system apple bread <|im_end|> <|im_start|> user"),
        ((), "user"),
    ],
)
def test_asked_nothing_the_model_continues_the_users_turn_instead_of_answering_it(chat, messages, expected):
    prompt = chat._prompt(dataclasses.replace(REQUEST, messages=messages))
    assert chat._backbone.tokenizer.decode(prompt).split() == ["<|im_start|>", *expected.split()]
    [replies] = chat.complete([dataclasses.replace(REQUEST, messages=messages, n=4)])
    assert len(replies) == 4


def test_a_model_without_a_chat_template_says_what_to_take_instead():
    tokenizer = planted_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(BackboneError, match="no chat template"):
        LocalChat(Backbone(planted_model(), tokenizer, LAYER)).complete([REQUEST])


def test_the_name_says_that_it_is_local(chat, planted_backbone):
    assert chat.name == f"local/{planted_backbone.name}"
