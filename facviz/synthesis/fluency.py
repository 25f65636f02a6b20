"""Does a sample read like the corpus? The backbone's surprise per token, held against openings of the same length.

A mean over few tokens varies far more than one over many, and a text's first tokens surprise most. So a sample of n
tokens is compared with the first n tokens of every corpus document that has as many, never with whole documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from facviz.records import Candidate, Document, Encoded, Floats
from facviz.synthesis.plan import FeatureBrief

HIGH_PERCENTILE, LOW_PERCENTILE = 99.0, 1.0
HIGH_NATS = 1.5
"""Room above: a corpus that the backbone wrote itself surprises it less than fluent text of anybody else.

Of 70 texts that passed all else on the demo, 21 lay above the 99th percentile (2.2 nats), by up to 1.4; words of such
texts in random order lie at 7 nats.
"""
LOW_SHARE = 0.5
"""Share of the 1st percentile below which a text is degenerate, such as a loop of one phrase.

Of those texts none came below 1.2 times that percentile.
"""
MIN_DOCUMENTS = 30
"""With fewer documents of its length a text is measured and not judged."""
TOO_SURPRISING, TOO_PREDICTABLE = "not fluent", "degenerate"


class Surprise(Protocol):
    """A language model that says how much each content token of a document surprises it."""

    def surprises(self, documents: Sequence[Document]) -> list[Floats]:
        """Negative log-likelihood in nats of the content tokens, [n] of each document."""


class FluencyRange:
    """What the mean surprise of honest texts looks like, by length."""

    def __init__(self, surprises: Sequence[Floats]) -> None:
        kept = [s for s in surprises if len(s)]
        self._lengths = np.array([len(s) for s in kept], dtype=np.int64)
        self._sums = [np.cumsum(s, dtype=np.float64) for s in kept]

    @property
    def n_documents(self) -> int:
        """Documents it was calibrated on."""
        return len(self._sums)

    def limits(self, n_tokens: int) -> tuple[float, float] | None:
        """Lowest and highest mean surprise of a text of so many tokens; None where too few documents are that long.

        Texts longer than nearly all documents are held against the longest `MIN_DOCUMENTS` of them.
        """
        if self.n_documents < MIN_DOCUMENTS or n_tokens < 1:
            return None
        n = min(n_tokens, int(np.sort(self._lengths)[-MIN_DOCUMENTS]))
        means = [sums[n - 1] / n for sums in self._sums if len(sums) >= n]
        low, high = np.percentile(means, (LOW_PERCENTILE, HIGH_PERCENTILE))
        return float(low) * LOW_SHARE, float(high) + HIGH_NATS


@dataclass(slots=True)
class FluencyGate:
    """Measures a sample's surprise; the corpus is measured when the first sample comes."""

    surprise: Surprise
    calibrate: Callable[[], FluencyRange]
    _range: FluencyRange | None = None

    def check(
        self,
        brief: FeatureBrief,
        candidate: Candidate,
        shown: Sequence[str],  # noqa: ARG002 - a text is fluent by itself
        alone: Encoded,  # noqa: ARG002
    ) -> tuple[dict[str, Any], str | None]:
        """`perplexity` beside the range it must lie in."""
        [found] = self.surprise.surprises([brief.document_of(candidate)])
        if not len(found):
            return {"perplexity": None, "perplexity_range": None}, None
        mean, limits = float(np.mean(found)), self.range.limits(len(found))
        measures = {
            "perplexity": _perplexity(mean),
            "perplexity_range": limits and [_perplexity(limit) for limit in limits],
        }
        if limits is None or limits[0] - _ROUNDING <= mean <= limits[1] + _ROUNDING:
            return measures, None
        return measures, TOO_SURPRISING if mean > limits[1] else TOO_PREDICTABLE

    def accept(self, text: str) -> None:
        """What was accepted before does not matter here."""

    @property
    def range(self) -> FluencyRange:
        """The corpus's, measured once."""
        if self._range is None:
            self._range = self.calibrate()
        return self._range

    def calibration(self) -> dict[str, Any]:
        """What the limits rest on, for the record; nothing before the first sample."""
        if self._range is None:
            return {}
        limits = {str(n): self._range.limits(n) for n in (8, 16, 32, 64)}
        shown = {n: [_perplexity(limit) for limit in found] for n, found in limits.items() if found}
        return {"n_documents": self._range.n_documents, "perplexity": shown}


_ROUNDING = 0.01
"""Nats that a batch of one may differ from the batches of the corpus, in reduced precision."""


def _perplexity(mean: float) -> float:
    return round(math.exp(min(mean, 50.0)), 2)
