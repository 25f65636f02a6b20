"""The training recipe scaled to the length of the run, and what the activations' offset promises; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from facviz.config import SaeConfig

RECIPE_VERSION = 3
"""Part of every trained SAE's name: raise it when the same settings train to something else."""

_BASE_BATCH_TOKENS = 2048
_BASE_WIDTH = 4096
_SHORT_RUN_TOKENS = 5_000_000
_SHORT_RUN_LR, _LONG_RUN_LR = 2.7e-3, 3e-4
_MAX_WARMUP_STEPS, _WARMUP_SHARE, _DECAY_SHARE = 1000, 0.05, 0.4
_MAX_TIED_STEPS, _TIED_SHARE = 40, 0.4
_LONG_OFFSET = 0.9
_MAX_DEAD_TOKENS, _DEAD_SHARE = 10_000_000, 0.2


@dataclass(frozen=True, slots=True)
class Recipe:
    """What follows from a config and a number of steps; a short run with a long run's recipe loses half its fit."""

    n_steps: int
    learning_rate: float
    warmup_steps: int
    decay_steps: int
    dead_after_tokens: int
    tied_steps: int = 0
    """At the start, in which encoder and decoder move by the sum of their gradients where the architecture wants it."""

    def learning_rate_at(self, step: int) -> float:
        """Rate of 0-based step: linear warm-up, plateau, linear decay towards zero over the last two fifths."""
        warmup = (step + 1) / (self.warmup_steps + 1)
        decay = (self.n_steps - step) / (self.decay_steps + 1)
        return self.learning_rate * min(1.0, warmup, decay)


def recipe_for(config: SaeConfig, n_steps: int, constant_rate: float | None = None) -> Recipe:
    """The recipe of a run of `n_steps`; values given in the config win, then an architecture's own constant rate."""
    tokens = n_steps * config.batch_tokens
    dead_after = config.dead_after_tokens or min(_MAX_DEAD_TOKENS, int(_DEAD_SHARE * tokens))
    if constant_rate is not None:
        return Recipe(n_steps, config.learning_rate or constant_rate, 0, 0, dead_after)
    return Recipe(
        n_steps=n_steps,
        learning_rate=_rate_for(config, tokens) if config.learning_rate is None else config.learning_rate,
        warmup_steps=min(_MAX_WARMUP_STEPS, int(_WARMUP_SHARE * n_steps)),
        decay_steps=int(_DECAY_SHARE * n_steps),
        dead_after_tokens=dead_after,
        tied_steps=min(_MAX_TIED_STEPS, int(_TIED_SHARE * n_steps)),
    )


def _rate_for(config: SaeConfig, tokens: int) -> float:
    """Best of those tried from 0.1 M to 4 M tokens, of rates that keep 95 % of the features alive.

    Wider dictionaries lose features at it, hence the fourth root; long runs come down to the rate that is usual there.
    """
    rate = _SHORT_RUN_LR * sqrt(sqrt(min(1.0, _BASE_WIDTH / config.d_sae)) * min(1.0, _SHORT_RUN_TOKENS / tokens))
    return max(_LONG_RUN_LR, rate) * sqrt(config.batch_tokens / _BASE_BATCH_TOKENS)


def offset_words(ratio: float) -> str:
    """What γ = ‖μ‖ / ‖σ‖ of the activations predicts for a training (`init.offset_ratio`)."""
    if ratio < _LONG_OFFSET:
        return "well below 1, the offset of the activations is small and few features should die"
    return (
        "from about 1 on, features die unless the decoder's bias starts at the data's mean, which it does here "
        "(not in the paper preset)"
    )
