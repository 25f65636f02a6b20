"""Which waiting feature starts next: the most relevant, or the one that promises most coverage per candidate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from facviz.config import SynthesisConfig
from facviz.synthesis.plan import FeatureBrief

_PRIOR_CANDIDATES = 24.0
"""What the prior weighs against acceptance seen in this run, in candidates."""
_DOCS_FOR_HALF = 10.0
"""Anchor documents at which the prior acceptance is half of its highest."""
_HIGHEST_RATE = 0.4
_BEYOND_ANCHOR_RATE = 0.01
"""Prior acceptance where no anchor text goes as far as a sample must; in docs/results.md one of 744 did."""
_BEYOND_ANCHOR = -1
"""Their bin."""


@dataclass(slots=True)
class Acceptance:
    """Accepted and tried candidates of the run, by how many anchor documents activate their feature (powers of two).

    Features beyond the anchor set are counted apart.
    """

    counts: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, brief: FeatureBrief, n_accepted: int, n_tried: int) -> None:
        """Count a finished batch."""
        accepted, tried = self.counts.get(_bin(brief), (0, 0))
        self.counts[_bin(brief)] = accepted + n_accepted, tried + n_tried

    def rate(self, brief: FeatureBrief) -> float:
        """Expected acceptance: a feature that fires often in the anchor set is easier to meet, until the run says."""
        docs = brief.n_anchor_docs
        often = _HIGHEST_RATE * (docs + 1) / (docs + 1 + _DOCS_FOR_HALF)
        prior = _BEYOND_ANCHOR_RATE if brief.is_beyond_anchor else often
        accepted, tried = self.counts.get(_bin(brief), (0, 0))
        return (prior * _PRIOR_CANDIDATES + accepted) / (_PRIOR_CANDIDATES + tried)


def expected_gain(rate: float, n_first: int, n_most: int, n_wanted: int) -> float:
    """Chance that a feature is filled, per candidate it is expected to take; `n_first` are drawn in any case.

    One sample fills it when `n_wanted` is 1; for more, the candidates are shared out among them.
    """
    share = n_most / n_wanted
    met = 1.0 - math.pow(1.0 - rate, share)
    return math.pow(met, n_wanted) / (n_first + n_wanted * met / rate)


def next_feature(
    waiting: Sequence[FeatureBrief], order: Literal["relevance", "gain"], seen: Acceptance, config: SynthesisConfig
) -> int:
    """Place in `waiting`, which is in order of relevance; equal gains keep it.

    By gain, what lies beyond the anchor set comes after all else.
    """
    if order == "relevance":
        return 0
    gains = [
        expected_gain(seen.rate(brief), config.pair_candidates, config.max_candidates, config.per_feature)
        for brief in waiting
    ]
    return max(range(len(waiting)), key=lambda i: (not waiting[i].is_beyond_anchor, gains[i], -i))


def batch_sizes(total: int, size: int) -> Iterable[int]:
    """Sizes of the batches that a number of candidates is drawn in."""
    return (min(size, total - start) for start in range(0, total, size))


def _bin(brief: FeatureBrief) -> int:
    if brief.is_beyond_anchor:
        return _BEYOND_ANCHOR
    return int(math.log2(brief.n_anchor_docs + 1))
