"""A map of decoder directions: two coordinates and a cluster for every feature, the same for the same seed.

UMAP lays the graph of nearest directions out, which is exact here instead of searched for; HDBSCAN then finds what lies
together on the picture. Both are imported only when a map is made: they take longer to load than to lay out 4,096.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facviz.records import Floats, Ints
from facviz.sae.directions import nearest_features

N_NEIGHBOURS = 10
MAX_FLOPS = 1.2e13
"""Beyond, directions are first reduced to `REDUCED` dimensions: 65,536 features of 576 take 5e12, half a minute."""
REDUCED = 64
MANY = 10_000
"""From so many features on a map takes fewer rounds, as UMAP itself would have it."""
NO_CLUSTER = -1
_FEWEST = 8


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Place and cluster of every feature; `NO_CLUSTER` where it lies with no others."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    cluster: Ints

    @property
    def n_clusters(self) -> int:
        """Clusters found."""
        return int(self.cluster.max(initial=NO_CLUSTER)) + 1


def lay_out(W_dec: Tensor, *, rng_seed: int = 0) -> Layout:
    """Place the rows of W_dec [d_sae, d_in] so that similar directions lie together."""
    rows = torch.nn.functional.normalize(W_dec.detach().to("cpu", torch.float32), dim=1)
    if len(rows) < _FEWEST:  # too few for neighbourhoods: the first two coordinates say as much
        flat = torch.nn.functional.pad(rows, (0, max(0, 2 - rows.shape[1])))[:, :2].numpy()
        return Layout(flat[:, 0], flat[:, 1], np.full(len(rows), NO_CLUSTER, np.int64))
    if 2 * len(rows) ** 2 * rows.shape[1] > MAX_FLOPS:
        rows = torch.nn.functional.normalize(_reduced(rows, rng_seed), dim=1)
    places = _scaled(_umap(rows, rng_seed))
    return Layout(places[:, 0], places[:, 1], _largest_first(_clusters(places)))


def _reduced(rows: Tensor, rng_seed: int) -> Tensor:
    """The strongest principal components, from a seeded randomised decomposition."""
    from sklearn.decomposition import PCA

    n = min(REDUCED, *rows.shape)
    pca = PCA(n, svd_solver="randomized", random_state=rng_seed)
    return torch.from_numpy(np.ascontiguousarray(pca.fit_transform(rows.numpy()), np.float32))


def _umap(rows: Tensor, rng_seed: int) -> Floats:
    n = len(rows)
    ids, cosines = nearest_features(rows, min(N_NEIGHBOURS, n - 1))
    itself = np.arange(n, dtype=np.int32)[:, None]
    indices = np.concatenate([itself, ids.numpy().astype(np.int32)], axis=1)
    distances = np.concatenate([np.zeros((n, 1)), 1 - cosines.numpy()], axis=1).clip(0).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one thread for a seed, and of no transform of new points
        import umap  # type: ignore[import-untyped]

        reducer = umap.UMAP(
            n_neighbors=indices.shape[1],
            min_dist=0.1,
            metric="cosine",
            init="pca",
            n_epochs=200 if n >= MANY else 500,
            random_state=rng_seed,
            precomputed_knn=(indices, distances),
        )
        return np.asarray(reducer.fit_transform(rows.numpy()), np.float32)


def _scaled(places: Floats) -> Floats:
    """Around the middle, the longer side from -10 to 10: addresses and pictures need no unit."""
    low, high = places.min(axis=0), places.max(axis=0)
    half = float((high - low).max()) / 2
    return np.asarray((places - (low + high) / 2) / (half or 1.0) * 10, np.float32)


def _clusters(places: Floats) -> Ints:
    from sklearn.cluster import HDBSCAN

    smallest = max(5, round(math.sqrt(len(places)) / 5))
    found: Any = HDBSCAN(min_cluster_size=smallest, min_samples=5, copy=True).fit_predict(places)
    return np.asarray(found, np.int64)


def _largest_first(cluster: Ints) -> Ints:
    """Clusters numbered by size, so that 0 is the largest."""
    n = int(cluster.max(initial=NO_CLUSTER)) + 1
    order = np.argsort(-np.bincount(cluster[cluster >= 0], minlength=n), kind="stable")
    number = np.empty(n + 1, np.int64)
    number[order], number[-1] = np.arange(n), NO_CLUSTER
    return np.asarray(number[cluster])
