"""Coverage at 65,536 features × 100,000 documents: how long a moved threshold takes, and the interval after it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import cache, partial
from statistics import median

import numpy as np
from scipy import sparse

from benchmarks.results import Result
from facviz.coverage import ActivityIndex, compute_fac, index_entries, missing_features, rarefaction, thresholds
from facviz.records import Floats, Ints
from facviz.store.gap import TaskFeatures
from facviz.views.live import N_BOOTSTRAP, Lens, make_lens, measure_live, measure_sure

MOVE_SECONDS = 0.3
INTERVAL_SECONDS = 5.0
_DELTAS = (1.0, 0.75, 1.25, 0.5, 1.1)

Entries = tuple[Ints, Ints, Floats]
"""Features, documents and activations, entry by entry."""


def bench_move(*, d_sae: int = 65_536, n_docs: int = 100_000, n_active: int = 300) -> Result:
    """FAC in three forms, missing list, levels, curve, rarefaction and what is unseen, at a δ not asked for before.

    `seconds_by_pass` is FAC, missing list and rarefaction from the matrices, measured on a tenth of the documents.
    """
    lens = problem(d_sae, n_docs, n_active)
    measure_live(lens, "maybe", "relative", 0.9)  # imports, and memory touched for the first time
    moved = [_seconds(partial(measure_live, lens, "maybe", "relative", delta)) for delta in _DELTAS]
    by_pass = 10 * _seconds(_pass_over_matrices(d_sae, n_docs // 10, n_active, lens.task.p95))
    return _result(
        "coverage-move", moved, MOVE_SECONDS, d_sae=d_sae, n_docs=n_docs, n_active=n_active, seconds_by_pass=by_pass
    )


def bench_interval(*, d_sae: int = 65_536, n_docs: int = 100_000, n_active: int = 300) -> Result:
    """The bootstrap intervals of FAC in its three forms, from 1,000 resamples."""
    lens = problem(d_sae, n_docs, n_active)
    live = measure_live(lens, "maybe", "relative", 1.0)
    taken = [_seconds(lambda: measure_sure(lens, live)) for _ in range(3)]
    size = {"d_sae": d_sae, "n_docs": n_docs, "n_active": n_active}
    return _result("coverage-interval", taken, INTERVAL_SECONDS, **size, n_bootstrap=N_BOOTSTRAP)


@cache
def problem(d_sae: int, n_docs: int, n_active: int) -> Lens:
    """An anchor and a seed set of that size each, all features relevant, a third of them from each level."""
    anchor, seed = (_index(entries(d_sae, n_docs, n_active, k), d_sae, n_docs) for k in (0, 1))
    features = np.arange(d_sae)
    gc.collect()
    return make_lens(TaskFeatures(features, features % 3, anchor.p95(), {}, {}), anchor, seed)


def entries(d_sae: int, n_docs: int, n_active: int, rng_seed: int) -> Entries:
    """`n_active` different features a document, each with a gamma-distributed activation."""
    rng = np.random.default_rng(rng_seed)
    some = rng.permutation(d_sae)[:n_active].astype(np.int32)
    features = (rng.integers(0, d_sae, size=(n_docs, 1), dtype=np.int32) + some) % np.int32(d_sae)
    docs = np.repeat(np.arange(n_docs, dtype=np.int32), n_active)
    values = rng.standard_gamma(2.0, size=n_docs * n_active, dtype=np.float32) + np.float32(0.01)
    return features.ravel(), docs, values


def _index(found: Entries, d_sae: int, n_docs: int) -> ActivityIndex:
    return index_entries(*found, d_sae=d_sae, n_docs=n_docs)


def _pass_over_matrices(d_sae: int, n_docs: int, n_active: int, p95: Floats) -> Callable[[], None]:
    shape = (n_docs, d_sae)
    sets = []
    for k in (0, 1):
        features, docs, values = entries(d_sae, n_docs, n_active, k)
        sets.append(sparse.csr_matrix((values, (docs, features)), shape=shape))
    row = thresholds("relative", 1.0, p95)
    sizes = np.unique(np.geomspace(1, n_docs, 40).round().astype(int))

    def work() -> None:
        compute_fac(*sets, act_threshold=row)
        missing_features(*sets, act_threshold=row)
        rarefaction(*sets, act_threshold=row, sizes=sizes)

    return work


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _result(bench: str, taken: list[float], limit: float, **settings: object) -> Result:
    """`ratio` says how many times over the work fits into the time allowed."""
    ratios = sorted(limit / seconds for seconds in taken)
    return Result(
        bench=bench,
        unit="a second",
        ours=1 / median(taken),
        reference=1 / limit,
        ratio=median(ratios),
        ratio_low=ratios[0],
        ratio_high=ratios[-1],
        bar=1.0,
        settings={"seconds": round(median(taken), 4), "seconds_allowed": limit, **settings},
    )
