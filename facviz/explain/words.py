"""Spans' tokens as words: sub-word pieces joined, white space and control characters made readable.

Everything here is whole-array; Python loops run over distinct strings, never over tokens.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from facviz.overlap import IDEOGRAPHS
from facviz.records import Bools, Ints, Span

MAX_WORD_CHARS = 40
NEWLINE, TAB, SPACE = "the newline", "the tab", "the space"

_PIECE = re.compile(rf"[^\s{IDEOGRAPHS}]+")
_N_PIECES = 3
_JOINERS = "\u200c\u200d"  # invisible, but spelling in Persian, Hindi and emoji needs them
_PUNCTUATION = "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c)[0] == "P" or c.isspace())


def display(raw: str) -> str:
    """`"kill"` for a word, a description for what has no letters, the empty string for nothing."""
    word = raw.strip(_PUNCTUATION).lower()
    if not any(map(str.isalnum, word)):
        return _describe(raw)
    if not any(map(str.isalpha, word)):
        return "a number"
    return f'"{_visible(word)}"'


def _describe(raw: str) -> str:
    if symbol := raw.strip():
        return f'the token "{_visible(symbol)}"'
    if "\n" in raw or "\r" in raw:
        return NEWLINE
    if "\t" in raw:
        return TAB
    return SPACE if raw else ""


def _visible(text: str) -> str:
    """Control, format and stray surrogate characters escaped, at most `MAX_WORD_CHARS`."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode() for c in text)
    return bounded(text)


def bounded(text: str) -> str:
    """At most `MAX_WORD_CHARS`, an ellipsis in place of the rest."""
    return text if len(text) <= MAX_WORD_CHARS else text[: MAX_WORD_CHARS - 1] + "…"


def is_word(term: str) -> bool:
    """Whether a display form is a quoted word rather than a description."""
    return term.startswith('"')


def plain(term: str) -> str:
    """The display form without its quotes."""
    return term[1:-1] if is_word(term) else term


def is_spelled(plain_term: str) -> bool:
    """Whether a term without quotes is a word, which holds no space, and not a description such as `the newline`."""
    return " " not in plain_term


def words_to_use(peaks: Sequence[str], spans: Sequence[Span]) -> tuple[str, ...]:
    """The words that a feature fires on, as a request names them; `peaks` are those of `lexical.Keywords`.

    In place of a description stands what is written there: asked for `the token "++"` a small model writes about
    tokens, asked for `i++` it writes that.
    """
    words = list[str]()
    for peak in peaks:
        words += [peak] if is_spelled(peak) else _pieces_at(peak, spans)
    return tuple(dict.fromkeys(words))


def _pieces_at(description: str, spans: Sequence[Span]) -> list[str]:
    """What stands between white space around the peaks so described, the most frequent first."""
    found = Counter[str]()
    for span in spans:
        peak = span.peak_token - span.start_token
        if display(span.tokens[peak]) == description:
            start = len("".join(span.tokens[:peak]))
            end = start + len(span.tokens[peak])
            pieces = _PIECE.finditer("".join(span.tokens))
            found.update([m[0] for m in pieces if m.start() < end and m.end() > start][:1])
    return [piece for piece, _ in found.most_common() if len(piece) <= MAX_WORD_CHARS][:_N_PIECES]


@dataclass(frozen=True, slots=True)
class Words:
    """The spans' words in reading order; `term` indexes the sorted display forms `names`."""

    span: Ints  # [n_words]
    term: Ints  # [n_words]
    peak_word: Ints  # [n_spans] index of the word that holds the peak token
    names: list[str]


def read_words(spans: Sequence[Span]) -> Words:
    """The words of all spans end to end; every span must contain its peak token."""
    pieces, piece, start = _number_pieces(spans)
    peak = start + np.array([span.peak_token - span.start_token for span in spans], dtype=np.int64)
    first = np.flatnonzero(_word_starts(pieces, piece, start, peak))
    ids, sample = _distinct_runs(piece, first, len(pieces))
    ends = np.append(first, len(piece))[1:]
    runs = (piece[a:b].tolist() for a, b in zip(first[sample].tolist(), ends[sample].tolist()))
    shown = [display("".join(map(pieces.__getitem__, run))) for run in runs]
    names, term_of_id = np.unique(np.array(shown, dtype=object), return_inverse=True)
    return Words(
        span=np.searchsorted(start, first, side="right") - 1,
        term=term_of_id[ids],
        peak_word=np.searchsorted(first, peak, side="right") - 1,
        names=names.tolist(),
    )


def _number_pieces(spans: Sequence[Span]) -> tuple[list[str], Ints, Ints]:
    """Distinct token strings, each token's index among them, and each span's first token."""
    lengths = np.array([len(span.tokens) for span in spans], dtype=np.int64)
    number: defaultdict[str, int] = defaultdict()
    number.default_factory = number.__len__
    tokens = chain.from_iterable(span.tokens for span in spans)
    piece = np.fromiter(map(number.__getitem__, tokens), dtype=np.int64, count=int(lengths.sum()))
    return list(number), piece, np.cumsum(lengths) - lengths


def _word_starts(pieces: list[str], piece: Ints, start: Ints, peak: Ints) -> Bools:
    """White space separates words and CJK characters begin one; a peak without letters stands alone."""
    opens = np.array([p[:1].isspace() or "\u3040" <= p[:1] <= "\u9fff" for p in pieces], dtype=bool)
    closes = np.array([p[-1:].isspace() for p in pieces], dtype=bool)
    is_symbol = np.array([not is_word(display(p)) for p in pieces], dtype=bool)
    starts = opens[piece]
    starts[1:] |= closes[piece[:-1]]
    alone = peak[is_symbol[piece[peak]]]
    starts[alone] = True
    starts[alone[alone + 1 < len(starts)] + 1] = True
    starts[start] = True
    return starts


def _distinct_runs(piece: Ints, first: Ints, n_pieces: int) -> tuple[Ints, Ints]:
    """Numbers equal runs of pieces alike, exactly: an id per run, and one run of each id."""
    lengths = np.diff(np.append(first, len(piece)))
    ids, n_ids = piece[first], n_pieces
    for k in range(1, int(lengths.max(initial=1))):
        longer = np.flatnonzero(lengths > k)
        distinct, renumbered = np.unique(ids[longer] * n_pieces + piece[first[longer] + k], return_inverse=True)
        ids[longer] = n_ids + renumbered
        n_ids += len(distinct)
    _, sample, compact = np.unique(ids, return_index=True, return_inverse=True)
    return compact, sample
