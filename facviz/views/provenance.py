"""Where a coverage number comes from, fact by fact: the sets and their makers, the SAE, the features, δ, sampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.views.coverage import Question
from facviz.views.format import UNKNOWN, count, number
from facviz.views.live import Lens, Live, Sure

Fact = tuple[str, str]

_MODES = {"inference": "as at inference", "dense": "dense (sparsity off)"}


def provenance(queries: Queries, question: Question, lens: Lens, live: Live, sure: Sure | None) -> list[Fact]:
    """Every input of the numbers on the coverage page as (what, its value), plain text."""
    (sae,) = queries.rows("sae", sae_id=question.sae_id)
    facts = [(f"Anchor set {name}", _dataset(queries.dataset(name))) for name in question.anchors]
    facts += [(f"Seed set {name}", _dataset(queries.dataset(name))) for name in question.seeds]
    facts += [
        ("Encoded", f"anchor {_size(lens.anchor)}; seed {_size(lens.seed)}"),
        ("SAE", f"{sae['sae_id']}: {sae['architecture']}, {count(sae['d_sae'])} features, {_MODES.get(MODE, MODE)}"),
        ("Model", f"{sae['backbone']}, hidden state {sae['layer']}"),
        ("Relevant features", f"{question.task_title}, said by {question.source}, counted from “{question.level}”"),
        ("Left out", "features that fire nearly everywhere in the anchor set (always-on)"),
        ("Active", _threshold(live)),
        ("Interval", _interval(sure)),
    ]
    return facts


def _dataset(row: Mapping[str, Any]) -> str:
    licence, source = row["licence"] or "licence not stated", row["source"] or "source not stated"
    digest = str(row["sha256"] or UNKNOWN)[:12]
    return f"{source}; {licence}; {count(row['n_docs'])} texts added, sha256 {digest}"


def _size(index: Any) -> str:
    return f"{count(index.n_docs)} texts, {count(index.total_tokens)} content tokens"


def _threshold(live: Live) -> str:
    if live.kind == "relative":
        return f"above {number(live.threshold)} × the feature's own 95th percentile on the anchor set, strictly"
    return f"above {number(live.threshold)} on this SAE's own scale, strictly"


def _interval(sure: Sure | None) -> str:
    if sure is None:
        return "being measured"
    return f"95 %, bootstrap over the seed set's texts, {count(sure.n_bootstrap)} resamples, seed 0"
