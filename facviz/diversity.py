"""How varied the wording of a set of texts is: the usual measures, each defined in one sentence, to set beside FAC.

All of them depend on how much text they see, so sets are compared at equal tokens only. Words are runs of letters,
digits and apostrophes in lower case; n-grams never cross the border of a text.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from facviz.errors import InputError
from facviz.records import Floats

Tagger = Callable[[Sequence[str]], Sequence[str]]
"""Words of one text to their parts of speech, one each."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: what it is called, what it is in one sentence, and which way diversity lies."""

    key: str
    name: str
    definition: str
    higher_is_varied: bool


MEASURES = (
    Measure("distinct_1", "Distinct words", "Different words divided by all words.", True),
    Measure("distinct_2", "Distinct word pairs", "Different pairs of neighbouring words divided by all pairs.", True),
    Measure("entropy_1", "Word entropy", "Bits needed on average to say which word comes, by frequency alone.", True),
    Measure("entropy_2", "Pair entropy", "The same in bits for pairs of neighbouring words.", True),
    Measure("compression", "Compression ratio", "Size of all texts over their size when compressed with zlib.", False),
    Measure("cosine", "Mean cosine", "Average cosine between the sentence vectors of any two texts.", False),
    Measure("vendi", "Vendi score", "Effective number of different texts: e to the entropy of their cosines.", True),
    Measure("pos_distinct_2", "Distinct tag pairs", "Different pairs of neighbouring word classes over all.", True),
)


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case.

    >>> words_of("Don't stop: 3 times_more!")
    ["don't", 'stop', '3', 'times', 'more']
    """
    return _WORD.findall(text.lower())


def distinct(sequences: Iterable[Sequence[str]], n: int) -> float | None:
    """Different n-grams over all n-grams; None where no text has n words.

    >>> distinct([["a", "b", "a", "b"], ["a", "b"]], 2)
    0.5
    """
    counts = _ngrams(sequences, n)
    total = counts.total()
    return len(counts) / total if total else None


def entropy(sequences: Iterable[Sequence[str]], n: int) -> float | None:
    """Shannon entropy of the n-grams in bits; None where no text has n words.

    >>> entropy([["a", "a", "b", "c"]], 1)
    1.5
    """
    counts = _ngrams(sequences, n)
    total = counts.total()
    return -sum(c / total * math.log2(c / total) for c in counts.values()) if total else None


def compression_ratio(texts: Sequence[str]) -> float | None:
    """Bytes of the texts, one after another, over their bytes after zlib at its best; None without any text."""
    raw = "\n".join(texts).encode("utf-8", "surrogatepass")
    return len(raw) / len(zlib.compress(raw, 9)) if raw else None


def mean_pairwise_cosine(vectors: Floats) -> float | None:
    """Average cosine of two different rows of unit vectors [n, d], exact in O(n·d); None for fewer than two.

    >>> mean_pairwise_cosine(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])).__round__(4)
    0.3333
    """
    n = len(vectors)
    if n < 2:
        return None
    rows = _unit(vectors)
    return float((np.square(rows.sum(axis=0)).sum() - n) / (n * (n - 1)))


def vendi_score(vectors: Floats) -> float | None:
    """Exp of the entropy of the eigenvalues of the cosine matrix over n: 1 for copies, n for orthogonal texts.

    The eigenvalues are those of the smaller of X Xᵀ and Xᵀ X, which are the same but for zeros.

    >>> vendi_score(np.eye(4)).__round__(6)
    4.0
    """
    if not len(vectors):
        return None
    rows = _unit(vectors)
    small = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    shares = np.clip(np.linalg.eigvalsh(small / len(rows)), 0, None)
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def find_tagger() -> Tagger | None:
    """A part-of-speech tagger that is installed with its data (NLTK's, universal tags); None where there is none."""
    try:
        import nltk  # type: ignore[import-not-found, unused-ignore]

        nltk.pos_tag(["a"], tagset="universal")
    except (ImportError, LookupError):
        return None
    return lambda words: [tag for _, tag in nltk.pos_tag(list(words), tagset="universal")]


def measure_texts(
    texts: Sequence[str], *, vectors: Floats | None = None, tagger: Tagger | None = None
) -> dict[str, float | None]:
    """Every measure by its key; None where it needs vectors or a tagger that are not given, or more text."""
    sequences = [words_of(text) for text in texts]
    tags = [list(tagger(words)) for words in sequences if words] if tagger else []
    return {
        "distinct_1": distinct(sequences, 1),
        "distinct_2": distinct(sequences, 2),
        "entropy_1": entropy(sequences, 1),
        "entropy_2": entropy(sequences, 2),
        "compression": compression_ratio(texts),
        "cosine": None if vectors is None else mean_pairwise_cosine(vectors),
        "vendi": None if vectors is None else vendi_score(vectors),
        "pos_distinct_2": distinct(tags, 2),
    }


def _ngrams(sequences: Iterable[Sequence[str]], n: int) -> Counter[tuple[str, ...]]:
    if n == 1:
        return Counter((word,) for words in sequences for word in words)
    if n == 2:
        return Counter(pair for words in sequences for pair in pairwise(words))
    raise InputError(f"n-grams of {n} words are not counted; give 1 or 2.")


def _unit(vectors: Floats) -> Floats:
    rows = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise InputError("A text has a vector of length 0, so its cosine to others is unknown; embed the texts again.")
    unit: Floats = rows / lengths
    return unit
