"""Arms differ in what was added and in nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from facviz.errors import InputError
from facviz.evaluation.arms import Sources, draw_mix, equal_n


def sources(n_positive=3):
    return Sources(
        seed_positive=np.arange(100, 100 + n_positive),
        seed_negative=np.arange(20),
        added={"paper": np.arange(200, 210), "gold": np.arange(300, 330)},
    )


@pytest.mark.parametrize("rng_seed", [0, 1, 7])
def test_every_arm_has_the_same_number_of_each_label_and_the_same_seed_documents(rng_seed):
    mixes = {arm: draw_mix(sources(), arm, 8, 12, rng_seed) for arm in ("seed", "paper", "gold")}
    assert {(mix.n_positive, mix.n_negative) for mix in mixes.values()} == {(3 + 8, 12)}
    negatives = {tuple(mix.rows[~mix.is_positive]) for mix in mixes.values()}
    assert len(negatives) == 1
    assert all(set(mix.rows) >= {100, 101, 102} for mix in mixes.values())
    assert set(mixes["paper"].added) <= set(range(200, 210))
    assert set(mixes["gold"].added) <= set(range(300, 330))


def test_generated_negatives_take_the_place_of_real_ones_and_change_nothing_else():
    both = dataclasses.replace(sources(), generated_negative=np.arange(400, 430))
    real, mixed = (draw_mix(both, "paper", 8, 12, 3, n_generated_negative=n) for n in (0, 5))
    assert (mixed.n_positive, mixed.n_negative) == (real.n_positive, real.n_negative)
    assert sum(row >= 400 for row in mixed.rows[~mixed.is_positive]) == 5
    assert not (mixed.rows[mixed.is_positive] >= 400).any()
    assert set(mixed.rows[mixed.rows < 20]) < set(real.rows)
    np.testing.assert_array_equal(mixed.added, real.added)
    assert not (real.rows >= 400).any()


def test_the_arm_without_additions_repeats_its_own_positives_evenly():
    mix = draw_mix(sources(), "seed", 8, 12, 0)
    assert mix.n_distinct_positive == 3
    assert sorted(mix.weight[mix.is_positive]) == [3, 4, 4]  # 3 and 8 more
    assert len(mix.added) == 0


def test_a_seed_set_without_positives_leaves_that_arm_without_any():
    mix = draw_mix(sources(0), "seed", 8, 12, 0)
    assert (mix.n_positive, mix.n_negative) == (0, 12)


def test_fewer_additions_are_a_subset_of_more_and_seeds_draw_others():
    few, many = (draw_mix(sources(), "gold", n, 12, 3).added for n in (4, 8))
    assert set(few) < set(many)
    assert set(draw_mix(sources(), "gold", 8, 12, 4).added) != set(many)


def test_no_document_stands_in_a_mix_twice():
    mix = draw_mix(sources(), "paper", 10, 20, 0)
    assert len(set(mix.rows.tolist())) == len(mix.rows)


def test_the_smallest_arm_that_stays_decides_how_many_are_added():
    assert equal_n(sources(), None, 8) == (10, {})
    assert equal_n(sources(), None, 11) == (30, {"paper": 10})
    assert equal_n(sources(), 5, 8) == (5, {})


def test_too_few_texts_are_refused_in_words():
    with pytest.raises(InputError, match="No arm has 40 texts to add"):
        equal_n(sources(), None, 40)
    with pytest.raises(InputError, match="paper has 10 texts, fewer than --n-added 11"):
        equal_n(sources(), 11, 8)
