"""Which features matter to a task: judged from labels at equal length, or from explanations; people overrule both.

Labels are one class against the rest, or every label in turn, which says to which of them a feature belongs.

A verdict is given once per feature, from one source, and never depends on what a data set activates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from facviz.errors import InputError
from facviz.protocols import Embedder
from facviz.records import Bools, Explanation, ExplanationOutcome, Floats, Ints, Relevance, TaskGuideline, Verdict

LEVELS = (Verdict.YES, Verdict.PROBABLY, Verdict.MAYBE)
"""Verdicts that can count as relevant, strongest first; a level includes the stronger ones."""

SOURCES = ("label", "embedding", "llm", "human")

COSINE_CUTS = ((0.50, Verdict.YES), (0.40, Verdict.PROBABLY), (0.30, Verdict.MAYBE))
"""Lowest cosine between an explanation and a rubric point for each verdict; below the last one it is `no`."""

EVERY_LABEL = "*"
"""In place of a label: each in turn against all others."""

MAX_LABELS = 100
"""More are names of documents rather than of themes, and every one costs a pass of permutations."""

_FEATURES_AT_ONCE = 512
_PERMUTATIONS_AT_ONCE = 1000
# Float32 sums of equal AUROCs differ by less; counting near-ties as ties keeps p on the cautious side.
_TIE = 2e-6


@dataclass(frozen=True, slots=True, eq=False)
class LabelRelevance:
    """How well each feature separates the labels; [d_sae] each, NaN where the feature is active nowhere."""

    auroc: Floats  # within groups of equal length
    raw_auroc: Floats  # ignoring length, for comparison only
    p: Floats  # one-sided, within-group permutations
    q: Floats  # Benjamini-Hochberg over the tested features, and over all labels where each was tried
    tested: Bools
    relevant: Bools


@dataclass(frozen=True, slots=True)
class _Strata:
    """Documents of length groups that hold both classes, group after group, and what makes ranks an AUROC."""

    groups: tuple[Ints, ...]  # document numbers of each group
    labels: tuple[Bools, ...]
    weight: Floats  # [n_kept] 1 / (negatives in the document's group × all positives)
    offset: float


def label_relevance(
    acts: Any,
    positive: Bools,
    n_content_tokens: Ints,
    *,
    min_auroc: float = 0.55,
    max_q: float = 0.05,
    n_permutations: int = 10_000,
    rng_seed: int = 0,
    n_bins: int = 10,
) -> LabelRelevance:
    """Length-controlled label relevance of `acts` [n_docs, d_sae] (design: label-driven relevance).

    AUROC of `g_i` within quantile groups of content-token count, weighted by positives; a group of one class is left
    out. Relevant: AUROC ≥ `min_auroc` and q ≤ `max_q`. Every feature sees the same permutations.

    Raises:
        InputError: lengths differ, a class is missing, or no length group holds both classes.
    """
    columns, positive, lengths = _checked(acts, positive, n_content_tokens)
    found = _separate(columns, positive, lengths, n_permutations, rng_seed, n_bins)
    return _decide({"": found}, min_auroc, max_q)[""]


@dataclass(frozen=True, slots=True, eq=False)
class Separation:
    """How features tell one set of texts from another, in either direction; [d_sae] each, NaN where untested."""

    auroc: Floats  # within groups of equal length; above .5 it fires more in the first set
    q: Floats  # two-sided, within-group permutations, Benjamini-Hochberg over the tested features
    tested: Bools


def separate_sets(
    acts: Any,
    is_first: Bools,
    n_content_tokens: Ints,
    *,
    n_permutations: int = 10_000,
    rng_seed: int = 0,
    n_bins: int = 10,
) -> Separation:
    """Length-controlled separation of two sets of texts by `acts` [n_docs, d_sae], with `is_first` in place of a label.

    Raises:
        InputError: lengths differ, a set is empty, or no length group holds texts of both sets.
    """
    options = {"n_permutations": n_permutations, "rng_seed": rng_seed, "n_bins": n_bins}
    upper = label_relevance(acts, is_first, n_content_tokens, **options)
    p = upper.p.copy()
    below = np.flatnonzero(upper.tested & (np.nan_to_num(upper.auroc, nan=1.0) < 0.5))
    if below.size:  # negated, the lower tail of the same permutations becomes the upper one
        negated = -sparse.csc_array(acts)[:, below]
        p[below] = label_relevance(negated, is_first, n_content_tokens, **options).p
    q = np.full_like(p, np.nan)
    q[upper.tested] = benjamini_hochberg(np.minimum(2 * p[upper.tested], 1.0))
    return Separation(upper.auroc, q, upper.tested)


def theme_relevance(
    acts: Any,
    labels: Sequence[str | None],
    n_content_tokens: Ints,
    *,
    min_auroc: float = 0.55,
    max_q: float = 0.05,
    n_permutations: int = 10_000,
    rng_seed: int = 0,
    n_bins: int = 10,
) -> dict[str, LabelRelevance]:
    """`label_relevance` of every label in turn against all other documents, unlabelled ones among them.

    The q-values are corrected once over all labels and features, because every one of these tests was a try.

    Raises:
        InputError: fewer than two labels, more than `MAX_LABELS`, or a label that length alone tells from the rest.
    """
    names = sorted({label for label in labels if label is not None})
    if not 2 <= len(names) <= MAX_LABELS:
        raise InputError(
            f"There are {len(names)} different labels; every label in turn needs 2 to {MAX_LABELS}, or name one with "
            "`positive`."
        )
    found = {}
    for name in names:
        is_named = np.array([label == name for label in labels])
        columns, positive, lengths = _checked(acts, is_named, n_content_tokens)
        try:
            found[name] = _separate(columns, positive, lengths, n_permutations, rng_seed, n_bins)
        except InputError as error:
            raise InputError(f"Label {name!r}: {error}") from error
    return _decide(found, min_auroc, max_q)


def _separate(
    columns: Any, positive: Bools, lengths: Ints, n_permutations: int, rng_seed: int, n_bins: int
) -> LabelRelevance:
    """Both AUROCs and p of every active feature; q and the decision are left open."""
    strata = _stratify(positive, lengths, n_bins)
    everyone = _Strata((np.arange(len(positive)),), (positive,), *_auroc_terms([positive]))
    permuted = _permuted_labels(strata, n_permutations, rng_seed)
    tested = np.diff(columns.indptr) > 0
    auroc, raw, p = (np.full(columns.shape[1], np.nan) for _ in range(3))
    for ids in _chunks(np.flatnonzero(tested)):
        dense = columns[:, ids].toarray()
        ranks = _weighted_ranks(dense, strata)
        auroc[ids] = _auroc(ranks, strata)
        raw[ids] = _auroc(_weighted_ranks(dense, everyone), everyone)
        p[ids] = _permutation_p(ranks, np.concatenate(strata.labels), permuted)
    undecided = np.full(columns.shape[1], np.nan)
    return LabelRelevance(auroc, raw, p, undecided, tested, np.zeros_like(tested))


def _decide(found: Mapping[str, LabelRelevance], min_auroc: float, max_q: float) -> dict[str, LabelRelevance]:
    """The same with q corrected over all of them together, and what is relevant."""
    p = np.stack([result.p for result in found.values()])
    tested = np.stack([result.tested for result in found.values()])
    q = np.full(p.shape, np.nan)
    q[tested] = benjamini_hochberg(p[tested])
    decided = {}
    for (name, result), q_row in zip(found.items(), q):
        relevant = (np.nan_to_num(result.auroc) >= min_auroc) & (np.nan_to_num(q_row, nan=1.0) <= max_q)
        decided[name] = replace(result, q=q_row, relevant=result.tested & relevant)
    return decided


def _checked(acts: Any, positive: Bools, n_content_tokens: Ints) -> tuple[Any, Bools, Ints]:
    labels, lengths = np.asarray(positive), np.asarray(n_content_tokens)
    if not acts.shape[0] == len(labels) == len(lengths):
        raise InputError(
            f"There are {acts.shape[0]} documents, {len(labels)} labels and {len(lengths)} token counts; give one of "
            "each per document."
        )
    if labels.dtype != np.bool_:
        raise InputError("Labels must be true or false per document; compare them with the positive label first.")
    if labels.all() or not labels.any():
        raise InputError("All documents carry the same label, so no feature can separate them; label both classes.")
    columns = sparse.csc_array(acts, dtype=np.float32, copy=True)
    columns.sum_duplicates()
    columns.eliminate_zeros()
    if not np.isfinite(columns.data).all():
        raise InputError("The activations hold NaN or infinite values; capture them again before judging relevance.")
    return columns, labels, lengths


def _stratify(positive: Bools, lengths: Ints, n_bins: int) -> _Strata:
    # Groups are cut at values, not at ranks: documents of equal length always share one.
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, n_bins + 1)[1:-1]))
    group = np.searchsorted(edges, lengths, side="right")
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    mixed = [m for m in members if 0 < positive[m].sum() < m.size]
    if not mixed:
        raise InputError(
            "Text length alone separates the labels, so relevance cannot be told apart from it; add texts."
        )
    labels = [positive[m] for m in mixed]
    return _Strata(tuple(mixed), tuple(labels), *_auroc_terms(labels))


def _auroc_terms(labels: Sequence[Bools]) -> tuple[Floats, float]:
    """Per-document weights and the constant that turn summed midranks of positives into a weighted AUROC."""
    total = sum(int(y.sum()) for y in labels)
    weights = [np.full(y.size, 1.0 / ((~y).sum() * total)) for y in labels]
    # A group's AUROC is (rank sum − n⁺(n⁺ + 1)/2) / (n⁺ n⁻), and its weight n⁺ / total.
    offset = sum(y.sum() * (y.sum() + 1) / 2 / ((~y).sum() * total) for y in labels)
    return np.concatenate(weights), float(offset)


def _weighted_ranks(dense: Floats, strata: _Strata) -> Floats:
    """Midranks within each group times the weights, [n_kept, n_features]: summed over positives, AUROC + offset."""
    from scipy.stats import rankdata  # takes half a second, and the dashboard's first page needs none of it

    ranks = np.concatenate([rankdata(dense[members], axis=0) for members in strata.groups])
    return np.asarray(ranks * strata.weight[:, None])


def _auroc(ranks: Floats, strata: _Strata) -> Floats:
    return np.asarray(ranks[np.concatenate(strata.labels)].sum(axis=0) - strata.offset)


def _permuted_labels(strata: _Strata, n_permutations: int, rng_seed: int) -> Bools:
    """Labels shuffled within their groups, [n_permutations, n_kept]."""
    rng = np.random.default_rng(rng_seed)
    blocks = [rng.permuted(np.tile(y, (n_permutations, 1)), axis=1) for y in strata.labels]
    return np.concatenate(blocks, axis=1)


def _permutation_p(ranks: Floats, labels: Bools, permuted: Bools) -> Floats:
    """(1 + permutations at least as extreme) / (1 + permutations), per feature."""
    centre = ranks.mean(axis=0)  # smaller numbers, smaller float32 error; the count of positives is always the same
    scores = (ranks - centre).astype(np.float32)
    observed = (ranks - centre)[labels].sum(axis=0) - _TIE
    reached = np.zeros(ranks.shape[1], dtype=np.int64)
    for start in range(0, len(permuted), _PERMUTATIONS_AT_ONCE):
        sums = permuted[start : start + _PERMUTATIONS_AT_ONCE].astype(np.float32) @ scores
        reached += (sums >= observed).sum(axis=0)
    return np.asarray((1 + reached) / (1 + len(permuted)))


def _chunks(ids: Ints) -> Iterator[Ints]:
    for start in range(0, ids.size, _FEATURES_AT_ONCE):
        yield ids[start : start + _FEATURES_AT_ONCE]


def benjamini_hochberg(p: Floats) -> Floats:
    """Adjusted p-values: the false discovery rate at which each test would be called."""
    order = np.argsort(p)
    scaled = np.asarray(p)[order] * p.size / np.arange(1, p.size + 1)
    q = np.empty(p.size)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q


def to_verdict(result: LabelRelevance, feature_id: int) -> Relevance:
    """Yes or no from the labels, with the numbers it rests on; `score` is the length-controlled AUROC.

    Raises:
        InputError: the feature is active nowhere in the labelled data, so nothing is known about it.
    """
    if not result.tested[feature_id]:
        raise InputError(f"Feature {feature_id} is active on no labelled document; label documents that activate it.")
    auroc, raw, q = (float(values[feature_id]) for values in (result.auroc, result.raw_auroc, result.q))
    rationale = f"AUROC {auroc:.3f} at equal length (raw {raw:.3f}), q = {q:.3g}"
    verdict = Verdict.YES if result.relevant[feature_id] else Verdict.NO
    return Relevance(int(feature_id), "label", verdict, auroc, rationale)


def to_verdicts(result: LabelRelevance) -> list[Relevance]:
    """One verdict for every tested feature, by feature id."""
    return [to_verdict(result, i) for i in np.flatnonzero(result.tested).tolist()]


def to_theme_verdicts(results: Mapping[str, LabelRelevance]) -> list[Relevance]:
    """One verdict for every tested feature, by feature id: that of the label it separates best, kept as its theme.

    The best is the highest AUROC among the labels it is relevant to, or among all where there is none.
    """
    names = list(results)
    tested = np.stack([r.tested for r in results.values()])
    relevant = np.stack([r.relevant for r in results.values()])
    # An AUROC lies in 0..1, so 2 more puts every relevant label before every other one.
    rank = np.where(tested, np.nan_to_num(np.stack([r.auroc for r in results.values()])) + 2 * relevant, -1)
    best = rank.argmax(axis=0)
    verdicts = []
    for i in np.flatnonzero(tested.any(axis=0)).tolist():
        name = names[best[i]]
        verdict = to_verdict(results[name], i)
        verdicts.append(replace(verdict, rationale=f"{name}: {verdict.rationale}", theme=name))
    return verdicts


def embedding_relevance(
    explanations: Sequence[Explanation], guideline: TaskGuideline, embedder: Embedder
) -> list[Relevance]:
    """Verdicts from the cosine between explanation and nearest rubric point: meeting one point is enough.

    Features whose explanation failed or says "cannot tell" are not judged and not listed.
    """
    if not guideline.points:
        raise InputError(f"The guideline {guideline.name} has no rubric points; add at least one.")
    judged = [e for e in explanations if e.outcome is ExplanationOutcome.EXPLAINED]
    if not judged:
        return []
    cosine = embedder.embed([e.text for e in judged]) @ embedder.embed(guideline.points).T
    nearest = cosine.argmax(axis=1)
    return [
        _judge_cosine(explanation.feature_id, float(row[best]), guideline.points[best])
        for explanation, row, best in zip(judged, cosine, nearest)
    ]


def _judge_cosine(feature_id: int, cosine: float, point: str) -> Relevance:
    verdict = next((v for cut, v in COSINE_CUTS if cosine >= cut), Verdict.NO)
    return Relevance(feature_id, "embedding", verdict, cosine, f"Nearest rubric point: {point} (cosine {cosine:.2f})")


def relevant_features(verdicts: Iterable[Relevance], level: str, source: str) -> Ints:
    """Sorted ids judged relevant at `level` or above by `source`; a person's verdict wins in both directions.

    Of several verdicts by the same source on one feature the last one counts.
    """
    names = [v.value for v in LEVELS]
    if level not in names:
        raise InputError(f"The relevance level {level!r} is unknown; choose one of {', '.join(names)}.")
    if source not in SOURCES:
        raise InputError(f"The relevance source {source!r} is unknown; choose one of {', '.join(SOURCES)}.")
    by_machine: dict[int, Verdict] = {}
    by_person: dict[int, Verdict] = {}
    for verdict in verdicts:
        if verdict.source == "human":
            by_person[verdict.feature_id] = verdict.verdict
        elif verdict.source == source:
            by_machine[verdict.feature_id] = verdict.verdict
    accepted = LEVELS[: names.index(level) + 1]
    return np.array(sorted(i for i, v in (by_machine | by_person).items() if v in accepted), dtype=np.int64)
