"""Which features a choice of documents still shows, 64 choices at a time: one bit a choice, one word a document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from facviz.records import Bools, Floats, Ints

AT_ONCE = 64


def resamples(n_docs: int, n_bootstrap: int, rng_seed: int) -> Iterator[Bools]:
    """Which documents a bootstrap resample holds at least once, bool [≤ 64, n_docs] at a time."""
    rng = np.random.default_rng(rng_seed)
    for start in range(0, n_bootstrap, AT_ONCE):
        held = np.zeros((min(AT_ONCE, n_bootstrap - start), n_docs), dtype=bool)
        for row in held:
            row[rng.integers(0, n_docs, size=n_docs)] = True
        yield held


def weight_shown(docs: Ints, offsets: Ints, weights: Floats, choices: Iterable[Bools]) -> Floats:
    """Summed weight of the features with at least one document in each choice, float64 [n_choices, n_weights].

    Feature i fires in `docs[offsets[i]:offsets[i + 1]]`; `weights` are [n_features, n_weights].
    """
    fires = np.flatnonzero(np.diff(offsets) > 0)
    starts, weighed = offsets[:-1][fires], np.asarray(weights, np.float64)[fires]
    found = [np.empty((0, weighed.shape[1]))]
    for chosen in choices:
        if not len(fires):
            found.append(np.zeros((len(chosen), weighed.shape[1])))
            continue
        shown = np.bitwise_or.reduceat(_words(chosen)[docs], starts)
        bits = np.unpackbits(shown.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")[:, : len(chosen)]
        found.append(bits.T.astype(np.float64) @ weighed)
    return np.concatenate(found)


def _words(chosen: Bools) -> Ints:
    """Bit j of a document's word says whether choice j holds it, uint64 [n_docs]."""
    padded = np.zeros((AT_ONCE, chosen.shape[1]), dtype=bool)
    padded[: len(chosen)] = chosen
    return np.packbits(padded, axis=0, bitorder="little").T.copy().view("<u8").ravel()
