"""k-sparse probing: how well a handful of features, found on one half of a labelled set, tell labels on the other.

The one downstream measure of an SAE that holds up over seeds; read it beside the two baselines, because texts of
different labels differ in length, and maxima over more tokens are larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from facviz.errors import InputError
from facviz.records import Bools, Floats, Ints, Split, split_of

KS = (1, 2, 5)
MAX_LABELS = 100
"""More are names of documents rather than classes, and every one costs a probe per k."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A logistic regression on a few columns, scored on documents it was not fitted to."""

    k: int
    feature_ids: tuple[int, ...]
    """Features it reads, the most different first; fewer than k where fewer differ, none for the length baseline."""
    accuracy: float
    auroc: float


@dataclass(frozen=True, slots=True)
class Probing:
    """Probes for one label against the rest, and what needs no SAE: the commoner side, and length alone."""

    probes: tuple[Probe, ...]
    majority_accuracy: float
    length: Probe
    n_train: int
    n_heldout: int


def probe_label(
    max_acts: Any,
    positive: Bools,
    n_content_tokens: Ints,
    doc_ids: Sequence[str],
    *,
    ks: Sequence[int] = KS,
) -> Probing:
    """Probe `max_acts` [n_docs, d_sae] CSR for `positive` [n_docs] with the k best features, for each k.

    A document's half is that of its hash (`split_of`), so copies never stand on both sides. On the training half the
    features are chosen by the absolute difference of their mean maxima and the regression (L2, C = 1, on standardised
    columns) is fitted; both scores are of the other half.

    Raises:
        InputError: lengths differ, a k is below 1, or one half lacks one of the two sides.
    """
    positive = np.asarray(positive, bool)
    if not max_acts.shape[0] == len(positive) == len(n_content_tokens) == len(doc_ids):
        raise InputError("Probing needs one label, length and document id for each row of activations.")
    if not ks or min(ks) < 1:
        raise InputError(f"Probing with {min(ks, default=0)} features says nothing; give each k at least 1.")
    is_train = np.array([split_of(doc_id) is Split.EXPLAIN for doc_id in doc_ids], bool)
    for half, name in ((is_train, "training"), (~is_train, "held-out")):
        if not 0 < positive[half].sum() < half.sum():
            raise InputError(f"The {name} half has documents of one label only; give more documents of each.")
    ranked = _rank_features(max_acts[is_train], positive[is_train])
    probes = tuple(_probe(max_acts, k, ranked[:k], positive, is_train) for k in ks)
    length = np.log1p(np.asarray(n_content_tokens, np.float64))[:, None]
    majority = positive[is_train].mean() > 0.5
    return Probing(
        probes=probes,
        majority_accuracy=float((positive[~is_train] == majority).mean()),
        length=Probe(1, (), *_score(length, positive, is_train)),
        n_train=int(is_train.sum()),
        n_heldout=int((~is_train).sum()),
    )


def probe_labels(
    max_acts: Any,
    labels: Sequence[str | None],
    n_content_tokens: Ints,
    doc_ids: Sequence[str],
    *,
    ks: Sequence[int] = KS,
) -> dict[str, Probing]:
    """`probe_label` of every label in turn against the other labelled documents; those without a label are left out.

    Raises:
        InputError: fewer than two labels, more than `MAX_LABELS`, or one too rare to stand in both halves.
    """
    names = sorted({label for label in labels if label is not None})
    if not 2 <= len(names) <= MAX_LABELS:
        raise InputError(f"There are {len(names)} different labels; probing needs 2 to {MAX_LABELS}.")
    rows = [i for i, label in enumerate(labels) if label is not None]
    acts, lengths = max_acts[rows], np.asarray(n_content_tokens)[rows]
    ids, kept = [doc_ids[i] for i in rows], [labels[i] for i in rows]
    found = {}
    for name in names:
        try:
            found[name] = probe_label(acts, np.array([label == name for label in kept]), lengths, ids, ks=ks)
        except InputError as error:
            raise InputError(f"Label {name!r}: {error}") from error
    return found


def _rank_features(acts: Any, positive: Bools) -> Ints:
    """Features whose means differ, the most different first, ties by id."""
    difference = np.abs(_column_means(acts[positive]) - _column_means(acts[~positive]))
    order = np.argsort(-difference, kind="stable")
    return order[difference[order] > 0]


def _column_means(acts: Any) -> Floats:
    means: Floats = np.asarray(acts.mean(axis=0, dtype=np.float64)).ravel()
    return means


def _probe(max_acts: Any, k: int, features: Ints, positive: Bools, is_train: Bools) -> Probe:
    columns = max_acts[:, features].toarray().astype(np.float64)
    return Probe(k, tuple(features.tolist()), *_score(columns, positive, is_train))


def _score(columns: Floats, positive: Bools, is_train: Bools) -> tuple[float, float]:
    """Accuracy and AUROC on the held-out half; without columns, those of the commoner side."""
    heldout = positive[~is_train]
    if not columns.shape[1]:
        return float((heldout == (positive[is_train].mean() > 0.5)).mean()), 0.5
    mean, std = columns[is_train].mean(0), columns[is_train].std(0)
    scaled = (columns - mean) / np.where(std > 0, std, 1.0)
    model = LogisticRegression(max_iter=1000).fit(scaled[is_train], positive[is_train])
    scores = model.decision_function(scaled[~is_train])
    return float(((scores > 0) == heldout).mean()), float(roc_auc_score(heldout, scores))
