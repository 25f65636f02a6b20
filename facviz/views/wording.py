"""Text diversity beside FAC: both of the same random texts, within the same number of content tokens for every set."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from facviz.coverage import ActivityIndex, draw_within, weight_shown
from facviz.diversity import MEASURES, Measure, Tagger, measure_texts
from facviz.records import Bools, Floats, Ints
from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.views.coverage import Question
from facviz.views.live import Live

N_DRAWS = 20
MOST_TOKENS = 10_000
MOST_EMBEDDED = 300

Spread = tuple[float, float, float]
"""Mean, and the 95 % range over draws; the same three times where only one draw was measured."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Which texts of a set each draw holds, and the FAC of each."""

    name: str
    drawn: Bools  # [n_draws, n_docs]
    fac: Floats  # [n_draws]

    @property
    def doc_nos(self) -> Ints:
        """Every text that some draw holds."""
        return np.flatnonzero(self.drawn.any(axis=0))


@dataclass(frozen=True, slots=True)
class Wording:
    """One set: FAC and every measure by its key, None where it could not be measured."""

    name: str
    n_docs: float  # mean over draws
    fac: Spread
    measures: Mapping[str, Spread | None]


def draw_sets(live: Live, sets: Mapping[str, ActivityIndex], *, n_draws: int = N_DRAWS) -> tuple[int, list[Draws]]:
    """The common budget in content tokens, at most 10,000, and the draws of each set that has any."""
    usable = {name: index for name, index in sets.items() if index.total_tokens}
    budget = min([MOST_TOKENS, *(index.total_tokens for index in usable.values())])
    return budget, [_draw(live, name, index, budget, n_draws) for name, index in usable.items()]


def _draw(live: Live, name: str, index: ActivityIndex, budget: int, n_draws: int) -> Draws:
    rng = np.random.default_rng([0, zlib.crc32(name.encode())])
    drawn = draw_within(index.n_tokens, budget, n_draws, rng)
    n_active = index.n_active(live.target_threshold, live.target)
    docs, offsets = index.docs_of(n_active, live.target)
    shown = weight_shown(docs, offsets, np.ones((live.n_anchor, 1)), [drawn])
    return Draws(name, drawn, shown[:, 0] / live.n_anchor)


def set_texts(queries: Queries, question: Question, draws: Draws) -> dict[int, str]:
    """The drawn texts of a set by document number; sets joined to one number on."""
    names = next((n for n in (question.seeds, question.anchors) if " + ".join(n) == draws.name), (draws.name,))
    wanted, texts, start = draws.doc_nos, dict[int, str](), 0
    for name in names:
        dataset = queries.dataset(name)
        place = {"sae_id": question.sae_id, "dataset_id": dataset["dataset_id"], "mode": MODE}
        size = queries.named("encoded_documents", **place).num_rows
        ids = wanted[(wanted >= start) & (wanted < start + size)] - start
        rows = queries.rows("texts_of", dataset_id=dataset["dataset_id"], ids=ids.tolist())
        texts.update({start + row["doc_no"]: row["text"] for row in rows})
        start += size
    return texts


def measure_wording(
    draws: Draws, texts: Mapping[int, str], embed: Callable[[Sequence[str]], Floats], tagger: Tagger | None
) -> Wording:
    """The measures of each draw; the vectors of at most 300 texts of the first one."""
    found: dict[str, list[float | None]] = {measure.key: [] for measure in MEASURES}
    for place, row in enumerate(draws.drawn):
        chosen = [texts[i] for i in np.flatnonzero(row).tolist() if i in texts]
        vectors = embed(chosen[:MOST_EMBEDDED]) if place == 0 and chosen else None
        for key, value in measure_texts(chosen, vectors=vectors, tagger=tagger).items():
            found[key].append(value)
    measures = {key: _spread([v for v in values if v is not None]) for key, values in found.items()}
    fac = _spread(draws.fac.tolist()) or (0.0, 0.0, 0.0)
    return Wording(draws.name, float(draws.drawn.sum(axis=1).mean()), fac, measures)


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(np.mean(values)), float(low), float(high)


def most_varied(rows: Sequence[Wording], measure: Measure) -> str:
    """Name of the set that is the most varied by one measure; empty where fewer than two have it."""
    known = [(found[0], row.name) for row in rows if (found := row.measures[measure.key])]
    if len(known) < 2:
        return ""
    return (max if measure.higher_is_varied else min)(known)[1]
