"""The training recipe scaled to the length of the run, and what the activations' offset promises; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from facviz.config import SaeConfig

_BASE_BATCH_TOKENS = 2048
_SHORT_RUN_TOKENS = 5_000_000
_SHORT_RUN_LR, _LONG_RUN_LR = 9e-4, 3e-4
_MAX_WARMUP_STEPS, _WARMUP_SHARE, _DECAY_SHARE = 1000, 0.05, 0.2
_LONG_OFFSET = 0.9
_MAX_DEAD_TOKENS, _DEAD_SHARE = 10_000_000, 0.1


@dataclass(frozen=True, slots=True)
class Recipe:
    """What follows from a config and a number of steps; a short run with a long run's recipe loses half its fit."""

    n_steps: int
    learning_rate: float
    warmup_steps: int
    decay_steps: int
    dead_after_tokens: int

    def learning_rate_at(self, step: int) -> float:
        """Rate of 0-based step: linear warm-up, plateau, linear decay towards zero over the last fifth."""
        warmup = (step + 1) / (self.warmup_steps + 1)
        decay = (self.n_steps - step) / (self.decay_steps + 1)
        return self.learning_rate * min(1.0, warmup, decay)


def recipe_for(config: SaeConfig, n_steps: int, constant_rate: float | None = None) -> Recipe:
    """The recipe of a run of `n_steps`; values given in the config win, then an architecture's own constant rate."""
    tokens = n_steps * config.batch_tokens
    dead_after = config.dead_after_tokens or min(_MAX_DEAD_TOKENS, int(_DEAD_SHARE * tokens))
    if constant_rate is not None:
        return Recipe(n_steps, config.learning_rate or constant_rate, 0, 0, dead_after)
    rate = _SHORT_RUN_LR if tokens < _SHORT_RUN_TOKENS else _LONG_RUN_LR
    scaled_rate = rate * (config.batch_tokens / _BASE_BATCH_TOKENS) ** 0.5
    return Recipe(
        n_steps=n_steps,
        learning_rate=scaled_rate if config.learning_rate is None else config.learning_rate,
        warmup_steps=min(_MAX_WARMUP_STEPS, int(_WARMUP_SHARE * n_steps)),
        decay_steps=int(_DECAY_SHARE * n_steps),
        dead_after_tokens=dead_after,
    )


def offset_words(ratio: float) -> str:
    """What γ = ‖μ‖ / ‖σ‖ of the activations predicts for a training (`init.offset_ratio`)."""
    if ratio < _LONG_OFFSET:
        return "well below 1, the offset of the activations is small and few features should die"
    return (
        "from about 1 on, features die unless the decoder's bias starts at the data's mean, which it does here "
        "(not in the paper preset)"
    )
