"""The recipe follows the length of the run."""

import pytest

from facviz.config import SaeConfig
from facviz.sae.schedule import offset_words, recipe_for


def test_a_short_run_warms_up_for_a_twentieth_and_learns_nine_times_faster():
    recipe = recipe_for(SaeConfig(), 400)
    assert recipe.learning_rate == 2.7e-3
    assert recipe.warmup_steps == 20
    assert recipe.decay_steps == 160
    assert recipe.dead_after_tokens == 400 * 2048 // 5
    assert recipe.tied_steps == 40


def test_a_long_run_uses_the_long_recipe():
    recipe = recipe_for(SaeConfig(), 500_000)
    assert recipe.learning_rate == 3e-4
    assert recipe.warmup_steps == 1000
    assert recipe.dead_after_tokens == 10_000_000
    assert recipe.tied_steps == 40


def test_between_them_the_rate_falls_with_the_root_of_the_tokens():
    at = {n: recipe_for(SaeConfig(), n).learning_rate for n in (2441, 2442, 10_000, 40_000)}
    assert at[2441] == 2.7e-3
    assert 2.69e-3 < at[2442] < 2.7e-3
    assert at[10_000] / at[40_000] == pytest.approx(2)


def test_a_wide_dictionary_learns_at_a_lower_rate_and_a_narrow_one_at_no_higher():
    assert recipe_for(SaeConfig(d_sae=65_536), 100).learning_rate == pytest.approx(2.7e-3 / 2)
    assert recipe_for(SaeConfig(d_sae=64), 100).learning_rate == 2.7e-3


def test_the_rate_grows_with_the_root_of_the_batch():
    assert recipe_for(SaeConfig(batch_tokens=512), 100).learning_rate == pytest.approx(2.7e-3 / 2)


def test_values_in_the_config_win():
    recipe = recipe_for(SaeConfig(learning_rate=0.01, dead_after_tokens=7, batch_tokens=512), 100)
    assert (recipe.learning_rate, recipe.dead_after_tokens) == (0.01, 7)


def test_the_rate_rises_holds_and_falls_over_the_last_two_fifths():
    recipe = recipe_for(SaeConfig(), 100)
    rates = [recipe.learning_rate_at(step) / recipe.learning_rate for step in range(100)]
    assert rates[:5] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert set(rates[5:60]) == {1.0}
    assert rates[60:] == pytest.approx([(40 - i) / 41 for i in range(40)])


def test_a_run_of_one_step_has_a_positive_rate():
    assert recipe_for(SaeConfig(), 1).learning_rate_at(0) > 0


def test_what_the_offset_of_the_activations_predicts_is_said():
    assert "features die unless" in offset_words(4.0)
    assert "features die unless" in offset_words(1.0)
    assert "few features should die" in offset_words(0.3)
