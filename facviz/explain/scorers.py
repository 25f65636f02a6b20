"""How well an explanation holds on spans it was not written from, by embedding similarity alone.

A score is only as honest as its spans: held-out and background spans must belong to the score split, and each score
comes with the same measure of another feature's explanation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from facviz.errors import InputError
from facviz.explain.sampling import interval_of
from facviz.protocols import Embedder
from facviz.records import Explanation, ExplanationOutcome, Floats, Ints, Span, Split

_Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class IntervalScore:
    """Accuracy, or AUROC, of texts in one activation interval, 0 the weakest; texts without the feature have none."""

    interval: int
    n: int
    accuracy: float
    low: float
    high: float


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
    by_interval: tuple[IntervalScore, ...] = ()
    """Active spans of one interval each, against all of the background."""


def embedding_scores(
    explanations: Sequence[Explanation],
    held_out: Mapping[int, Sequence[Span]],
    background: Sequence[Span],
    embedder: Embedder,
    *,
    rng_seed: int,
    strangers: Sequence[Explanation] = (),
) -> dict[int, EmbeddingScore]:
    """Scores by feature id, of explained features that have held-out spans and spans to compare them with.

    The background of a feature is as many of the other features' spans, from documents it has no held-out span in.
    `strangers` lend the other feature's explanation where only one is scored.

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
    others_said = stranger_texts([e for e, _, _ in trials], strangers, rng_seed)
    texts = [text for e, active, others in trials for text in (e.text, *active, *others)]
    vectors = _Vectors.of(embedder, [*texts, *(text for text in others_said if text is not None)])
    scores: dict[int, EmbeddingScore] = {}
    for (explanation, active_texts, other_texts), stranger in zip(trials, others_said):
        shuffled = None if stranger is None else vectors.auroc(stranger, active_texts, other_texts)
        auroc = vectors.auroc(explanation.text, active_texts, other_texts)
        low, high = wilson_interval(auroc, min(len(active_texts), len(other_texts)))
        parts = tuple(_parts(vectors, explanation.text, held_out[explanation.feature_id], other_texts))
        n_active, n_background = len(active_texts), len(other_texts)
        scores[explanation.feature_id] = EmbeddingScore(auroc, n_active, n_background, low, high, shuffled, parts)
    return scores


def _parts(vectors: _Vectors, text: str, active: Sequence[Span], other_texts: Sequence[str]) -> Iterator[IntervalScore]:
    top = max(span.act for span in active)
    groups: dict[int, list[str]] = defaultdict(list)
    for span in active:
        groups[interval_of(span.act, top)].append(span.text)
    for interval, texts in sorted(groups.items()):
        auroc = vectors.auroc(text, texts, other_texts)
        yield IntervalScore(interval, len(texts), auroc, *wilson_interval(auroc, min(len(texts), len(other_texts))))


def stranger_texts(
    explanations: Sequence[Explanation], others: Sequence[Explanation], rng_seed: int
) -> list[str | None]:
    """For each explanation another feature's: one of them, else one of `others`; None where there is no other."""
    found: list[str | None] = []
    for own, stranger in zip(explanations, derangement(len(explanations), rng_seed)):
        if stranger is not None:
            found.append(explanations[stranger].text)
            continue
        pool = [e.text for e in others if e.feature_id != own.feature_id and e.outcome is ExplanationOutcome.EXPLAINED]
        drawn = int(np.random.default_rng([rng_seed, own.feature_id]).integers(max(len(pool), 1)))
        found.append(pool[drawn] if pool else None)
    return found


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
