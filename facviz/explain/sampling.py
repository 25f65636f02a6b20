"""Which spans an explainer may read and which a score rests on, told apart by type, and how both are drawn.

Everything downstream takes `ExplainSpans` or `HeldOutSpans`, never bare spans, so an explanation cannot be scored on
what it was written from. Draws depend on the seed and the feature alone, never on which other features are asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import TypeVar

import numpy as np

from facviz.errors import InputError
from facviz.records import Span, Split

N_INTERVALS = 4
"""Activation intervals of equal width, from zero to the strongest of the spans at hand."""


@dataclass(frozen=True, slots=True)
class ExplainSpans:
    """Spans an explanation may be written from."""

    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        _check(self.spans, Split.EXPLAIN)


@dataclass(frozen=True, slots=True)
class HeldOutSpans:
    """Spans an explanation may be scored on."""

    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        _check(self.spans, Split.SCORE)


Half = TypeVar("Half", ExplainSpans, HeldOutSpans)


def _check(spans: Sequence[Span], split: Split) -> None:
    for span in spans:
        if span.split is not split:
            raise InputError(
                f"A span of feature {span.feature_id} belongs to the {span.split} half of the documents; "
                f"pass only spans of the {split} half."
            )


def split_spans(spans: Iterable[Span]) -> tuple[ExplainSpans, HeldOutSpans]:
    """Both halves of one feature's spans.

    Raises:
        InputError: a document stands in both halves.
    """
    spans = tuple(spans)
    explain = ExplainSpans(tuple(s for s in spans if s.split is Split.EXPLAIN))
    held_out = HeldOutSpans(tuple(s for s in spans if s.split is Split.SCORE))
    if both := {s.doc_no for s in explain.spans} & {s.doc_no for s in held_out.spans}:
        raise InputError(f"Document {min(both)} serves both explaining and scoring; split spans by document.")
    return explain, held_out


def interval_of(act: float, max_act: float) -> int:
    """Activation interval of a span, 0 the weakest."""
    return min(N_INTERVALS - 1, int(N_INTERVALS * act / max_act)) if max_act > 0 else 0


def sample_intervals(half: ExplainSpans | HeldOutSpans, n: int, *, rng_seed: int) -> list[Span]:
    """At most n spans of different texts, taken in turn from every activation interval, strongest first.

    The strongest span is always among them; within an interval the others are drawn at random.
    """
    spans = distinct(sorted(half.spans, key=lambda s: -s.act))
    if not spans or n < 1:
        return []
    rng = np.random.default_rng([rng_seed, spans[0].feature_id])
    top, rest = spans[0], spans[1:]
    groups: list[list[Span]] = [[] for _ in range(N_INTERVALS)]
    for i in rng.permutation(len(rest)):
        groups[interval_of(rest[i].act, top.act)].append(rest[i])
    turns = chain.from_iterable(zip_longest(*groups))
    drawn = [top, *islice((span for span in turns if span), n - 1)]
    return sorted(drawn, key=lambda s: -s.act)


def distinct(spans: Iterable[Span]) -> list[Span]:
    """The first span of every text."""
    first: dict[str, Span] = {}
    for span in spans:
        first.setdefault(span.text, span)
    return list(first.values())


def nearest_negatives(
    spans: Mapping[int, Half],
    neighbours: Mapping[int, Sequence[int]],
    fires_in: Mapping[int, Collection[int]],
    *,
    n: int,
) -> dict[int, Half]:
    """Hard negatives of every feature in `neighbours`: spans of its nearest features, the nearest first in each turn.

    `fires_in[i]` are the numbers of the documents where feature i is active at all, so that nothing it fires on is
    shown as something it does not.

    Raises:
        InputError: it is not known where a feature fires.
    """
    found: dict[int, Half] = {}
    for feature_id, near in neighbours.items():
        own = spans.get(feature_id)
        others = [spans[i].spans for i in near if i != feature_id and i in spans]
        turns = (span for span in chain.from_iterable(zip_longest(*others)) if span)
        drawn = tuple(islice(_inactive(turns, feature_id, own, fires_in), n))
        if half := _kind(spans):
            found[feature_id] = half(drawn)
    return found


def random_negatives(
    spans: Mapping[int, Half],
    feature_ids: Iterable[int],
    fires_in: Mapping[int, Collection[int]],
    *,
    n: int,
    rng_seed: int,
) -> dict[int, Half]:
    """Easy negatives: spans of any other features, at random; `fires_in` as in `nearest_negatives`.

    Raises:
        InputError: it is not known where a feature fires.
    """
    kind = _kind(spans)
    if kind is None:
        return {}
    pool = [span for i in sorted(spans) for span in spans[i].spans]
    order = np.random.default_rng(rng_seed).permutation(len(pool))
    found: dict[int, Half] = {}
    for feature_id in feature_ids:
        start = int(np.random.default_rng([rng_seed, feature_id]).integers(max(len(pool), 1)))
        turn = (pool[order[(start + i) % len(pool)]] for i in range(len(pool)))
        found[feature_id] = kind(tuple(islice(_inactive(turn, feature_id, spans.get(feature_id), fires_in), n)))
    return found


def _kind(spans: Mapping[int, Half]) -> type[Half] | None:
    """Which half the spans belong to; None where there are none."""
    return next((type(half) for half in spans.values()), None)


def _inactive(
    candidates: Iterable[Span],
    feature_id: int,
    own: ExplainSpans | HeldOutSpans | None,
    fires_in: Mapping[int, Collection[int]],
) -> Iterator[Span]:
    """Other features' spans from documents without this one, one a document, in no wording it fires on."""
    if feature_id not in fires_in:
        raise InputError(f"It is not known where feature {feature_id} fires; pass its documents in `fires_in`.")
    own_spans = own.spans if own else ()
    texts, fires = {span.text for span in own_spans}, fires_in[feature_id]
    taken = {span.doc_no for span in own_spans}
    for span in candidates:
        if span.feature_id == feature_id or span.doc_no in taken or span.doc_no in fires or span.text in texts:
            continue
        taken.add(span.doc_no)
        texts.add(span.text)
        yield span
