"""The sampling loop of the local model: what it draws, and that cache and shrinking batch change nothing."""

import numpy as np
import pytest
import torch

from facviz.backbone import Backbone
from facviz.llm.local import LocalChat, draw_tokens
from facviz.records import LLMRequest, Message, Outcome
from facviz.testing.planted import planted_model, planted_tokenizer

REQUEST = LLMRequest((Message("user", "apple river tiger"),), n=12, max_tokens=10, temperature=0.7, top_p=0.9)


@pytest.fixture(scope="module")
def chatty():
    """A planted model with random weights, so that what it writes depends on all that stands before."""
    model = planted_model()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))
    return Backbone(model, planted_tokenizer(), 1, "chatty")


def draws(logits, temperature, top_p, n=4000, rng_seed=0):
    rows = torch.tensor(logits, dtype=torch.float32).expand(n, -1)
    return draw_tokens(rows, temperature, top_p, [torch.Generator().manual_seed(rng_seed)], [n])


def nucleus_by_hand(probabilities, top_p):
    kept, mass = [], 0.0
    for token in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
        kept.append(token)
        mass += probabilities[token]
        if mass >= top_p:
            break
    return kept


@pytest.mark.parametrize("top_p", [0.3, 0.65, 0.9, 1.0])
def test_tokens_are_drawn_from_the_nucleus_in_proportion_to_their_probability(top_p):
    logits = [1.0, 3.0, 0.0, 2.5, 1.5]
    probabilities = np.exp(np.array(logits) / 0.8) / np.exp(np.array(logits) / 0.8).sum()
    kept = nucleus_by_hand(probabilities, top_p)
    share = np.bincount(draws(logits, 0.8, top_p), minlength=5) / 4000
    expected = np.zeros(5)
    expected[kept] = probabilities[kept] / probabilities[kept].sum()
    assert np.array_equal(share > 0, expected > 0)
    np.testing.assert_allclose(share, expected, atol=0.03)


def test_a_nucleus_wider_than_the_short_list_is_still_drawn_from_whole():
    drawn = draws([0.0] * 3000, 1.0, 0.9, n=20_000)
    assert 2500 < len(drawn.unique()) <= 2700


def test_temperature_zero_takes_the_likeliest_token():
    assert set(draws([0.1, 0.3, 0.2], 0.0, 0.9).tolist()) == {1}


def test_top_p_zero_leaves_only_the_likeliest_token():
    assert set(draws([0.1, 0.3, 0.2], 1.0, 0.0).tolist()) == {1}


def replies_by_hand(backbone, request):
    """No cache: each step reads prompt and replies again, of the rows that have not ended."""
    model, end = backbone.model, backbone.tokenizer.eos_token_id
    prompt = LocalChat(backbone)._prompt(request)
    generator = torch.Generator().manual_seed(request.rng_seed)
    rows = [list(prompt) for _ in range(request.n)]
    running = list(range(request.n))
    for _ in range(request.max_tokens):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([rows[i] for i in running])).logits[:, -1]
        tokens = draw_tokens(logits, request.temperature, request.top_p, [generator], [len(running)]).tolist()
        for i, token in zip(running, tokens):
            rows[i].append(token)
        running = [i for i, token in zip(running, tokens) if token != end]
        if not running:
            break
    return [[t for t in row[len(prompt) :] if t != end] for row in rows]


def test_cache_and_shrinking_batch_write_what_reading_everything_again_would(chatty):
    expected = replies_by_hand(chatty, REQUEST)
    lengths = {len(ids) for ids in expected}
    assert len(lengths) > 3, "the replies must end at different steps"
    assert max(lengths) == REQUEST.max_tokens, "some must reach the limit"
    replies = LocalChat(chatty).complete([REQUEST])[0]
    assert [r.n_tokens for r in replies] == [len(ids) for ids in expected]
    assert [r.text for r in replies] == [
        chatty.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in expected
    ]


def test_a_reply_that_reaches_the_limit_is_truncated_and_one_that_ends_is_ok(chatty):
    for reply in LocalChat(chatty).complete([REQUEST])[0]:
        assert (reply.outcome is Outcome.TRUNCATED) == (reply.n_tokens == REQUEST.max_tokens)


def test_replies_depend_on_nothing_but_the_request(chatty):
    other = LLMRequest(REQUEST.messages, n=12, max_tokens=10, temperature=0.7, top_p=0.9, rng_seed=1)
    chat = LocalChat(chatty)
    torch.manual_seed(5)
    together = chat.complete([other, REQUEST])
    torch.manual_seed(6)
    assert chat.complete([REQUEST])[0] == together[1]
    assert together[0] != together[1]


def test_prompts_of_several_lengths_are_answered_together_as_each_would_be_alone(chatty, monkeypatch):
    words = "apple river tiger bread drum apple river"
    contents = [words[: 6 * i] for i in (2, 5, 1, 4, 3)]
    requests = [
        LLMRequest((Message("user", text),), n=n, max_tokens=10, temperature=t, top_p=0.9, rng_seed=n)
        for n, text in enumerate(contents, 1)
        for t in (0.0, 0.9)
    ]
    chat, sizes = LocalChat(chatty), []
    sample = LocalChat._sample
    monkeypatch.setattr(LocalChat, "_sample", lambda self, rs, ps: sizes.append(len(rs)) or sample(self, rs, ps))
    together = chat.complete(requests)
    assert max(sizes) > 1
    assert [len(replies) for replies in together] == [request.n for request in requests]
    assert together == [chat.complete([request])[0] for request in requests]
    assert len({reply.text for replies in together for reply in replies}) > 10


def test_sampling_leaves_the_global_random_state_alone(chatty):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    LocalChat(chatty).complete([REQUEST])
    assert torch.equal(torch.rand(3), expected)
