"""A push along a direction while the local model writes: where it lands, on which rows, and how far it moves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from facviz.backbone import Backbone
from facviz.errors import BackboneError, LLMError
from facviz.llm.local import LocalChat
from facviz.llm.steering import Push, mean_divergence
from facviz.records import LLMRequest, Message, SteeringVector
from facviz.testing.planted import D_IN, WORDS, planted_model, planted_tokenizer
from tests.tiny_llama import N_LAYERS, tiny_backbone

MIRROR = WORDS.index("mirror")
REQUEST = LLMRequest((Message("user", "apple bread"),), n=8, max_tokens=10, temperature=1.0, top_p=1.0)
PROMPTS = ("apple", "river tiger drum", "bread drum eagle flame", "apple bread")


@pytest.fixture(scope="module")
def tiny():
    """A random model whose layers matter, read in the middle."""
    return tiny_backbone(3)


@pytest.fixture
def speaking():
    """The planted model with a head that likes the word whose axis it finds in the residual stream."""
    model = planted_model()
    with torch.no_grad():
        for i, word in enumerate(WORDS):
            model.lm_head.weight[planted_tokenizer().convert_tokens_to_ids(word), i] = 1.0
    return Backbone(model, planted_tokenizer(), 1, "speaking")


def push_along(axis, length, layer=1):
    vector = np.zeros(D_IN, np.float32)
    vector[axis] = length
    return SteeringVector(layer, vector, 1.0)


def random_push(rng_seed, length=4.0, layer=3):
    vector = np.random.default_rng(rng_seed).normal(size=D_IN).astype(np.float32)
    return SteeringVector(layer, length * vector / np.linalg.norm(vector), 1.0)


def steered(steering, **changes):
    return dataclasses.replace(REQUEST, steering=steering, **changes)


def n_hooks(backbone):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in backbone.model.modules())


def share_of(word, replies):
    words = [w for reply in replies for w in reply.text.split()]
    return words.count(word) / len(words)


def test_a_push_along_a_planted_feature_makes_the_model_write_its_word(speaking):
    chat = LocalChat(speaking)
    plain, weak, strong = (
        share_of("mirror", chat.complete([steered(push, n=64)])[0])
        for push in (None, push_along(MIRROR, 2.0), push_along(MIRROR, 40.0))
    )
    assert plain < 0.15
    assert plain < weak < strong
    assert strong > 0.9


def test_a_push_along_a_planted_feature_raises_that_feature_when_measured_without_it(speaking, planted_encoder):
    chat = LocalChat(speaking)
    acts = []
    for push in (None, push_along(MIRROR, 40.0)):
        replies = chat.complete([steered(push, n=32)])[0]
        acts.append(planted_encoder.encode([r.text for r in replies]).max_acts[:, MIRROR].toarray().mean())
    assert acts[1] > 1.5 > acts[0]
    assert n_hooks(speaking) == 0


def test_a_push_ends_where_the_feature_has_fired(speaking):
    chat, always = LocalChat(speaking), push_along(MIRROR, 40.0)
    once = dataclasses.replace(always, reads=np.eye(len(always.vector), dtype=np.float32)[MIRROR], ends_above=1.0)
    [pushed], [ended] = chat.complete([steered(always, n=32)]), chat.complete([steered(once, n=32)])
    assert share_of("mirror", ended) < 0.85 < share_of("mirror", pushed)  # unpushed, it likes to repeat itself
    assert sum("mirror" in reply.text for reply in ended) > 28
    never = dataclasses.replace(once, ends_above=np.inf)
    assert chat.complete([steered(never, n=32)]) == [pushed]


def test_of_replies_in_one_batch_each_ends_its_own_push_and_keeps_it_ended(tiny):
    reads = np.zeros(D_IN, np.float32)
    reads[0] = 1.0
    steering = dataclasses.replace(random_push(0), reads=reads, ends_above=2.0)
    push, rows = Push(tiny, [steering, None]), torch.tensor([0, 0, 1])
    push.follow(3)

    def added(*firsts):
        acts = torch.zeros(len(firsts), 1, D_IN)
        acts[:, 0, 0] = torch.tensor(firsts)
        return [bool(change.any()) for change in push._add(steering.layer, acts) - acts]

    push.at(rows, replies=torch.arange(3))
    assert added(1.0, 3.0, 3.0) == [True, False, False]
    push.at(rows[:2], replies=torch.tensor([0, 1]))
    assert added(1.0, 1.0) == [True, False]  # the second fired before
    push.follow(3)
    push.at(rows[:1], replies=torch.tensor([1]))
    assert added(1.0) == [True]


@pytest.mark.parametrize("layer", [0, 1, 3, N_LAYERS])
def test_a_zero_push_writes_bit_by_bit_what_no_push_writes(tiny, layer):
    chat, nothing = LocalChat(tiny), SteeringVector(layer, np.zeros(D_IN, np.float32), 0.0)
    assert chat.complete([steered(nothing)]) == chat.complete([REQUEST])
    prompt = torch.tensor([chat._prompt(REQUEST)])
    with torch.inference_mode():
        plain = tiny.model(input_ids=prompt).logits
        with Push(tiny, [nothing]).applied() as push:
            push.at(torch.tensor([0]))
            assert torch.equal(tiny.model(input_ids=prompt).logits, plain)


@pytest.mark.parametrize("layer", [0, 1, 3, N_LAYERS])
def test_the_push_is_added_to_the_hidden_state_of_its_layer_at_the_last_places_only(tiny, layer):
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    steering, seen = random_push(0, layer=layer), []
    read = tiny.at(layer).on_model_acts(lambda acts: seen.append(acts.clone()))
    with torch.inference_mode(), Push(tiny, [None, steering]).applied() as push:
        read.remove()
        late = tiny.at(layer).on_model_acts(lambda acts: seen.append(acts.clone()))
        tiny.model(input_ids=ids)
        push.at(torch.tensor([1, 0]), n_tokens=2)
        tiny.model(input_ids=ids)
        late.remove()
    plain, pushed = seen
    assert torch.equal(pushed[1], plain[1]), "a row without a push is left alone"
    assert torch.equal(pushed[0, :2], plain[0, :2]), "places before the last two are left alone"
    np.testing.assert_allclose((pushed - plain)[0, 2:].numpy(), np.stack([steering.vector] * 2), atol=1e-5)


def test_every_written_token_and_the_last_of_the_prompt_are_pushed(tiny, monkeypatch):
    pushed = []
    add = Push._add
    monkeypatch.setattr(
        Push, "_add", lambda self, layer, acts: pushed.append((acts.shape[1], self._rows)) or add(self, layer, acts)
    )
    [replies] = LocalChat(tiny).complete([steered(random_push(0), n=1)])
    n_read, *steps = pushed
    assert n_read[0] == len(LocalChat(tiny)._prompt(REQUEST))
    assert [n for n, _ in steps] == [1] * len(steps)
    assert len(steps) == min(replies[0].n_tokens, REQUEST.max_tokens - 1)
    assert all(rows is not None for _, rows in pushed)


def test_rows_with_different_pushes_share_a_batch_and_write_what_each_would_alone(tiny, monkeypatch):
    pushes = [random_push(0), None, random_push(1, layer=2), random_push(2), SteeringVector(3, np.zeros(D_IN), 0.0)]
    pushes.append(dataclasses.replace(random_push(3), reads=random_push(4).vector, ends_above=0.0))
    requests = [
        steered(push, n=2 + i, rng_seed=i, messages=(Message("user", PROMPTS[i % len(PROMPTS)]),))
        for i, push in enumerate(pushes)
    ]
    sizes, sample = [], LocalChat._sample
    monkeypatch.setattr(LocalChat, "_sample", lambda self, rs, ps: sizes.append(len(rs)) or sample(self, rs, ps))
    chat = LocalChat(tiny)
    together = chat.complete(requests)
    assert max(sizes) > 2
    assert together == [chat.complete([request])[0] for request in requests]
    unsteered = chat.complete([dataclasses.replace(r, steering=None) for r in requests])
    assert [a == b for a, b in zip(together, unsteered)] == [False, True, False, False, True, False]


def test_equal_prompts_with_different_pushes_share_what_is_read_unpushed(tiny):
    requests = [steered(push, rng_seed=1) for push in (random_push(0), None, random_push(1))]
    chat = LocalChat(tiny)
    together = chat.complete(requests)
    assert together == [chat.complete([request])[0] for request in requests]
    assert len({tuple(r.text for r in replies) for replies in together}) == 3


def test_the_hook_is_gone_after_a_reply_and_after_a_failure(tiny, monkeypatch):
    chat = LocalChat(tiny)
    expected = chat.complete([REQUEST])
    chat.complete([steered(random_push(0))])
    assert n_hooks(tiny) == 0
    with monkeypatch.context() as broken:
        broken.setattr("facviz.llm.local.draw_tokens", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            chat.complete([steered(random_push(0))])
    with pytest.raises(BackboneError, match="Layer 9"), Push(tiny, [random_push(0), random_push(0, layer=9)]).applied():
        pass
    assert n_hooks(tiny) == 0
    assert chat.complete([REQUEST]) == expected


def test_a_push_of_another_models_width_is_refused(tiny):
    with pytest.raises(LLMError, match=r"shape \(3,\), and tiny needs \[32\]"):
        LocalChat(tiny).complete([steered(SteeringVector(3, np.ones(3, np.float32), 1.0))])


def test_no_push_moves_nothing_and_a_longer_one_moves_further(tiny):
    chat = LocalChat(tiny)
    texts = ["river tiger drum", "mirror", "apple bread cloud drum eagle"]
    found = [chat.divergence(steered(random_push(0, length)), texts) for length in (0.0, 1.0, 3.0, 9.0)]
    assert found[0] == pytest.approx(0.0, abs=1e-6)
    assert found == sorted(found)
    assert found[1] > 1e-3
    assert chat.divergence(REQUEST, texts) == 0.0
    assert chat.divergence(steered(random_push(0)), ["", ""]) == 0.0


def test_the_divergence_is_the_mean_over_tokens_of_what_two_whole_readings_differ_by(tiny):
    chat, steering = LocalChat(tiny), random_push(4, 6.0)
    prompt, texts = (
        chat._prompt(REQUEST),
        [["river tiger", "mirror drum eagle flame", "apple"][i % 3] for i in range(11)],
    )
    kl = []
    for text in texts:
        reply = tiny.tokenizer.encode(text, add_special_tokens=False)
        ids = torch.tensor([[*prompt, *reply]])
        with torch.inference_mode():
            plain = tiny.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            with Push(tiny, [steering]).applied() as push:
                push.at(torch.tensor([0]), n_tokens=len(reply) + 1)
                pushed = tiny.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        kl += (pushed.exp() * (pushed - plain)).sum(-1).tolist()
    expected = sum(kl) / len(kl)
    assert expected > 0.05
    assert chat.divergence(steered(steering), texts) == pytest.approx(expected, rel=1e-3)
    written = [tiny.tokenizer.encode(text, add_special_tokens=False) for text in texts]
    assert mean_divergence(tiny, steering, prompt, [*written, []]) == pytest.approx(expected, rel=1e-3)
