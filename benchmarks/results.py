"""What a bench returns and how it is timed.

A `Result` is a ratio, ours and the reference measured in turn, so that a busy machine slows both. A `Bound` is a
quantity that must not exceed its bar, where no reference would mean anything: what a person waits for, memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """One bench: median rates in `unit`, the median of the pairs' ratios with their range, and the bar."""

    bench: str
    unit: str
    ours: float
    reference: float
    ratio: float
    ratio_low: float
    ratio_high: float
    bar: float
    settings: dict[str, Any]

    @property
    def passed(self) -> bool:
        """The ratio reaches the bar."""
        return self.ratio >= self.bar

    def as_json(self) -> dict[str, Any]:
        """Fields of the record with `passed`, rates and ratios rounded to four digits."""
        rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in asdict(self).items()}
        return rounded | {"passed": self.passed}


@dataclass(frozen=True, slots=True)
class Bound:
    """One bench with an absolute bar: what was measured, in `unit`, and the most it may be."""

    bench: str
    unit: str
    ours: float
    at_most: float
    settings: dict[str, Any]

    @property
    def passed(self) -> bool:
        """The bar is not exceeded; nothing measured is a miss."""
        return self.ours <= self.at_most

    def as_json(self) -> dict[str, Any]:
        """Fields of the record with `passed`, the quantity rounded to four digits."""
        return asdict(self) | {"ours": float(f"{self.ours:.4g}"), "passed": self.passed}


@dataclass(slots=True)
class Pairs:
    """Rates measured in turn, one of each a pair."""

    ours: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    def result(self, bench: str, unit: str, bar: float, **settings: object) -> Result:
        """The record of all pairs so far."""
        ratios = sorted(a / b for a, b in zip(self.ours, self.reference, strict=True))
        return Result(
            bench=bench,
            unit=unit,
            ours=median(self.ours),
            reference=median(self.reference),
            ratio=median(ratios),
            ratio_low=ratios[0],
            ratio_high=ratios[-1],
            bar=bar,
            settings={"pairs": len(ratios), **settings},
        )


def rate(work: Callable[[], int]) -> float:
    """Units per second of one call of `work`, which returns how many units it did."""
    started = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - started)


def alternate(ours: Callable[[], int], reference: Callable[[], int], n_pairs: int) -> Pairs:
    """Rates of both in turn, after one unmeasured call of each."""
    ours()
    reference()
    pairs = Pairs()
    for _ in range(n_pairs):
        pairs.ours.append(rate(ours))
        pairs.reference.append(rate(reference))
    return pairs
