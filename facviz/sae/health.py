"""Does an SAE fit this model? A ranking of FVU over layers and templates on the same tokens, and what it means.

An absolute bound cannot tell: one layer off costs an SAE a tenth of its quality, another kind of text as much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from facviz.errors import SaeError
from facviz.records import Floats, Ints

RECORD_TOLERANCE = 1.25
"""An FVU up to this multiple of the recorded one agrees with it."""
N_DRAWS = 2000
_QUANTILES = (0.025, 0.975)
_RECORDED_DIGITS = 4


@dataclass(frozen=True, slots=True, eq=False)
class ErrorSums:
    """What one layer and rendering left unexplained, summed over the measured tokens of each document."""

    layer: int
    template: bool
    squared_error: Floats  # [n_docs] Σ‖x − x̂‖²
    squared_deviation: Floats  # [n_docs] Σ‖x − x̄‖², x̄ over all documents
    n_tokens: int = 0
    """Measured tokens of all documents."""


@dataclass(frozen=True, slots=True)
class Combination:
    """FVU at one layer, with the configured template or without any.

    `low` and `high` are a 95 % bootstrap over documents: of the FVU for the given combination, and for any other of
    its difference to the given one in the same draws, so that an interval without the given FVU means a real gap.
    """

    layer: int
    template: bool
    fvu: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Health:
    """The verdict, why in one sentence, and every combination tried, best first."""

    verdict: Literal["fits", "plausible", "does not fit"]
    sentence: str
    given: Combination
    best: Combination
    table: tuple[Combination, ...]
    n_tokens: int = 0


def judge_health(
    sums: Sequence[ErrorSums], *, layer: int, template: bool, recorded_fvu: float | None = None, rng_seed: int = 0
) -> Health:
    """Judge the SAE at `layer` and `template` against the other combinations and the FVU on its record.

    'fits': no other combination is better beyond its interval, and FVU ≤ 1.25 × the recorded one; 'plausible': the
    same without a record. A record that is no number is no record.

    Raises:
        SaeError: the given combination is missing, or there are fewer than two documents or no variance.
    """
    table = _measure(sums, layer, template, rng_seed)
    given = next(c for c in table if (c.layer, c.template) == (layer, template))
    best = table[0] if table[0].high < given.fvu else given
    recorded = recorded_fvu if recorded_fvu is not None and 0 <= recorded_fvu < math.inf else None
    verdict, sentence = _verdict(given, best, recorded, table)
    return Health(verdict, sentence, given, table[0], table, sums[0].n_tokens)


def _verdict(
    given: Combination, best: Combination, recorded: float | None, table: Sequence[Combination]
) -> tuple[Literal["fits", "plausible", "does not fit"], str]:
    """`best` is the given combination itself unless another is better beyond its interval."""
    here, better = _described(given, best, table), f"it fits better at {_place(best, table)} (FVU {best.fvu:.3f})"
    if given.fvu > 1:
        hint = f", or {better}" if best is not given and best.fvu < 1 else ""
        return "does not fit", (
            f"The SAE does not fit {here}: this is worse than predicting the mean, so it belongs to another model or "
            f"expects activations that are normalised differently{hint}."
        )
    is_far = recorded is not None and round(best.fvu, _RECORDED_DIGITS) > RECORD_TOLERANCE * recorded
    record = f"above {RECORD_TOLERANCE} × the recorded FVU {recorded:.3f}" if is_far else ""
    if best is not given:
        doubt = f", though even that is {record}, so it may belong to another model" if is_far else ""
        return "does not fit", f"The SAE does not fit {here}: {better}{doubt}."
    if is_far:
        return "does not fit", (
            f"The SAE does not fit {here}: nothing near is better, but this is {record}, so it was made for another "
            "model or other texts."
        )
    if recorded is None:
        return "plausible", f"The SAE is plausible at {here}: nothing near is better, but no FVU is on record."
    return "fits", f"The SAE fits {here}: nothing near is better, and the recorded FVU is {recorded:.3f}."


def _described(given: Combination, best: Combination, table: Sequence[Combination]) -> str:
    """The given place with its FVU, and with that of the other rendering unless the sentence will name it anyway."""
    other = [c for c in table if c.layer == given.layer and c.template != given.template and c is not best]
    beside = "".join(f"; {_rendering(c)} {c.fvu:.3f}" for c in other)
    return f"{_place(given, table)} (FVU {given.fvu:.3f}{beside})"


def _place(c: Combination, table: Sequence[Combination]) -> str:
    is_mixed = any(other.template != c.template for other in table)
    return f"layer {c.layer} {_rendering(c)}" if is_mixed else f"layer {c.layer}"


def _rendering(c: Combination) -> str:
    return "with the template" if c.template else "without a template"


def _measure(sums: Sequence[ErrorSums], layer: int, template: bool, rng_seed: int) -> tuple[Combination, ...]:
    """All combinations, best first; of equal ones the given comes first."""
    given = next((s for s in sums if (s.layer, s.template) == (layer, template)), None)
    if given is None:
        raise SaeError(f"Layer {layer} itself was not measured; measure it beside its neighbours.")
    n_docs = len(given.squared_error)
    if n_docs < 2 or any(s.squared_deviation.sum() <= 0 for s in sums):
        raise SaeError("Whether an SAE fits needs two documents of different tokens at least; give more documents.")
    if not all(np.isfinite(s.squared_error).all() for s in sums):
        raise SaeError("The reconstructions of this SAE overflow; its weights are damaged, so load another copy.")
    draws = np.random.default_rng(rng_seed).multinomial(n_docs, np.full(n_docs, 1 / n_docs), N_DRAWS)
    drawn = _drawn_fvu(given, draws)
    found = []
    for s in sums:
        fvu, base = _fvu(s), 0.0
        spread = _drawn_fvu(s, draws)
        if s is not given:
            spread, base = spread - drawn, _fvu(given)
        low, high = (float(base + q) for q in np.nanquantile(spread, _QUANTILES))
        found.append((s is not given, Combination(s.layer, s.template, fvu, low, high)))
    return tuple(c for _, c in sorted(found, key=lambda pair: (pair[1].fvu, pair[0], pair[1].layer)))


def _fvu(sums: ErrorSums) -> float:
    return float(sums.squared_error.sum() / sums.squared_deviation.sum())


def _drawn_fvu(sums: ErrorSums, draws: Ints) -> Floats:
    """FVU of each draw of documents; NaN where it drew none that varies."""
    deviation = draws @ sums.squared_deviation
    return (draws @ sums.squared_error) / np.where(deviation > 0, deviation, np.nan)
