"""Explaining features without a language model: which words they fire on, next to what, where in a document.

One vectorised pass over all features. Knows spans and strings only; what a person reads is built here, so every
piece of text that enters an explanation is made visible and bounded here.

Terms are ranked by class-based TF-IDF with a feature as the class. The usual weight tf·log(1 + A/f) is made for
classes of thousands of words: with ten spans a class, a word seen once in the corpus outranks one that nine of the
ten spans share. So the ratio inside the logarithm is the term's rate in this feature over its rate in the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
from scipy import sparse

from facviz.errors import InputError
from facviz.explain.words import SPACE, TAB, Words, bounded, display, is_word, plain, read_words
from facviz.records import Bools, Explanation, ExplanationOutcome, Floats, Ints, Span, Split

AUTHOR = "facviz lexical v1"
NO_PATTERN = "no clear pattern"
MAX_TEXT_CHARS = 400

_N_PEAK, _N_CONTEXT, _N_OUTPUT = 4, 3, 4
_CONTEXT_WORDS = 8  # on each side of the peak word
_CONTEXT_CANDIDATES = 12  # a phrase takes the place of its words, so more are ranked than shown
_MIN_CONTEXT_EXCESS = 0.2
_MIN_POSITION_EXCESS = 0.5
_CONTEXT_STRENGTH = 0.5  # being near a word says half as much as being on it
_ONE_SIDED = 0.8
_NO_CONTEXT = ("", SPACE, TAB)  # white space stands next to everything; a line break says something

_AT_START, _AT_END = "at the start of the text", "at the end of the text"


@dataclass(frozen=True, slots=True)
class Keywords:
    """What a feature fires on, next to, and promotes, strongest first; words, or descriptions like `the newline`."""

    feature_id: int
    peak: tuple[str, ...]
    context: tuple[str, ...]
    output: tuple[str, ...]


def explain_lexically(
    spans_by_feature: Mapping[int, Sequence[Span]], *, output_tokens: Mapping[int, Sequence[str]], min_score: float
) -> list[Explanation]:
    """One explanation per feature, in the mapping's order, from spans of the explain split alone.

    Raises:
        InputError: a span belongs to the score split or does not contain its peak token.
    """
    return [
        _explanation(finding, _output_terms(output_tokens.get(finding.feature_id, ())), min_score)
        for finding in _findings(spans_by_feature)
    ]


def feature_keywords(
    spans_by_feature: Mapping[int, Sequence[Span]], *, output_tokens: Mapping[int, Sequence[str]]
) -> list[Keywords]:
    """The words behind `explain_lexically`, in the mapping's order; a feature without a pattern lists its top peaks.

    Raises:
        InputError: a span belongs to the score split or does not contain its peak token.
    """
    return [
        Keywords(
            finding.feature_id,
            tuple(map(plain, finding.peak)),
            tuple(plain(term) for _, term in finding.context),
            tuple(map(plain, _output_terms(output_tokens.get(finding.feature_id, ())))),
        )
        for finding in _findings(spans_by_feature)
    ]


# Text: from finding to sentence -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Finding:
    """One feature's pattern; terms are in display form, context terms with their relation to the peak."""

    feature_id: int
    n_spans: int
    strength: float
    peak: list[str]
    is_peak_pattern: bool  # False: `peak` only lists what there is
    position: str | None
    context: list[tuple[str, str]]


def _explanation(finding: _Finding, output: list[str], min_score: float) -> Explanation:
    text = _sentence(finding, output) if finding.strength >= min_score else ""
    return Explanation(
        feature_id=finding.feature_id,
        text=text or NO_PATTERN,
        outcome=ExplanationOutcome.EXPLAINED if text else ExplanationOutcome.CANNOT_TELL,
        author_kind="lexical",
        author=AUTHOR,
        scores={"lexical_strength": finding.strength, "n_spans": float(finding.n_spans)},
    )


def _sentence(finding: _Finding, output: list[str]) -> str:
    """Clauses joined by semicolons, shortened by whole terms; empty when nothing is known of where it fires."""
    context = sorted(finding.context, key=lambda item: ("after", "before", "near").index(item[0]))
    clauses = [(relation, [term for _, term in group]) for relation, group in groupby(context, key=lambda c: c[0])]
    if finding.position:
        clauses.insert(0, (finding.position, []))
    if finding.peak and (finding.is_peak_pattern or not clauses):
        clauses.insert(0, ("on", list(finding.peak)))
    if not clauses:
        return ""
    if output:
        clauses.append(("promotes", list(output)))
    while len(text := _join_clauses(clauses)) > MAX_TEXT_CHARS:
        _drop_last_term(clauses)
    return text


def _join_clauses(clauses: list[tuple[str, list[str]]]) -> str:
    return "fires " + "; ".join(f"{lead} {', '.join(terms)}".rstrip() for lead, terms in clauses)


def _drop_last_term(clauses: list[tuple[str, list[str]]]) -> None:
    terms = clauses[-1][1]
    if len(terms) > 1:
        terms.pop()
    else:
        clauses.pop()


def _output_terms(tokens: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(term for term in map(display, tokens) if term))[:_N_OUTPUT]


# Ranking: from arrays to findings -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Field:
    """Which terms stand in which spans, each at most once a span; `term` indexes `names`."""

    span: Ints
    term: Ints
    weight: Floats
    is_left: Bools
    names: list[str]


@dataclass(frozen=True, slots=True)
class _Term:
    """A term of one feature: how far beyond chance it recurs, and how often it stands before the peak."""

    name: str
    excess: float
    left_share: float
    is_pattern: bool

    @property
    def relation(self) -> str:
        """Where the peak stands, seen from the term."""
        if self.left_share >= _ONE_SIDED:
            return "after"
        return "before" if self.left_share <= 1 - _ONE_SIDED else "near"


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Terms per feature (CSR), patterns first, each group by falling TF-IDF weight."""

    indptr: Ints
    term: Ints
    excess: Floats
    left_share: Floats
    is_pattern: Bools
    names: list[str]

    def top(self, row: int, n: int) -> list[_Term]:
        """The feature's patterns, at most n; without any, its n heaviest terms."""
        at = slice(self.indptr[row], min(self.indptr[row] + n, self.indptr[row + 1]))
        columns = (column[at].tolist() for column in (self.term, self.excess, self.left_share, self.is_pattern))
        terms = [_Term(self.names[term], *rest) for term, *rest in zip(*columns)]
        return [term for term in terms if term.is_pattern] or terms


def _rank(field: _Field, feature: Ints, n_features: int, min_excess: float) -> _Ranking:
    """Weights and excesses of every term of every feature.

    The excess is the share of the feature's spans with the term, less one free span, less the term's rate in the
    other features' spans and two standard errors of that: what chance and common words explain is no pattern.
    """
    tf, support, left = (
        _count(values, field, feature, n_features) for values in (field.weight, np.ones(len(field.span)), field.is_left)
    )
    row = np.repeat(np.arange(n_features), np.diff(support.indptr))
    n_own = np.bincount(feature, minlength=n_features)[row]
    n_others = len(feature) - n_own
    elsewhere = np.bincount(field.term, minlength=len(field.names))[support.indices] - support.data
    rate = elsewhere / np.maximum(n_others, 1)
    excess = (support.data - 1) / n_own - rate - 2 * np.sqrt(rate * (1 - rate) / n_own)
    weight = tf.data * np.log1p(support.data / n_own / ((elsewhere + 1) / (n_others + 1)))
    is_pattern = excess > min_excess
    order = np.lexsort((support.indices, -weight.round(9), ~is_pattern, row))
    return _Ranking(
        indptr=support.indptr,
        term=support.indices[order],
        excess=excess[order],
        left_share=(left.data / support.data)[order],
        is_pattern=is_pattern[order],
        names=field.names,
    )


def _count(values: Floats | Bools, field: _Field, feature: Ints, n_features: int) -> sparse.csr_matrix:
    """Sums per feature and term; the same sparsity pattern whatever the values, for zeros stay stored."""
    shape = (n_features, len(field.names))
    return sparse.csr_matrix((np.asarray(values, dtype=np.float64), (feature[field.span], field.term)), shape=shape)


def _one_per_span(term: Ints, names: list[str]) -> _Field:
    """A field with a single term a span, except spans whose term is unnamed."""
    span = np.flatnonzero(np.array([bool(name) for name in names], dtype=bool)[term])
    return _Field(span, term[span], np.ones(len(span)), np.zeros(len(span), dtype=bool), names)


def _context(words: Words) -> _Field:
    """Words and two-word phrases on one side of the peak word, nearer ones weighing more; phrases win ties."""
    distance = np.arange(len(words.span)) - words.peak_word[words.span]
    is_shown = np.array([name not in _NO_CONTEXT for name in words.names], dtype=bool)
    near = np.flatnonzero((distance != 0) & (np.abs(distance) <= _CONTEXT_WORDS) & is_shown[words.term])
    second, pairs, phrase = _recurring_phrases(words, near, distance)
    n_words = len(words.names)
    phrases = [_phrase(words.names[pair // n_words], words.names[pair % n_words]) for pair in pairs.tolist()]
    nearest = np.minimum(np.abs(distance[second]), np.abs(distance[second - 1]))
    return _nearest_once_per_span(
        span=np.concatenate([words.span[second], words.span[near]]),
        term=np.concatenate([phrase, len(phrases) + words.term[near]]),
        distance=np.concatenate([nearest, np.abs(distance[near])]),
        is_left=np.concatenate([distance[second], distance[near]]) < 0,
        names=phrases + words.names,
    )


def _phrase(first: str, second: str) -> str:
    return f'"{bounded(f"{plain(first)} {plain(second)}")}"'


def _recurring_phrases(words: Words, near: Ints, distance: Ints) -> tuple[Ints, Ints, Ints]:
    """Second words of phrases on one side of a peak, the distinct word pairs, and each phrase's pair.

    A pair that occurs once in the corpus can be nobody's pattern; most pairs do.
    """
    is_quoted = np.array([is_word(name) for name in words.names], dtype=bool)
    wordy = near[is_quoted[words.term[near]]]
    second = wordy[1:][np.diff(wordy) == 1]
    same_side = (distance[second] < 0) == (distance[second - 1] < 0)
    second = second[same_side & (words.span[second] == words.span[second - 1])]
    key = words.term[second - 1] * len(words.names) + words.term[second]
    pairs, phrase, count = np.unique(key, return_inverse=True, return_counts=True)
    recurs = count[phrase] > 1
    return second[recurs], pairs[count > 1], (np.cumsum(count > 1) - 1)[phrase[recurs]]


def _nearest_once_per_span(span: Ints, term: Ints, distance: Ints, is_left: Bools, names: list[str]) -> _Field:
    key = span * len(names) + term
    order = np.lexsort((~is_left, distance, key))
    order = order[np.diff(key[order], prepend=-1) != 0]
    return _Field(span[order], term[order], 1 / np.sqrt(distance[order]), is_left[order], names)


def _findings(spans_by_feature: Mapping[int, Sequence[Span]]) -> list[_Finding]:
    spans = list(chain.from_iterable(spans_by_feature.values()))
    _check(spans)
    words = read_words(spans)
    fields = (
        (_one_per_span(words.term[words.peak_word], words.names), 0.0, _N_PEAK),
        (_context(words), _MIN_CONTEXT_EXCESS, _CONTEXT_CANDIDATES),
        (_positions(spans), _MIN_POSITION_EXCESS, 1),
    )
    n_spans = [len(group) for group in spans_by_feature.values()]
    feature = np.repeat(np.arange(len(n_spans)), np.array(n_spans, dtype=np.int64))
    rankings = [(_rank(field, feature, len(n_spans), min_excess), top) for field, min_excess, top in fields]
    return [
        _find(feature_id, n_spans[row], *(ranking.top(row, top) for ranking, top in rankings))
        for row, feature_id in enumerate(spans_by_feature)
    ]


def _check(spans: Sequence[Span]) -> None:
    for span in spans:
        if span.split is not Split.EXPLAIN:
            raise InputError(
                f"Feature {span.feature_id} would be explained from a span held out for scoring; "
                "pass only spans of the explain split."
            )
        if not 0 <= span.peak_token - span.start_token < len(span.tokens):
            raise InputError(
                f"A span of feature {span.feature_id} does not contain its peak token; collect the spans again."
            )


def _positions(spans: Sequence[Span]) -> _Field:
    """Where in its text each span peaks; token numbers count the chat template too.

    A window is cut short only where the text (of one message) begins or ends, so a peak on the window's edge is on the
    text's edge, unless windows have no width on that side at all.
    """
    n_before = np.array([span.peak_token - span.start_token for span in spans], dtype=np.int64)
    n_after = np.array([len(span.tokens) - 1 for span in spans], dtype=np.int64) - n_before
    is_first = (n_before == 0) & n_before.any() | np.array([_opens_document(span) for span in spans], dtype=bool)
    is_last = (n_after == 0) & n_after.any()
    numbered = np.array([f"at token {span.peak_token}" for span in spans], dtype=object)
    labels = np.where(is_first, _AT_START, np.where(is_last, _AT_END, numbered))
    places, place = np.unique(labels, return_inverse=True)
    return _one_per_span(place, places.tolist())


def _opens_document(span: Span) -> bool:
    return span.start_char == 0 and not "".join(span.tokens[: span.peak_token - span.start_token]).strip()


def _find(feature_id: int, n_spans: int, peak: list[_Term], around: list[_Term], where: list[_Term]) -> _Finding:
    """Peak words add up (a span has one); of context and position the best counts."""
    context = _without_repeats(around, {plain(term.name) for term in peak})
    position = [term for term in where if term.is_pattern]
    strengths = (
        sum(term.excess for term in peak if term.is_pattern),
        max((term.excess for term in position), default=0.0),
        _CONTEXT_STRENGTH * max((term.excess for term in context), default=0.0),
    )
    return _Finding(
        feature_id=feature_id,
        n_spans=n_spans,
        strength=float(max(strengths)),
        peak=[term.name for term in peak],
        is_peak_pattern=any(term.is_pattern for term in peak),
        position=position[0].name if position else None,
        context=[(term.relation, term.name) for term in context],
    )


def _without_repeats(terms: list[_Term], used: set[str]) -> list[_Term]:
    """The first few patterns that share no word with an earlier one or with the peak."""
    kept: list[_Term] = []
    for term in (term for term in terms if term.is_pattern and len(kept) < _N_CONTEXT):
        parts = set(plain(term.name).split()) if is_word(term.name) else {term.name}
        if used.isdisjoint(parts):
            kept.append(term)
            used |= parts
    return kept
