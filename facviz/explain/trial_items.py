"""The questions a score is made of: balanced, in random order, and built so that only the content tells the answer.

Active and silent texts are cut in the same way; a text with rightly marked tokens and one with wrongly marked tokens
differ in nothing but which tokens are marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from facviz.errors import InputError
from facviz.explain.prompting import show, visible
from facviz.explain.sampling import HeldOutSpans, distinct, interval_of, sample_intervals
from facviz.records import Span

_MARKED_FROM = 0.5  # of the span's maximum: weaker tokens are no clear case of the feature
_NEAR_TOKENS = 6  # wrong marks stand this close to the peak if they can, so that where marks stand says little
_MAX_CUT_TOKENS = 16  # spans have their peak in the middle; cutting the ends keeps that from telling right marks


class _Salt(IntEnum):
    """Keeps the random numbers of one kind of trial apart from another's."""

    DETECTION = 1
    FUZZING = 2
    INTRUDER = 3


@dataclass(frozen=True, slots=True)
class Item:
    """A text as the judge sees it, the true answer, and the activation interval of its span if that is active."""

    text: str
    answer: bool
    interval: int | None
    doc_no: int


@dataclass(frozen=True, slots=True)
class Lineup:
    """Texts one of which belongs to other features; `odd` counts from 1."""

    texts: tuple[str, ...]
    odd: int
    interval: int
    """Of the active spans' mean activation."""


def detection_items(active: HeldOutSpans, silent: HeldOutSpans, *, n: int, rng_seed: int) -> list[Item]:
    """At most n texts in random order, half of them active, without marks; empty when one side has no span."""
    feature_id = _feature_id(active, silent)
    rng = np.random.default_rng([rng_seed, feature_id, _Salt.DETECTION])
    own = {span.text for span in active.spans}
    strangers = [span for span in distinct(silent.spans) if span.text not in own]
    n_each = min(n // 2, len(distinct(active.spans)), len(strangers))
    fires = sample_intervals(active, n_each, rng_seed=rng_seed)
    quiet = [strangers[i] for i in rng.permutation(len(strangers))[:n_each]]
    top = _max_act(active)
    items = [Item(show(span, ()), True, interval_of(span.act, top), span.doc_no) for span in fires]
    items += [Item(show(span, ()), False, None, span.doc_no) for span in quiet]
    return [items[i] for i in rng.permutation(len(items))]


def fuzzing_items(active: HeldOutSpans, *, n: int, rng_seed: int) -> list[Item]:
    """At most n active texts in random order: half with the right tokens marked, half with as many wrong ones.

    Of every two spans next to each other in strength one is marked wrongly, so both halves are equally strong.
    """
    feature_id = _feature_id(active)
    rng = np.random.default_rng([rng_seed, feature_id, _Salt.FUZZING])
    sample = sample_intervals(active, len(active.spans), rng_seed=rng_seed)
    usable = [(cut, wrong) for span in sample if (wrong := _wrong_marks(span, rng)) for cut in [_cut(span, wrong, rng)]]
    n_used = min(n, len(usable)) // 2 * 2
    kept = sorted(rng.permutation(len(usable))[:n_used].tolist())
    top = _max_act(active)
    items = []
    for pair in zip(kept[::2], kept[1::2]):
        right_one = int(rng.integers(2))
        for place, index in enumerate(pair):
            (span, shift), wrong = usable[index]
            marks = _right_marks(span) if place == right_one else [i - shift for i in wrong]
            interval = interval_of(span.act, top)
            items.append(Item(show(span, marks), place == right_one, interval, span.doc_no))
    return [items[i] for i in rng.permutation(len(items))]


def lineups(active: HeldOutSpans, silent: HeldOutSpans, *, n: int, size: int, rng_seed: int) -> list[Lineup]:
    """Line-ups (n) of `size` texts with their peaks marked, one of them silent; none when there are too few spans."""
    feature_id = _feature_id(active, silent)
    rng = np.random.default_rng([rng_seed, feature_id, _Salt.INTRUDER])
    own = distinct(active.spans)
    strangers = [span for span in distinct(silent.spans) if span.text not in {s.text for s in own}]
    if len(own) < size - 1 or not strangers:
        return []
    top = _max_act(active)
    found = []
    for _ in range(n):
        group = [own[i] for i in rng.permutation(len(own))[: size - 1]]
        odd = int(rng.integers(size))
        group.insert(odd, strangers[int(rng.integers(len(strangers)))])
        mean = float(np.mean([span.act for i, span in enumerate(group) if i != odd]))
        found.append(Lineup(tuple(map(show, group)), odd + 1, interval_of(mean, top)))
    return found


def _feature_id(active: HeldOutSpans, silent: HeldOutSpans | None = None) -> int:
    """The one feature all active and no silent spans belong to."""
    features = {span.feature_id for span in active.spans}
    if len(features) > 1:
        raise InputError("A feature is scored on spans of its own; pass those of one feature.")
    if features & {span.feature_id for span in (silent.spans if silent else ())}:
        raise InputError(f"A span of feature {min(features)} cannot show where it is silent; leave it out.")
    return min(features, default=0)


def _max_act(active: HeldOutSpans) -> float:
    return max((span.act for span in active.spans), default=0.0)


# Marks --------------------------------------------------------------------------------------------------------------


def _right_marks(span: Span) -> list[int]:
    """Positions of the shown tokens on which the feature is at least half as active as on the peak."""
    peak = span.peak_token - span.start_token
    return [i for i in visible(span) if i == peak or span.acts[i] >= _MARKED_FROM * span.act]


def _wrong_marks(span: Span, rng: np.random.Generator) -> list[int]:
    """As many shown tokens on which the feature is silent: the right pattern moved, else any; empty if too few."""
    right = _right_marks(span)
    peak = span.peak_token - span.start_token
    silent = {i for i in visible(span) if span.acts[i] <= 0 and span.tokens[i]}
    alike = {i for i in silent if _is_word(span.tokens[i]) == _is_word(span.tokens[peak])}
    for place in sorted(rng.permutation(sorted(alike)).tolist(), key=lambda i: abs(i - peak) > _NEAR_TOKENS):
        moved = [i + place - peak for i in right]
        if silent.issuperset(moved):
            return moved
    pool = alike if len(alike) >= len(right) else silent
    if len(pool) < len(right):
        return []
    return sorted(rng.permutation(sorted(pool))[: len(right)].tolist())


def _is_word(token: str) -> bool:
    return any(map(str.isalnum, token))


def _cut(span: Span, wrong: Sequence[int], rng: np.random.Generator) -> tuple[Span, int]:
    """The span without a few tokens at either end, all marks of either kind kept, and how many were cut in front."""
    shown = visible(span)
    needed = [*_right_marks(span), *wrong]
    front = int(rng.integers(min(min(needed) - shown.start, _MAX_CUT_TOKENS) + 1)) + shown.start
    back = shown.stop - int(rng.integers(min(shown.stop - 1 - max(needed), _MAX_CUT_TOKENS) + 1))
    cut = replace(
        span,
        start_token=span.start_token + front,
        end_token=span.start_token + back,
        start_char=span.start_char + sum(map(len, span.tokens[:front])),
        end_char=span.end_char - sum(map(len, span.tokens[back:])),
        tokens=span.tokens[front:back],
        acts=span.acts[front:back],
    )
    return cut, front
