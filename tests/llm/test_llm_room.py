"""The cache with room against transformers' own: the same keys and values, without a copy for every token."""

import torch
from torch.testing import assert_close
from transformers import Gemma3TextConfig, LlamaConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from facviz.llm.room import RoomyLayer, roomy_cache

ROWS, HEADS, WIDTH = 3, 2, 4


def states(n_places, rows=ROWS, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(rows, HEADS, n_places, WIDTH, generator=rng), torch.randn(
        rows, HEADS, n_places, WIDTH, generator=rng
    )


def held_alike(ours, theirs):
    assert ours.get_seq_length() == theirs.get_seq_length()
    assert_close(ours.keys, theirs.keys, rtol=0, atol=0)
    assert_close(ours.values, theirs.values, rtol=0, atol=0)


def test_whatever_is_done_to_it_it_holds_what_transformers_own_holds():
    ours, theirs = RoomyLayer(3), DynamicLayer()
    for layer in (ours, theirs):
        layer.update(*states(5))
        layer.update(*states(1, seed=1))
    held_alike(ours, theirs)
    for layer in (ours, theirs):
        layer.batch_select_indices(torch.tensor([0, 0, 2, 1, 2]))
    held_alike(ours, theirs)
    for seed in range(7):  # more than there is room for
        for layer in (ours, theirs):
            known = layer.update(*states(1, rows=5, seed=seed))
        assert_close(known[0], theirs.keys, rtol=0, atol=0)
    held_alike(ours, theirs)
    for layer in (ours, theirs):
        layer.crop(-2)
        layer.update(*states(1, rows=5, seed=9))
        layer.batch_repeat_interleave(2)
        layer.update(*states(2, rows=10, seed=10))
    held_alike(ours, theirs)
    for layer in (ours, theirs):
        layer.reset()
        layer.update(*states(2, seed=11))
    held_alike(ours, theirs)


def test_within_its_room_nothing_known_is_copied():
    layer = RoomyLayer(4)
    layer.update(*states(5))
    place = layer.keys.data_ptr(), layer.values.data_ptr()
    for _ in range(4):
        layer.update(*states(1))
        assert (layer.keys.data_ptr(), layer.values.data_ptr()) == place
    layer.update(*states(1))
    assert layer.keys.data_ptr() != place[0]


def test_a_selection_has_room_again():
    layer = RoomyLayer(2)
    layer.update(*states(5))
    layer.batch_select_indices(torch.tensor([1]))
    place = layer.keys.data_ptr()
    layer.update(*states(2, rows=1))
    assert layer.keys.data_ptr() == place


def test_layers_that_forget_stay_as_they_are():
    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    assert [type(layer) for layer in roomy_cache(LlamaConfig(**size), 5).layers] == [RoomyLayer, RoomyLayer]
    mixed = Gemma3TextConfig(**size, layer_types=["sliding_attention", "full_attention"], sliding_window=4)
    assert [type(layer) for layer in roomy_cache(mixed, 5).layers] == [DynamicSlidingWindowLayer, RoomyLayer]
