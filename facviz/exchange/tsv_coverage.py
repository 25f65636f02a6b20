"""Coverage straight from two FAC TSV files, without a workspace: what the published procedure works on.

There a feature counts as activated when its line names spans, whatever its activation was: no δ, no documents. Files
without a column of spans are lists of activated features. The numbers are therefore not those of `facviz coverage`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from facviz.coverage import compute_fac, is_saturated, missing_features
from facviz.errors import InputError
from facviz.exchange.fac_tsv import VERIFY, FacRow, FacTable, Judgement
from facviz.records import Ints, Relevance
from facviz.relevance import relevant_features


@dataclass(frozen=True, slots=True, eq=False)
class TsvCoverage:
    """FAC of the seed file against the anchor file; `missing_as_published` follows the seed's own verdicts instead.

    The published script takes an anchor feature as missing when the seed file has a line for it that is not judged
    relevant once more (known defect 1); None where the seed file has no verdicts.
    """

    fac: float
    n_relevant: int
    n_anchor: int
    n_covered: int
    missing: Ints  # sorted feature ids
    saturated: bool
    n_anchor_activated: int
    n_seed_activated: int
    n_unclear: int  # anchor features whose verdict is none of the four
    missing_as_published: Ints | None


def coverage_of_tables(
    anchor: FacTable, seed: FacTable, *, level: str = "maybe", require_verify: bool = False
) -> TsvCoverage:
    """Coverage by the anchor's verdicts at `level` or above; `require_verify` asks the same of its Verify column.

    Raises:
        InputError: the anchor has no verdicts, or no Verify column although it is asked for.
        CoverageError: no relevant feature is activated in the anchor file.
    """
    if all(row.task is None for row in anchor.rows):
        raise InputError("The anchor file has no relevance column; name it with --column, or judge relevance first.")
    if require_verify and VERIFY not in anchor.columns:
        raise InputError(f"The anchor file has no column {VERIFY}; leave out --require-verify.")
    judged = [row for row in anchor.rows if _is_at(row.verify, level) or not require_verify]
    features = _relevant(judged, level)
    d_sae = 1 + max((row.feature_id for row in (*anchor.rows, *seed.rows)), default=0)
    sets = [_activated(table, d_sae) for table in (anchor, seed)]
    missing = missing_features(*sets, features=features)
    n_anchor = int(sets[0].toarray()[0, features].sum())
    return TsvCoverage(
        fac=compute_fac(*sets, features=features),
        n_relevant=len(features),
        n_anchor=n_anchor,
        n_covered=n_anchor - len(missing),
        missing=missing,
        saturated=is_saturated(len(missing), n_anchor),
        n_anchor_activated=sets[0].nnz,
        n_seed_activated=sets[1].nnz,
        n_unclear=sum(row.task is not None and row.task.decision.verdict is None for row in anchor.rows),
        missing_as_published=_as_published(features, seed, level),
    )


def how_activated(table: FacTable) -> str:
    """In words, what activated features of this file are known by."""
    has_words = any(row.words is not None for row in table.rows)
    return "each with spans on its line" if has_words else "each with a line"


def _activated(table: FacTable, d_sae: int) -> sparse.csr_array:
    """The file as one document [1, d_sae] that activates each of its features at 1."""
    ids = np.array([row.feature_id for row in table.rows if row.has_spans], np.int64)
    return sparse.csr_array((np.ones(len(ids)), (np.zeros(len(ids), np.int64), ids)), shape=(1, d_sae))


def _relevant(rows: Iterable[FacRow], level: str) -> Ints:
    verdicts = [
        Relevance(row.feature_id, "llm", verdict, 1.0, "")
        for row in rows
        if row.task is not None and (verdict := row.task.decision.verdict) is not None
    ]
    return relevant_features(verdicts, level, "llm")


def _is_at(judgement: Judgement | None, level: str) -> bool:
    return judgement is not None and bool(len(_relevant([FacRow(0, task=judgement)], level)))


def _as_published(features: Ints, seed: FacTable, level: str) -> Ints | None:
    if all(row.task is None for row in seed.rows):
        return None
    listed = np.array([row.feature_id for row in seed.rows], np.int64)
    return np.setdiff1d(np.intersect1d(features, listed), _relevant(seed.rows, level))
