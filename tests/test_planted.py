"""The planted model keeps what its documentation promises, and the fakes remember what they were asked."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import torch

from facviz.backbone import Backbone, load_backbone
from facviz.records import LLMRequest, Message, Outcome
from facviz.testing.fakes import FakeLLM, SilentProgress
from facviz.testing.planted import (
    D_IN,
    D_SAE,
    DEAD_FEATURE,
    LAYER,
    STRENGTHS,
    TWIN_FEATURE,
    WORDS,
    planted_model,
    planted_sae,
    planted_tokenizer,
)


def acts_of_words(dtype: torch.dtype, layer: int = LAYER) -> torch.Tensor:
    """Dense feature activations, one row a word, read by the library's own output of all hidden states."""
    tokenizer, model = planted_tokenizer(), planted_model().to(dtype)
    ids = torch.tensor([[tokenizer.convert_tokens_to_ids(w) for w in WORDS]])
    with torch.no_grad():
        hidden = model(ids, output_hidden_states=True).hidden_states[layer][0]
    return planted_sae().encode_dense(hidden.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", [0, LAYER])
def test_every_word_fires_its_own_feature_with_exactly_its_strength(dtype, layer):
    acts = acts_of_words(dtype, layer)[:, : len(WORDS)]
    assert torch.equal(acts, torch.diag(torch.tensor([STRENGTHS[w] for w in WORDS])))


def test_strengths_run_through_two_three_four_five():
    assert [STRENGTHS[w] for w in WORDS[:6]] == [2, 3, 4, 5, 2, 3]
    assert set(STRENGTHS) == set(WORDS)


def test_the_twin_fires_on_apple_alone_and_half_as_strongly():
    column = acts_of_words(torch.float32)[:, TWIN_FEATURE]
    assert column.tolist() == [STRENGTHS["apple"] / 2] + [0.0] * (len(WORDS) - 1)


def test_the_dead_feature_fires_on_nothing_however_strong():
    x = torch.full((4, D_IN), 1000.0)
    assert planted_sae().encode_dense(x)[:, DEAD_FEATURE].tolist() == [0.0] * 4
    assert DEAD_FEATURE == D_SAE - 1


def test_saved_models_load_and_equal_the_ones_in_memory(planted_backbone, planted_sae, planted_folder):
    from facviz.testing.planted import planted_sae as fresh_sae

    assert isinstance(planted_backbone, Backbone)
    assert planted_backbone.layer == LAYER
    assert planted_backbone.identity == load_backbone(str(planted_folder[0])).identity
    for name, tensor in planted_model().state_dict().items():
        assert torch.equal(planted_backbone.model.state_dict()[name], tensor), name
    assert torch.equal(planted_sae.weights.W_enc, fresh_sae().weights.W_enc)
    assert torch.equal(planted_sae.W_dec, fresh_sae().W_dec)
    assert (planted_sae.d_in, planted_sae.d_sae, planted_sae.architecture) == (D_IN, D_SAE, "jumprelu")


def test_decoding_gives_back_what_a_word_put_in():
    sae = planted_sae()
    x = torch.zeros(1, D_IN)
    x[0, 3] = STRENGTHS["drum"]
    assert torch.equal(sae.reconstruct(x), x)


def test_the_model_gives_every_word_the_same_chance():
    with torch.no_grad():
        logits = planted_model()(torch.tensor([[1, 4, 7]])).logits
    assert np.ptp(logits.numpy()) == 0


def test_words_outside_the_vocabulary_are_unknown_tokens():
    tokenizer = planted_tokenizer()
    assert tokenizer.convert_ids_to_tokens(tokenizer("apple zebra")["input_ids"]) == ["apple", "<unk>"]


def ask(n: int = 1) -> LLMRequest:
    return LLMRequest((Message("user", "hello"),), n=n)


def test_a_fake_serves_its_script_in_order_and_repeats_the_last():
    fake = FakeLLM(["one two", Outcome.REFUSED, "three"])
    replies = fake.complete([ask(2), ask(2)])
    assert [[r.text for r in group] for group in replies] == [["one two", ""], ["three", "three"]]
    assert replies[0][1].outcome is Outcome.REFUSED
    assert [r.n_tokens for r in replies[0]] == [2, 0]


def test_a_fake_remembers_every_request_and_can_answer_by_function():
    fake = FakeLLM(lambda request: [request.messages[0].content.upper()] * request.n)
    assert [r.text for r in fake.complete([ask(2)])[0]] == ["HELLO", "HELLO"]
    assert fake.requests == [ask(2)]


def test_silent_progress_says_nothing(capsys):
    SilentProgress().update("capture", 1, None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("host", ["192.0.2.1", "example.com"])
def test_tests_cannot_reach_the_network(host):
    with pytest.raises(RuntimeError, match="offline"):
        socket.create_connection((host, 80), timeout=1)
