"""Two data sets that an SAE has read, side by side: which features tell their texts apart, at equal length.

A text that stands in both is compared as part of the smaller one. Of large sets as many texts are drawn, with a fixed
seed, as keep the work bounded; the numbers say of how many they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from facviz.errors import InputError
from facviz.records import Floats
from facviz.relevance import separate_sets
from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.views.format import count, count_of, number, short
from facviz.views.scope import DatasetChoice

MAX_DOCS = 1500
"""Texts of each set, at most."""
MAX_Q = 0.05
_MAX_FLOPS = 1e12
_PERMUTATIONS = (1_000, 10_000)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Features that separate the sets: AUROC by feature and, in the same order, shares of texts and q."""

    found: Mapping[int, float]
    aside: Mapping[str, Floats]
    words: Mapping[int, str]
    summary: str
    basis: str


@dataclass(frozen=True, slots=True, eq=False)
class _Set:
    acts: sparse.csr_array
    n_content_tokens: npt.NDArray[np.int64]
    n_all: int
    n_shared: int


def compare_datasets(
    queries: Queries, sae_id: str, first: DatasetChoice, second: DatasetChoice, *, max_docs: int = MAX_DOCS
) -> Compared:
    """What `first` activates and `second` does not, and the other way round.

    Raises:
        InputError: they are one data set, a set has no texts of its own, or length alone tells them apart.
    """
    if first.dataset_id == second.dataset_id:
        raise InputError("These are the same data set; choose two different ones.")
    [row] = queries.rows("sae", sae_id=sae_id)
    texts = [set(_identities(queries, choice).values()) for choice in (first, second)]
    smaller = second if len(texts[1]) <= len(texts[0]) else first
    shared = texts[0] & texts[1]
    without = [shared if choice is not smaller else set() for choice in (first, second)]
    one = _read(queries, sae_id, first, row["d_sae"], max_docs, without=without[0])
    two = _read(queries, sae_id, second, row["d_sae"], max_docs, without=without[1])
    acts = sparse.vstack([one.acts, two.acts]).tocsc()
    is_first = np.arange(acts.shape[0]) < one.acts.shape[0]
    lengths = np.concatenate([one.n_content_tokens, two.n_content_tokens])
    n_active = int((np.diff(acts.indptr) > 0).sum())
    few, many = _PERMUTATIONS
    n_permutations = int(np.clip(_MAX_FLOPS / (2 * max(1, acts.shape[0] * n_active)), few, many))
    found = separate_sets(acts, is_first, lengths, n_permutations=n_permutations)
    shares = [np.diff(part.acts.tocsc().indptr) / part.acts.shape[0] for part in (one, two)]
    ids = np.flatnonzero(found.tested & (np.nan_to_num(found.q, nan=1.0) <= MAX_Q))
    aurocs = dict(zip(ids.tolist(), found.auroc[ids].tolist()))
    n_first = int((found.auroc[ids] > 0.5).sum())
    n_second = len(ids) - n_first
    summary = (
        f"{count_of(len(ids), 'feature')} of {count(int(found.tested.sum()))} that fire tell them apart: "
        f"{count(n_first)} fire more in {short(first.name, 40)}, {count(n_second)} in {short(second.name, 40)}"
    )
    basis = f"{_basis(one, first)} against {_basis(two, second)}, {count(n_permutations)} permutations at equal length."
    if n_shared := one.n_shared + two.n_shared:
        basis += f" {count_of(n_shared, 'text')} in both sets counted for {short(smaller.name, 40)} only."
    return Compared(
        found=aurocs,
        aside={"share_a": shares[0][ids], "share_b": shares[1][ids], "q": found.q[ids]},
        words={i: f"{number(auroc)} {'first' if auroc > 0.5 else 'second'}" for i, auroc in aurocs.items()},
        summary=summary,
        basis=basis,
    )


def _basis(part: _Set, choice: DatasetChoice) -> str:
    n = part.acts.shape[0]
    drawn = "" if n == part.n_all else f" drawn of {count(part.n_all)}"
    return f"{count_of(n, 'text')}{drawn} of {short(choice.name, 40)}"


def _identities(queries: Queries, choice: DatasetChoice) -> dict[int, str]:
    """Number of a document → its content hash."""
    rows = queries.named("document_numbers", dataset_id=choice.dataset_id)
    return dict(zip(rows["doc_no"].to_pylist(), rows["doc_id"].to_pylist()))


def _read(
    queries: Queries, sae_id: str, choice: DatasetChoice, d_sae: int, max_docs: int, *, without: set[str]
) -> _Set:
    scope = {"sae_id": sae_id, "dataset_id": choice.dataset_id, "mode": MODE}
    encoded = queries.named("encoded_documents", **scope)
    numbers = encoded["doc_no"].to_numpy().astype(np.int64)
    lengths = encoded["n_content_tokens"].to_numpy().astype(np.int64)
    identity = _identities(queries, choice) if without else {}
    own = np.array([identity.get(n) not in without for n in numbers.tolist()], bool)
    if not own.any():
        raise InputError(f"Every text of {short(choice.name, 40)} stands in the other set, too; choose another pair.")
    places = _drawn(np.flatnonzero(own), max_docs)
    rows = queries.named("activations_on", **scope, doc_nos=numbers[places].astype(np.int32))
    position = np.searchsorted(numbers[places], rows["doc_no"].to_numpy())
    shape = (len(places), d_sae)
    coordinates = (position, rows["feature_id"].to_numpy())
    acts = sparse.coo_array((rows["max_act"].to_numpy(), coordinates), shape=shape, dtype=np.float32).tocsr()
    return _Set(acts, lengths[places], int(own.sum()), int((~own).sum()))


def _drawn(places: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    if len(places) <= n:
        return places
    return np.sort(np.random.default_rng(0).choice(places, n, replace=False))


def choices_of(datasets: Sequence[DatasetChoice], first: str, second: str) -> tuple[DatasetChoice, DatasetChoice]:
    """The two that are named, else the first two; the other one where both names are the same.

    Raises:
        InputError: there is only one data set.
    """
    if len(datasets) < 2:
        raise InputError("The SAE has read one data set only; let it read a second one on the SAE page.")
    one = next((d for d in datasets if d.name == first), datasets[0])
    others = [d for d in datasets if d is not one]
    return one, next((d for d in others if d.name == second), others[0])
