"""What training would cost, lists as people type them, and words that agree with what they speak of."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from facviz.config import CaptureConfig, SaeConfig
from facviz.errors import InputError
from facviz.pipeline import training
from facviz.sae.architectures import ARCHITECTURES as TRAINABLE
from facviz.sae.formats import FORMATS, hub
from facviz.views.sae import TrainedBefore
from facviz.views.sae_training import (
    ARCHITECTURES,
    BUFFER_BATCHES,
    FORMAT_TITLES,
    SITES,
    TrainingPlan,
    estimate_cost,
    is_hub_name,
    whole_numbers,
)

PLAN = TrainingPlan(tokens=100_000, epochs=2, d_sae=(1000,), k=(8,), layers=(), d_in=50)


def test_every_trainable_architecture_has_a_title_and_one_sentence_and_the_default_is_first():
    assert list(ARCHITECTURES) == list(TRAINABLE) == list(get_args(get_type_hints(SaeConfig)["architecture"]))
    assert next(iter(ARCHITECTURES)) == SaeConfig().architecture
    assert len({sentence for _, sentence in ARCHITECTURES.values()}) == len(ARCHITECTURES)


def test_the_formats_offered_are_those_that_can_be_read_under_the_same_titles():
    assert {name: title for name, title in FORMAT_TITLES.items() if name != "auto"} == {
        name: found.title for name, found in FORMATS.items()
    }


def test_sites_and_the_buffer_are_those_of_training():
    from facviz.config import BackboneConfig

    assert tuple(SITES) == get_args(get_type_hints(BackboneConfig)["site"])
    assert BUFFER_BATCHES == training.BUFFER_BATCHES


def test_memory_and_disk_follow_from_the_shapes():
    cost = estimate_cost(PLAN, None)
    weights, heldout = 2 * 1000 * 50 * 4, CaptureConfig(dataset="").heldout_tokens
    assert cost.seconds is None
    assert cost.memory_bytes == 4 * weights + 64 * 2048 * 50 * 4
    assert cost.disk_bytes == (100_000 + heldout) * 50 * 2 + weights


def test_every_listed_sae_costs_and_layers_share_nothing_but_the_pass():
    plan = TrainingPlan(100_000, 2, d_sae=(1000, 3000), k=(8, 16, 32), layers=(1, 2), d_in=50)
    before = TrainedBefore(tokens=100_000, epochs=2, d_sae=1000, seconds=10)
    assert (plan.n_saes, plan.n_features) == (12, 24_000)
    cost, one = estimate_cost(plan, before), estimate_cost(PLAN, before)
    assert (one.seconds, cost.seconds) == (10, 240)
    buffer = 64 * 2048 * 50 * 4
    assert cost.memory_bytes - 2 * buffer == 24 * (one.memory_bytes - buffer)


def test_activations_that_are_not_kept_take_no_disk_and_an_unknown_model_has_no_cost():
    straight = TrainingPlan(100_000, 2, (1000,), (8,), (), d_in=50, is_kept=False)
    assert estimate_cost(straight, None).disk_bytes == 2 * 1000 * 50 * 4
    unknown = estimate_cost(TrainingPlan(100_000, 2, (1000,), (8,), (), d_in=None), None)
    assert (unknown.seconds, unknown.memory_bytes, unknown.disk_bytes) == (None, None, None)


@pytest.mark.parametrize(("text", "found"), [("32", (32,)), (" 16, 64 ;32,", (16, 64, 32)), ("0,1", (0, 1))])
def test_a_list_keeps_its_order_and_bears_blanks(text, found):
    assert whole_numbers(text, "k", lowest=0, highest=100) == found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "k must be a whole number or a list of them such as 16,32"),
        ("16,x", "k must be a whole number"),
        ("-3", "k must be a whole number"),
        ("1.5", "k must be a whole number"),
        ("٣", "k must be a whole number"),
        ("9" * 30, "k must be a whole number"),
        ("0", "k has 0, but each must lie between 1 and 100"),
        ("3,200", "k has 200"),
        ("3,3", "k names 3 twice"),
        ("1,2,3,4,5,6,7,8,9", "k lists 9 numbers; train at most 8"),
    ],
)
def test_what_is_no_such_list_is_one_sentence(text, sentence):
    with pytest.raises(InputError) as caught:
        whole_numbers(text, "k", highest=100)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["owner/repo", "owner/repo/a/b.npz", "../x/y", "owner", "/a/b", "a/../b", "a b/c", ""])
def test_hub_names_are_those_that_loading_takes_for_hub_names(name):
    assert is_hub_name(name) == hub.is_hub_name(name)
