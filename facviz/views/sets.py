"""Data sets side by side: one coverage question put to each, at equal tokens too, and what one gains over another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from facviz.coverage import ActivityIndex, Change, Difference, EqualTokens, share_within
from facviz.views.live import N_BOOTSTRAP, Live, shares_interval

N_DRAWS = 100
CHANGES_SHOWN: Mapping[Change, str] = {
    "lost": "Lost",
    "weakened": "Weakened",
    "gained": "Gained",
    "strengthened": "Strengthened",
}
CHANGE_MEANINGS: Mapping[Change, str] = {
    "lost": "in no text of the second set, but in the first",
    "weakened": "in both, but per token in at most half as many texts, beyond chance",
    "gained": "in the second set, but in no text of the first",
    "strengthened": "in both, but per token in at least twice as many texts, beyond chance",
}


@dataclass(frozen=True, slots=True)
class SetRow:
    """One data set's answer to the question: FAC in three forms, its gap, and FAC within the common token budget."""

    name: str
    n_docs: int
    n_tokens: int
    fac: float
    interval: tuple[float, float]
    frequency: float
    magnitude: float
    n_missing: int
    fills: int
    """Features missing from the seed set that this set activates."""
    equal: EqualTokens


def compare_sets(
    live: Live, sets: Mapping[str, ActivityIndex], *, n_bootstrap: int = N_BOOTSTRAP, n_draws: int = N_DRAWS
) -> tuple[int, list[SetRow]]:
    """The common budget (content tokens of the smallest set that has any), and each set's row, in the order given."""
    usable = {name: index for name, index in sets.items() if index.total_tokens}
    budget = min((index.total_tokens for index in usable.values()), default=0)
    return budget, [_row(name, live, index, budget, n_bootstrap, n_draws) for name, index in usable.items()]


def _row(name: str, live: Live, index: ActivityIndex, budget: int, n_bootstrap: int, n_draws: int) -> SetRow:
    n_active = index.n_active(live.target_threshold, live.target)
    docs, offsets = index.docs_of(n_active, live.target)
    shown = n_active > 0
    fac, frequency, magnitude = (live.weights[shown].sum(axis=0) / live.weights.sum(axis=0)).tolist()
    return SetRow(
        name=name,
        n_docs=index.n_docs,
        n_tokens=index.total_tokens,
        fac=fac,
        interval=shares_interval(live, index, n_bootstrap=n_bootstrap)[0],
        frequency=frequency,
        magnitude=magnitude,
        n_missing=int((~shown).sum()),
        fills=len(set(live.target[shown].tolist()) & set(live.missing.tolist())),
        equal=share_within(name, docs, offsets, index.n_tokens, budget, n_draws=n_draws),
    )


def change_rows(difference: Difference, ids: Iterable[int]) -> dict[int, tuple[int, int, float, float]]:
    """Documents before and after, ratio per token and q of these features."""
    place = {feature: i for i, feature in enumerate(difference.features.tolist())}
    return {
        f: (
            int(difference.n_before[place[f]]),
            int(difference.n_after[place[f]]),
            float(difference.ratio[place[f]]),
            float(difference.q[place[f]]),
        )
        for f in ids
    }
