"""A reader's own text: what fires on each of its tokens, and which features fire on all of it or on one token.

Activations of two features do not compare, so each is put in proportion to the highest that its own feature reached on
any data set the SAE has read. Some feature is near its maximum on almost every token, so the heat of a token also asks
how rare that feature is, and is stretched from the coolest to the hottest token of the text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from facviz.records import Bools, Floats, Ints
from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.views.format import count_of, percent, short
from facviz.views.heat import visible_token
from facviz.views.scope import Looked
from facviz.views.text import EncodedText

N_NAMED = 3
"""Features that the tip of a token names."""
_NAME_CHARS, _TOKEN_CHARS = 48, 24
_RAREST = 1e-4
"""Density from which on a feature counts as wholly rare."""


@dataclass(frozen=True, slots=True)
class TriedToken:
    """One token to draw: its text made visible, its heat among the text's tokens (0 to 1), and what fires on it."""

    text: str
    heat: float
    tip: str
    ends_line: bool


@dataclass(frozen=True, slots=True)
class Tried:
    """The text, and what fires on it or on the chosen token: shares of each feature's own maximum, also in words."""

    tokens: Sequence[TriedToken]
    chosen: int | None
    found: Mapping[int, float]
    words: Mapping[int, str]
    summary: str


def read_tried(
    queries: Queries, looked: Looked, encoded: EncodedText, *, token: int | None = None, with_always_on: bool = False
) -> Tried:
    """What the text activates; features that are always on are left out unless asked for, as they say little of it."""
    chosen = token if token is not None and 0 <= token < len(encoded.tokens) else None
    at = np.repeat(np.arange(len(encoded.tokens)), np.diff(encoded.offsets))
    feature_id, act = encoded.feature_id, encoded.act.astype(np.float64)
    own, density, is_always_on = _scales(queries, looked, feature_id)
    counts = (act > 0) if with_always_on else (act > 0) & ~is_always_on
    at, feature_id, act, own = at[counts], feature_id[counts], act[counts], own[counts]
    share = np.divide(act, own, out=np.ones_like(act), where=own > 0)
    heat = _heat(at, share, density[counts], len(encoded.tokens))
    tokens = _tokens(queries, looked, encoded, at, feature_id, share, heat)
    here = np.ones(len(at), bool) if chosen is None else at == chosen
    found: dict[int, float] = {}
    words: dict[int, str] = {}
    for i in np.flatnonzero(here)[np.argsort(-share[here], kind="stable")].tolist():
        feature = int(feature_id[i])
        if feature not in found:
            found[feature] = float(share[i])
            words[feature] = _in_words(share[i], own[i], encoded.tokens[at[i]] if chosen is None else None)
    place = f"“{_quoted(encoded.tokens[chosen])}”" if chosen is not None else count_of(len(tokens), "token")
    summary = f"{count_of(len(found), 'feature')} on {place}"
    return Tried(tokens, chosen, found, words, summary)


def _scales(queries: Queries, looked: Looked, feature_id: npt.NDArray[np.int64]) -> tuple[Floats, Floats, Bools]:
    """Of each activation's feature: its own maximum, density, and whether it is always on in the data set looked at."""
    ids, place = np.unique(feature_id, return_inverse=True)
    parameters = {"sae_id": looked.sae_id, "dataset_id": looked.dataset.dataset_id, "mode": MODE}
    rows = queries.rows("feature_scales", **parameters, ids=ids.tolist())
    known = {row["feature_id"]: row for row in rows}
    found = [known.get(i) or {} for i in ids.tolist()]
    own = np.array([float(row.get("max_act") or 0.0) for row in found], np.float64)
    density = np.array([float(row.get("density") or 0.0) for row in found], np.float64)
    always = np.array([bool(row.get("is_always_on")) for row in found], bool)
    return own[place], density[place], always[place]


def _heat(at: Ints, share: Floats, density: Floats, n_tokens: int) -> Floats:
    """Of each token, 0 to 1: the highest share of a maximum times how rare the feature is, stretched over the text."""
    rarity = np.clip(-np.log10(np.clip(density, _RAREST, 1.0)) / -math.log10(_RAREST), 0.0, 1.0)
    highest = np.zeros(n_tokens)
    np.maximum.at(highest, at, np.minimum(share, 1.0) * rarity)
    low, high = (float(highest.min()), float(highest.max())) if n_tokens else (0.0, 0.0)
    return np.asarray((highest - low) / (high - low) if high > low else np.where(highest > 0, 1.0, 0.0))


def _tokens(
    queries: Queries,
    looked: Looked,
    encoded: EncodedText,
    at: npt.NDArray[np.int64],
    feature_id: npt.NDArray[np.int64],
    share: npt.NDArray[np.float64],
    heat: Floats,
) -> list[TriedToken]:
    best = np.lexsort((-share, at))  # token by token, strongest first
    starts = np.searchsorted(at[best], np.arange(len(encoded.tokens) + 1))
    firsts = [best[start : min(start + N_NAMED, end)].tolist() for start, end in pairwise(starts.tolist())]
    named = sorted({int(feature_id[i]) for first in firsts for i in first})
    rows = queries.rows("explanations_of", sae_id=looked.sae_id, ids=named)
    explained = {row["feature_id"]: row["text"] for row in rows if row["text"]}
    tokens = []
    for place, (raw, first) in enumerate(zip(encoded.tokens, firsts)):
        n = int(starts[place + 1] - starts[place])
        lines = [f"“{_quoted(raw)}” · {count_of(n, 'feature')}"]
        for i in first:
            feature = int(feature_id[i])
            words = short(explained[feature], _NAME_CHARS) if feature in explained else "not explained yet"
            lines.append(f"{feature} {words} · {percent(share[i])}")
        # An empty slice is a part of a character that several tokens share; it must stay clickable.
        tokens.append(TriedToken(visible_token(raw) or "▪", float(heat[place]), "\n".join(lines), "\n" in raw))
    return tokens


def _in_words(share: float, own: float, token: str | None) -> str:
    amount = percent(share) if own > 0 else "never seen before"
    return amount if token is None else f"{amount} on “{_quoted(token)}”"


def _quoted(token: str) -> str:
    """A token in a sentence, its blanks visible where there is nothing else."""
    word = token.strip(" ")
    return short(word, _TOKEN_CHARS) if word else "␣" * min(len(token), _TOKEN_CHARS)
