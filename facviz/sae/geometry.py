"""How features lie to each other, from weights alone: duplicates, encoder against decoder, one SAE against another.

Cosines are computed block by block, so memory stays bounded at any d_sae.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from facviz.errors import SaeError
from facviz.sae.weights import SaeWeights

DUPLICATE_COSINE = 0.95
SHARED_COSINE = 0.7
"""Above it two features of different SAEs are commonly taken for the same one."""
MAX_ASSIGNMENT = 4096
"""Most features for which the optimal assignment, cubic in them, takes seconds."""

_BLOCK_BYTES = 64 * 2**20
_MAX_ROUNDS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Duplicates:
    """Pairs of features whose decoder rows point the same way; only the closest are listed, all are counted."""

    pairs: Tensor  # [n_listed, 2] int64, first < second, closest first
    cosines: Tensor  # [n_listed]
    n_pairs: int
    n_features: int
    """Features with at least one duplicate."""


@torch.no_grad()
def duplicate_features(W_dec: Tensor, min_cosine: float = DUPLICATE_COSINE, *, max_listed: int = 10_000) -> Duplicates:
    """Pairs of rows of W_dec [d_sae, d_in] with a cosine of at least `min_cosine`; rows of zeros have none.

    Raises:
        SaeError: `min_cosine` lies outside (0, 1].
    """
    if not 0 < min_cosine <= 1:
        raise SaeError(f"Duplicates at a cosine of {min_cosine} make no sense; give one above 0 and at most 1.")
    rows = _unit_rows(W_dec)
    is_double = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    n_pairs = 0
    pairs, cosines = torch.empty(0, 2, dtype=torch.int64), torch.empty(0)
    for start, block in _cosine_blocks(rows, rows, upper=True):
        is_hit = (block >= min_cosine).triu(1)
        n_hits = int(is_hit.sum())
        if not n_hits:
            continue
        n_pairs += n_hits
        is_double[start : start + len(block)] |= is_hit.any(1)
        is_double[start:] |= is_hit.any(0)
        best = torch.where(is_hit, block, -torch.inf).flatten().topk(min(n_hits, max_listed))
        found = torch.stack([best.indices // block.shape[1], best.indices % block.shape[1]], dim=1) + start
        pairs, cosines = _closest(torch.cat([pairs, found.cpu()]), torch.cat([cosines, best.values.cpu()]), max_listed)
    return Duplicates(pairs, cosines, n_pairs, int(is_double.sum()))


def _closest(pairs: Tensor, cosines: Tensor, n: int) -> tuple[Tensor, Tensor]:
    order = torch.from_numpy(np.lexsort((pairs[:, 1], pairs[:, 0], -cosines))[:n])
    return pairs[order], cosines[order]


@torch.no_grad()
def encoder_decoder_cosines(weights: SaeWeights) -> Tensor:
    """[d_sae] cosine of each feature's encoder column and decoder row: 1 where tied, 0 where either is zero."""
    decoder = weights.W_enc.T if weights.W_dec is None else weights.W_dec
    size = _block_rows(weights.d_in)
    blocks = zip(torch.split(weights.W_enc.T, size), torch.split(decoder, size))
    return torch.cat([cosine_similarity(encoder, rows, dim=1) for encoder, rows in blocks])


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMatch:
    """Features of one SAE paired with those of another by decoder cosine, each used at most once."""

    method: Literal["optimal assignment", "mutual nearest"]
    partner: Tensor  # [d_sae of a] int64 feature of b, −1 without a partner
    cosine: Tensor  # [d_sae of a] of the pair, 0 without a partner
    nearest_cosine: Tensor  # [d_sae of a] to the most similar feature of b, whoever else it serves

    @property
    def mean_max_cosine(self) -> float:
        """Mean of `nearest_cosine` (MMCS): how well b holds the directions of a."""
        return float(self.nearest_cosine.mean())

    @property
    def share_matched(self) -> float:
        """Share of a's features whose partner has a cosine above .7."""
        return float((self.cosine > SHARED_COSINE).double().mean())


@torch.no_grad()
def match_features(a: Tensor, b: Tensor, *, max_assignment: int = MAX_ASSIGNMENT) -> FeatureMatch:
    """Best one-to-one match of decoder rows a [d_sae_a, d_in] with b [d_sae_b, d_in]; signs count.

    Up to `max_assignment` features the sum of cosines is the largest possible (Hungarian method). Above, nearest
    features that name each other pair up, then those left over among themselves, for at most 20 rounds.

    Raises:
        SaeError: the decoders read models of different widths.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise SaeError(
            f"Decoders of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be matched; "
            "take two SAEs of the same model and layer."
        )
    rows, others = _unit_rows(a), _unit_rows(b)
    if max(len(a), len(b)) <= max_assignment:
        cosines = rows @ others.T
        first, second = (torch.from_numpy(side) for side in linear_sum_assignment(cosines.cpu().numpy(), maximize=True))
        return _matched("optimal assignment", first, second, cosines[first, second], cosines.amax(1))
    nearest = _nearest(rows, others)
    first, second, cosine = _mutual_nearest(rows, others, nearest)
    return _matched("mutual nearest", first, second, cosine, nearest.cosine)


def _matched(
    method: Literal["optimal assignment", "mutual nearest"],
    first: Tensor,
    second: Tensor,
    cosine: Tensor,
    nearest_cosine: Tensor,
) -> FeatureMatch:
    partner = torch.full((len(nearest_cosine),), -1)
    paired = torch.zeros(len(nearest_cosine))
    partner[first.cpu()], paired[first.cpu()] = second.cpu(), cosine.cpu()
    return FeatureMatch(method, partner, paired, nearest_cosine.cpu())


@dataclass(frozen=True, slots=True, eq=False)
class _Nearest:
    forth: Tensor  # [n_a] nearest row of b
    cosine: Tensor  # [n_a] to it
    back: Tensor  # [n_b] nearest row of a


def _nearest(rows: Tensor, others: Tensor) -> _Nearest:
    forth, cosines = [], []
    back = torch.zeros(len(others), dtype=torch.int64, device=rows.device)
    best = torch.full((len(others),), -torch.inf, device=rows.device)
    for start, block in _cosine_blocks(rows, others):
        highest = block.max(1)
        forth.append(highest.indices)
        cosines.append(highest.values)
        column = block.max(0)
        is_better = column.values > best
        best = torch.where(is_better, column.values, best)
        back = torch.where(is_better, column.indices + start, back)
    return _Nearest(torch.cat(forth), torch.cat(cosines), back)


def _mutual_nearest(rows: Tensor, others: Tensor, nearest: _Nearest) -> tuple[Tensor, Tensor, Tensor]:
    """Ids in a, ids in b and cosines of the pairs, in the order of the rounds."""
    left, right = (torch.arange(len(side), device=side.device) for side in (rows, others))
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(_MAX_ROUNDS):
        is_mutual = nearest.back[nearest.forth] == torch.arange(len(left), device=rows.device)
        chosen = nearest.forth[is_mutual]
        found.append((left[is_mutual], right[chosen], nearest.cosine[is_mutual]))
        is_free = torch.ones(len(right), dtype=torch.bool, device=rows.device)
        is_free[chosen] = False
        left, right = left[~is_mutual], right[is_free]
        if not len(left) or not len(right) or not len(chosen):
            break
        nearest = _nearest(rows[left], others[right])
    first, second, cosine = zip(*found)
    return torch.cat(first), torch.cat(second), torch.cat(cosine)


def _unit_rows(decoder: Tensor) -> Tensor:
    return normalize(decoder.to(torch.float32), dim=1)


def _block_rows(width: int) -> int:
    return max(1, _BLOCK_BYTES // (4 * width))


def _cosine_blocks(rows: Tensor, others: Tensor, *, upper: bool = False) -> Iterator[tuple[int, Tensor]]:
    """Cosines of rows [start, …) with all others, or with those from `start` on, and `start`."""
    size = _block_rows(len(others))
    for start in range(0, len(rows), size):
        yield start, rows[start : start + size] @ (others[start:] if upper else others).T
