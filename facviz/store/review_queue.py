"""Which explanations are worth a person's look, and why: the value of reviewing each feature, and who looked already.

`value = effect × uncertainty`, both from 0 to 1 and both from machine-made rows alone, so that deciding on a feature
never moves it. With δ, level and state of the coverage run that is looked at:

| effect | of a feature that |
|---|---|
| 1.0 | is missing, also where synthesis gave up on it |
| 0.7 | was missing and is filled by verified samples |
| 0.5 | is relevant and covered |
| 0.3 | the anchor set activates and one step of its verdict would make relevant |
| 0.1 | changes no coverage |

plus 0.2, up to 1.0, where its maximum on anchor or seed set lies within a fifth of δ. And

`uncertainty = max(0.1, 0.5 × weak score + 0.3 × disagreement + 0.2 × verdict near the level)`

- weak score: 2 × (1 − score), from 0 for 1.0 to 1 for chance, the worse of embedding AUROC and the judge's balanced
  accuracy on held-out spans; 0.5 where neither was measured.
- disagreement: 1 where two sources judge the feature's relevance on both sides of the level, 0.5 where two explainers
  share no word, else 0.
- verdict near the level: by labels 1 at AUROC 0.55, falling to 0 at 0.1 from it; by embedding the same around the
  cosine of the level; by a language model 1 on the level, 0.5 one step below it, else 0.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from facviz.store.coverage_parts import COVERAGE_PARTS
from facviz.store.feature_table import TableScope
from facviz.store.queries import Queries

STATUSES = ("unreviewed", "accepted", "edited", "rejected", "unsure", "flagged", "skipped")
"""In the order of the numbers in `Queue.status`."""
STATES = ("none", "covered", "filled", "exhausted", "missing")
"""In the order of the numbers in `Queue.state`."""

_OWN_PARTS = """
verdicts AS (
    SELECT feature_id, source, score, source <> $source AS place,
        CASE verdict WHEN 'yes' THEN 3 WHEN 'probably' THEN 2 WHEN 'maybe' THEN 1 ELSE 0 END AS step
    FROM relevance WHERE sae_id = $sae_id AND task = $task),
judged AS (
    SELECT feature_id, arg_min(step, place) AS step, arg_min(source, place) AS source, arg_min(score, place) AS score,
        min(step) < coalesce((SELECT lowest FROM run), 1) AND max(step) >= coalesce((SELECT lowest FROM run), 1)
            AS is_split
    FROM verdicts GROUP BY feature_id),
words AS (
    SELECT feature_id, author, text, CASE WHEN scores <> '{}' THEN scores END AS scores
    FROM explanation WHERE sae_id = $sae_id AND outcome = 'explained' AND text <> ''),
written AS (
    SELECT feature_id, count(DISTINCT author) AS n_authors,
        max(TRY(CAST(scores ->> '$.embedding_auroc' AS DOUBLE))) AS embedding,
        max(TRY(CAST(scores ->> '$.detection_accuracy' AS DOUBLE))) AS detection
    FROM words GROUP BY feature_id),
strangers AS (
    SELECT feature_id FROM (SELECT feature_id, author,
            list_distinct(flatten(list(regexp_extract_all(lower(text), '\\w{3,}')))) AS said
        FROM words JOIN (SELECT feature_id FROM written WHERE n_authors > 1) USING (feature_id)
        GROUP BY feature_id, author)
    GROUP BY feature_id HAVING NOT list_has_any(arg_min(said, author), arg_max(said, author))),
parts AS (
    SELECT t.feature_id, t.density, w.feature_id IS NOT NULL AS is_explained,
        CASE WHEN m.feature_id IS NOT NULL THEN CASE WHEN y.is_filled THEN 2 WHEN y.is_exhausted THEN 3 ELSE 4 END
            WHEN r.in_anchor AND r.in_seed AND NOT r.is_always_on AND j.step >= (SELECT lowest FROM run) THEN 1
            ELSE 0 END AS state,
        coalesce(r.is_near, false) AS is_near,
        coalesce(r.in_anchor AND NOT r.is_always_on AND j.step = (SELECT lowest FROM run) - 1, false) AS is_below,
        least(w.embedding, w.detection) AS score,
        CASE WHEN w.embedding IS NULL AND w.detection IS NULL THEN 0.5
            ELSE least(1, greatest(0, 2 * (1 - least(w.embedding, w.detection)))) END AS weak,
        CASE WHEN j.is_split THEN 1.0 WHEN x.feature_id IS NOT NULL THEN 0.5 ELSE 0.0 END AS disagreement,
        CASE WHEN j.step IS NULL OR (j.source <> 'llm' AND (j.score IS NULL OR isnan(j.score))) THEN 0.0
            WHEN j.source = 'label' THEN greatest(0, 1 - abs(j.score - 0.55) / 0.1)
            WHEN j.source = 'embedding'
                THEN greatest(0, 1 - abs(j.score - coalesce((SELECT lowest_cosine FROM run), 0.3)) / 0.1)
            WHEN j.step = coalesce((SELECT lowest FROM run), 1) THEN 1.0
            WHEN j.step = coalesce((SELECT lowest FROM run), 1) - 1 THEN 0.5 ELSE 0.0 END AS near_level
    FROM stats t LEFT JOIN written w USING (feature_id) LEFT JOIN strangers x USING (feature_id)
    LEFT JOIN judged j USING (feature_id) LEFT JOIN reach r USING (feature_id) LEFT JOIN tried y USING (feature_id)
    LEFT JOIN (SELECT feature_id FROM missing_feature WHERE coverage_id = $coverage_id) m USING (feature_id)
    WHERE t.dataset_id = $dataset_id AND NOT t.is_dead),
valued AS (
    SELECT *, least(1.0, 0.2 * is_near::INTEGER + CASE WHEN state >= 3 THEN 1.0 WHEN state = 2 THEN 0.7
            WHEN state = 1 THEN 0.5 WHEN is_below THEN 0.3 ELSE 0.1 END) AS effect,
        greatest(0.1, 0.5 * weak + 0.3 * disagreement + 0.2 * near_level) AS uncertainty
    FROM parts)"""
_PARTS = ",".join((COVERAGE_PARTS, _OWN_PARTS))
_PEOPLE = """
held AS (SELECT feature_id, status, author, "at" FROM decision WHERE kind = 'explanation' AND sae_id = $sae_id),
own AS (SELECT * FROM opinion WHERE kind = 'explanation' AND sae_id = $sae_id),
seen AS (
    SELECT feature_id, bool_or(actor = $me) AS is_mine, bool_or(actor <> $me AND look = '') AS is_others,
        bool_or(actor = $me AND look = 'repeat') AS is_repeated,
        count(DISTINCT label) > 1 AND (max("at") FILTER (look <> '')) IS NOT NULL AS is_mixed,
        max("at") FILTER (look <> '') AS looked_at,
        max("at") FILTER (actor = $me) AS my_at
    FROM own GROUP BY feature_id),
people AS (
    SELECT feature_id, coalesce(status, 'unreviewed') AS status, coalesce(is_mine, false) AS is_mine,
        coalesce(is_others AND NOT is_mine AND status IN ('accepted', 'edited', 'rejected', 'unsure'), false)
            AS is_second,
        coalesce(is_mixed AND (h."at" IS NULL OR looked_at > h."at"), false) AS is_mixed,
        coalesce(is_mine AND NOT is_repeated, false) AS can_repeat, coalesce(my_at, '') AS my_at
    FROM held h FULL JOIN seen USING (feature_id))"""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The value of every live feature, most worth a look first, from machine-made rows; one entry a feature."""

    feature_id: npt.NDArray[np.int64]
    is_explained: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float64]
    effect: npt.NDArray[np.float64]
    uncertainty: npt.NDArray[np.float64]
    weak: npt.NDArray[np.float64]
    disagreement: npt.NDArray[np.float64]
    near_level: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]  # NaN where none was measured
    density: npt.NDArray[np.float64]
    state: npt.NDArray[np.int64]  # number of STATES
    is_near: npt.NDArray[np.bool_]  # δ
    is_below: npt.NDArray[np.bool_]  # one step below the level


@dataclass(frozen=True, slots=True, eq=False)
class Queue(Parts):
    """Those that are explained or decided on, with what people did."""

    status: npt.NDArray[np.int64]  # number of STATUSES
    is_second: npt.NDArray[np.bool_]  # decided by others alone
    is_mixed: npt.NDArray[np.bool_]  # people differ, or one person from themselves, and nobody settled it


_NUMBERS = ("value", "effect", "uncertainty", "weak", "disagreement", "near_level", "score", "density")


def read_parts(reader: Queries, scope: TableScope) -> Parts:
    """The machine's half of the queue, which no decision changes: worth keeping between decisions."""
    # Ties go to the more frequent feature, then to the lower number.
    found = reader.select(
        f"WITH {_PARTS} SELECT *, effect * uncertainty AS value FROM valued "  # noqa: S608
        "ORDER BY value DESC, density DESC, feature_id",
        **scope.parameters,
    )
    whole = {name: found[name].to_numpy().astype(np.int64) for name in ("feature_id", "state")}
    parts = {name: found[name].to_numpy().astype(np.float64) for name in _NUMBERS}
    flags = {name: found[name].to_numpy().astype(np.bool_) for name in ("is_explained", "is_near", "is_below")}
    return Parts(**whole, **parts, **flags)


def read_review_queue(reader: Queries, scope: TableScope, me: str, parts: Parts | None = None) -> Queue:
    """Every feature that fires and is explained or decided on, most valuable first."""
    parts = parts or read_parts(reader, scope)
    people = reader.select(f"WITH {_PEOPLE} SELECT * FROM people", sae_id=scope.sae_id, me=me)  # noqa: S608
    status = np.zeros(len(parts.feature_id), np.int64)
    is_second, is_mixed, is_touched = (np.zeros(len(status), np.bool_) for _ in range(3))
    if people.num_rows and len(status):
        by_id = np.argsort(parts.feature_id)
        ids = people["feature_id"].to_numpy()
        places = by_id[np.minimum(np.searchsorted(parts.feature_id[by_id], ids), len(by_id) - 1)]
        is_live = parts.feature_id[places] == ids  # others are of dead features
        places = places[is_live]
        numbers = np.array([STATUSES.index(s) if s in STATUSES else 0 for s in people["status"].to_pylist()])
        status[places], is_touched[places] = numbers[is_live], True
        is_second[places] = people["is_second"].to_numpy().astype(np.bool_)[is_live]
        is_mixed[places] = people["is_mixed"].to_numpy().astype(np.bool_)[is_live]
    kept = parts.is_explained | is_touched
    machine = {f.name: getattr(parts, f.name)[kept] for f in fields(Parts)}
    return Queue(**machine, status=status[kept], is_second=is_second[kept], is_mixed=is_mixed[kept])


def found_by_text(reader: Queries, sae_id: str, text: str) -> npt.NDArray[np.int64]:
    """Features whose explanation holds these words, whatever their case."""
    found = reader.select(
        "SELECT feature_id FROM current_explanation WHERE sae_id = $sae_id AND contains(lower(text), lower($text))",
        sae_id=sae_id,
        text=text,
    )
    return np.asarray(found["feature_id"].to_numpy(), np.int64)


def repeatable(reader: Queries, sae_id: str, me: str, not_the_last: int) -> list[dict[str, Any]]:
    """What this person decided on their own and not a second time, oldest first, without the last few."""
    rows = reader.select(
        "SELECT feature_id, event_id FROM (SELECT *, count(*) OVER (PARTITION BY feature_id) AS n, "
        'row_number() OVER (ORDER BY "at" DESC) AS back FROM opinion '
        "WHERE kind = 'explanation' AND sae_id = $sae_id AND actor = $me) "
        "WHERE n = 1 AND look = '' AND back > $last ORDER BY \"at\"",
        sae_id=sae_id,
        me=me,
        last=not_the_last,
    )
    return list(rows.to_pylist())
