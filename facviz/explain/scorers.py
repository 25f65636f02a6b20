"""How well an explanation holds on spans it was not written from, by embedding similarity alone.

A score is only as honest as its spans: held-out and background spans must belong to the score split, and each score
comes with the same measure of another feature's explanation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from facviz.errors import InputError
from facviz.protocols import Embedder
from facviz.records import Explanation, ExplanationOutcome, Floats, Ints, Span, Split

_Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class EmbeddingScore:
    """AUROC of similarity to the explanation, active spans against background, with a 95 % interval."""

    auroc: float
    n_active: int
    n_background: int
    low: float
    high: float
    shuffled_auroc: float | None
    """The same with another feature's explanation; None where there is no other."""


def embedding_scores(
    explanations: Sequence[Explanation],
    held_out: Mapping[int, Sequence[Span]],
    background: Sequence[Span],
    embedder: Embedder,
    *,
    rng_seed: int,
) -> dict[int, EmbeddingScore]:
    """Scores by feature id, of explained features that have held-out spans and spans to compare them with.

    The background of a feature is as many of the other features' spans, from documents it has no held-out span in.

    Raises:
        InputError: a span does not belong to the score split, or a feature has two explanations.
    """
    explained = [e for e in explanations if e.outcome is ExplanationOutcome.EXPLAINED and held_out.get(e.feature_id)]
    _check(explained, held_out, background)
    pool = _Background.shuffled(background, rng_seed)
    trials: list[tuple[Explanation, list[str], list[str]]] = []
    for explanation in explained:
        active = held_out[explanation.feature_id]
        if others := pool.draw(explanation.feature_id, active, rng_seed):
            trials.append((explanation, [span.text for span in active], [span.text for span in others]))
    vectors = _Vectors.of(embedder, [text for e, active, others in trials for text in (e.text, *active, *others)])
    scores: dict[int, EmbeddingScore] = {}
    for (explanation, active_texts, other_texts), stranger in zip(trials, derangement(len(trials), rng_seed)):
        shuffled = None if stranger is None else vectors.auroc(trials[stranger][0].text, active_texts, other_texts)
        auroc = vectors.auroc(explanation.text, active_texts, other_texts)
        low, high = wilson_interval(auroc, min(len(active_texts), len(other_texts)))
        n_active, n_background = len(active_texts), len(other_texts)
        scores[explanation.feature_id] = EmbeddingScore(auroc, n_active, n_background, low, high, shuffled)
    return scores


def to_scores(score: EmbeddingScore) -> dict[str, float]:
    """The entries of `Explanation.scores`; what was not measured has no entry."""
    scores = {
        "embedding_auroc": score.auroc,
        "embedding_auroc_low": score.low,
        "embedding_auroc_high": score.high,
        "embedding_n_active": float(score.n_active),
        "embedding_n_background": float(score.n_background),
    }
    if score.shuffled_auroc is not None:
        scores["embedding_auroc_shuffled"] = score.shuffled_auroc
    return scores


def _check(
    explained: Sequence[Explanation], held_out: Mapping[int, Sequence[Span]], background: Sequence[Span]
) -> None:
    if len({e.feature_id for e in explained}) < len(explained):
        raise InputError("A feature has more than one explanation to score; score one version at a time.")
    spans = [span for group in (*(held_out[e.feature_id] for e in explained), background) for span in group]
    for span in spans:
        if span.split is not Split.SCORE:
            raise InputError(
                f"Feature {span.feature_id} would be scored on a span its explanation may be written from; "
                "pass only spans of the score split."
            )


@dataclass(frozen=True, slots=True)
class _Background:
    """Other features' spans in one random order, from which each feature takes a stretch."""

    spans: list[Span]
    feature_id: Ints
    doc_no: Ints

    @classmethod
    def shuffled(cls, background: Sequence[Span], rng_seed: int) -> _Background:
        spans = [background[i] for i in np.random.default_rng(rng_seed).permutation(len(background))]
        columns = (np.array([getattr(s, name) for s in spans], dtype=np.int64) for name in ("feature_id", "doc_no"))
        return cls(spans, *columns)

    def draw(self, feature_id: int, active: Sequence[Span], rng_seed: int) -> list[Span]:
        """As many spans as are active, or all there are, of other features and other documents.

        Looks at a widening stretch rather than at everything, so that the cost does not grow with the pool.
        """
        if not self.spans:
            return []
        n_spans, width = len(self.spans), 4 * len(active)
        start = int(np.random.default_rng([rng_seed, feature_id]).integers(n_spans))
        documents = np.array([span.doc_no for span in active])
        while True:
            stretch = (start + np.arange(min(width, n_spans))) % n_spans
            is_other = (self.feature_id[stretch] != feature_id) & ~np.isin(self.doc_no[stretch], documents)
            found = stretch[is_other][: len(active)]
            if len(found) == len(active) or width >= n_spans:
                return [self.spans[i] for i in found]
            width *= 2


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Unit vectors of distinct texts, each embedded once."""

    row: dict[str, int]
    vectors: Floats

    @classmethod
    def of(cls, embedder: Embedder, texts: Sequence[str]) -> _Vectors:
        distinct = list(dict.fromkeys(texts))
        return cls({text: i for i, text in enumerate(distinct)}, embedder.embed(distinct) if distinct else np.empty(0))

    def auroc(self, explanation: str, active: Sequence[str], others: Sequence[str]) -> float:
        rows = [self.row[text] for text in (*active, *others)]
        return _auroc(self.vectors[rows] @ self.vectors[self.row[explanation]], len(active))


def _auroc(similarity: Floats, n_active: int) -> float:
    """Mann–Whitney: chance that an active span (the first `n_active`) beats another one, ties counting half."""
    from scipy.stats import rankdata  # takes half a second, which every command would wait for

    n_others = len(similarity) - n_active
    rank_sum = float(rankdata(similarity)[:n_active].sum())
    return (rank_sum - n_active * (n_active + 1) / 2) / (n_active * n_others)


def wilson_interval(auroc: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval with n the smaller side: AUROC's variance never exceeds A(1 − A)/n.

    Conservative, and unlike a bootstrap or DeLong's interval it keeps its width at an AUROC of 1.
    """
    z2 = _Z_95**2
    centre = (auroc + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 * math.sqrt(auroc * (1 - auroc) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def derangement(n: int, rng_seed: int) -> list[int | None]:
    """For each of n items another one, as one random cycle; None when there is no other."""
    if n < 2:
        return [None] * n
    cycle = np.random.default_rng(rng_seed).permutation(n)
    partner = np.empty(n, dtype=np.int64)
    partner[cycle] = np.roll(cycle, 1)
    return list(partner.tolist())
