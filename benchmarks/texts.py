"""Pseudo-documents with the length spread of real requests, made from a fixed word list: no data is needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facviz.records import Document

_TEXT = (
    "the of and to a in is that for it was on are as with they at be this have from or one had by not but what all "
    "were when we there can an your which their said if do will each about how up out them then she many some these "
    "would other into has more her two like him see time could no make than first been its who now people my made "
    "over did down only way find use may water long little very after words called just where most know write please "
    "explain question answer model number sentence music history garden doctor engine kitchen window summer letter "
    "market planet bridge forest ticket budget recipe contract sample report painting holiday teacher mountain river "
    "computer language science winter memory system problem story village machine country morning evening travel"
)
WORDS = tuple(_TEXT.split())

_SPREAD = 0.75  # of the logarithm of lengths, as in chat requests
_LONGEST = 480


def pseudo_documents(
    n: int, *, mean_words: float = 90, words: Sequence[str] = WORDS, rng_seed: int = 0
) -> list[Document]:
    """User requests of log-normal length whose words follow Zipf's law, as natural text does."""
    rng = np.random.default_rng(rng_seed)
    centre = np.log(mean_words) - _SPREAD**2 / 2
    lengths = np.clip(rng.lognormal(centre, _SPREAD, n), 4, _LONGEST).astype(int)
    share = 1 / np.arange(1, len(words) + 1)
    return [Document.from_text(" ".join(rng.choice(words, size, p=share / share.sum()))) for size in lengths]


def spread_by_length(documents: Sequence[Document], n: int) -> list[Document]:
    """`n` documents evenly spaced in order of length: what is slow is timed on a small share with the same spread."""
    ordered = sorted(documents, key=lambda d: len(d.text))
    places = np.linspace(0, len(ordered), n, endpoint=False) + len(ordered) / (2 * n)
    return [ordered[int(i)] for i in places]
