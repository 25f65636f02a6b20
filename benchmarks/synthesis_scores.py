"""From arms to figures: missing coverage, accepted share, intervals, and which orderings hold.

Intervals are of a bootstrap over targets (for the accepted share: over the parts of the budget) and seeds, with the
same draws for every arm, so that differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

EQUAL_TOTAL = {f"{arm}, as many in all": arm for arm in ("one-step", "plain", "random-feature")}
"""Arms that draw as many in all as `paper+steered` with what its pair and push are made of → their strategy."""
AIMING = ("one-step", "one-step, as many in all", "paper", "steered", "paper+steered")
"""Arms whose parts of the budget are their targets."""
N_BOOTSTRAP = 2000
SWEEP = (0.3, 0.6, 1.0)
ORDERINGS = (
    ("paper", "one-step"),
    ("one-step", "plain"),
    ("paper", "plain"),
    ("steered", "plain"),
    ("paper+steered", "plain"),
    *(("paper+steered", arm) for arm in EQUAL_TOTAL),
    ("paper+steered", "paper"),
    ("paper", "random-feature"),
)
"""First at least as high as second: what is claimed, and what it takes for the claim to mean something."""

Numbers = npt.NDArray[np.float64]
Arm = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float


def covered(arm: Arm, share: float, *, with_gate: bool, most_units: int | None = None) -> Numbers:
    """Which targets some sample of the arm activates at this part of δ, [n_targets]."""
    found = np.zeros(arm["n_units"])
    for sample in arm["samples"]:
        is_kept = sample["accepted"] or not with_gate
        if is_kept and (most_units is None or sample["unit"] < most_units):
            found[np.array(sample["shares"]) > share] = 1
    return found


def accepted_shares(arm: Arm, *, with_gate: bool) -> Numbers:
    """Accepted over drawn candidates in each equal part of the budget, [n_units]."""
    accepted = np.zeros(arm["n_units"])
    for sample in arm["samples"]:
        accepted[sample["unit"]] += sample["accepted"] or not with_gate
    return accepted / np.maximum(np.array(arm["drawn"], float), 1)


def summarise(
    arms: Sequence[Arm], deltas: Sequence[float], within_reach: Sequence[bool], rng_seed: int = 0
) -> dict[str, Any]:
    """All figures of one study; `within_reach` says of each target if an anchor text goes as far as a sample must."""
    by_name: dict[str, list[Arm]] = {}
    for arm in arms:
        by_name.setdefault(arm["arm"], []).append(arm)
    draw = _Bootstrap(arms[0]["n_units"], rng_seed)
    figures = {name: _figures(found, deltas, draw) for name, found in by_name.items()}
    reached = np.flatnonzero(within_reach)
    for name, found in by_name.items() if len(reached) else ():
        values = np.stack([covered(arm, 1.0, with_gate=True)[reached] for arm in found])
        figures[name]["within_reach"] = _rounded(_Bootstrap(len(reached), rng_seed).estimate(values))
    found = {"arms": figures, "orderings": _orderings(by_name, deltas, draw)}
    return found | {
        "aimed": {"within": _aimed(arms, reached), "beyond": _aimed(arms, np.flatnonzero(~np.array(within_reach)))}
    }


def _aimed(arms: Sequence[Arm], targets: npt.NDArray[np.int64]) -> dict[str, int]:
    """What arms that aim drew and accepted for these targets, and in how many runs a target was covered at δ 1."""
    chosen, aiming = set(targets.tolist()), [arm for arm in arms if arm["arm"] in AIMING]
    return {
        "n_runs": len(aiming) * len(chosen),
        "n_drawn": sum(arm["drawn"][unit] for arm in aiming for unit in chosen),
        "n_accepted": sum(s["accepted"] for arm in aiming for s in arm["samples"] if s["unit"] in chosen),
        "n_covered": int(sum(covered(arm, 1.0, with_gate=True)[sorted(chosen)].sum() for arm in aiming)),
    }


def _figures(arms: Sequence[Arm], deltas: Sequence[float], draw: _Bootstrap) -> dict[str, Any]:
    def table(of: Callable[[Arm], Numbers]) -> dict[str, float]:
        return _rounded(draw.estimate(np.stack([of(arm) for arm in arms])))

    n_units = arms[0]["n_units"]
    sizes = {f"{part:g}": max(1, math.ceil(part * n_units)) for part in SWEEP}
    gates = {"with gate": True, "without gate": False}
    return {
        "n_seeds": len(arms),
        "n_drawn": sum(sum(arm["drawn"]) for arm in arms),
        "n_beside": sum(arm["n_beside"] for arm in arms),
        "n_accepted": sum(s["accepted"] for arm in arms for s in arm["samples"]),
        "n_copied": sum(not s["accepted"] for arm in arms for s in arm["samples"]),
        "steps": arms[0]["steps"],
        "missing_coverage": {
            gate: {f"{d:g}": table(lambda a, d=d, g=g: covered(a, d, with_gate=g)) for d in deltas}  # type: ignore[misc]
            for gate, g in gates.items()
        },
        "accepted_share": {
            gate: table(lambda a, g=g: accepted_shares(a, with_gate=g))
            for gate, g in gates.items()  # type: ignore[misc]
        },
        "sweep": {
            part: table(lambda a, n=n: covered(a, 1.0, with_gate=True, most_units=n))  # type: ignore[misc]
            for part, n in sizes.items()
        },
    }


def _orderings(by_name: Mapping[str, Sequence[Arm]], deltas: Sequence[float], draw: _Bootstrap) -> list[dict[str, Any]]:
    """Differences in missing coverage for pairs of which both ran."""
    found = []
    for first, second in ORDERINGS:
        if first not in by_name or second not in by_name:
            continue
        for delta in deltas:
            sides = [
                np.stack([covered(arm, delta, with_gate=True) for arm in by_name[name]]) for name in (first, second)
            ]
            found.append({"first": first, "second": second, "delta": delta, **_rounded(draw.difference(*sides))})
    return found


class _Bootstrap:
    """The same draws of targets and seeds for everything."""

    def __init__(self, n_targets: int, rng_seed: int) -> None:
        self._rng_seed = rng_seed
        self._targets = np.random.default_rng(rng_seed).integers(n_targets, size=(N_BOOTSTRAP, n_targets))

    def estimate(self, values: Numbers) -> Estimate:
        """Of values [n_seeds, n_targets]."""
        return _interval(float(values.mean()), self._means(values))

    def difference(self, first: Numbers, second: Numbers) -> Estimate:
        """First minus second, target by target."""
        return _interval(float(first.mean() - second.mean()), self._means(first) - self._means(second))

    def _means(self, values: Numbers) -> Numbers:
        seeds = np.random.default_rng(self._rng_seed + 1).integers(len(values), size=(N_BOOTSTRAP, len(values)))
        weights = np.stack([np.bincount(row, minlength=len(values)) for row in seeds]) / len(values)
        by_target = weights @ values  # [draws, targets]: each draw's mean over its seeds
        means: Numbers = np.take_along_axis(by_target, self._targets, axis=1).mean(axis=1)
        return means


def _interval(value: float, draws: Numbers) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _rounded(estimate: Estimate) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(estimate).items()}
