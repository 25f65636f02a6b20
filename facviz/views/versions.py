"""Every explanation that machines wrote of a feature: by whom, how well it held, how it differs from what is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from facviz.store.queries import Queries
from facviz.views.decisions import Said
from facviz.views.format import UNKNOWN, number
from facviz.views.heat import word_diff_html

KINDS = {"lexical": "by counting words", "llm": "by a language model", "human": "by a person"}
_OUTCOMES = {"explained": "", "cannot_tell": "could not tell", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class Version:
    """One explanation as it was written."""

    text: str
    by: str
    facts: str
    is_shown: bool
    diff_html: str  # against the words that are shown, escaped; "" where they are the same or there are none


def read_versions(queries: Queries, sae_id: str, feature_id: int, said: Said) -> Sequence[Version]:
    """Machine-written explanations, the one that is `said` first; people's words stand in the history of decisions."""
    rows = queries.rows("feature_versions", sae_id=sae_id, feature_id=feature_id)
    versions = []
    for row in rows:
        text = str(row["text"] or "")
        is_shown = bool(text) and text == said.text and said.by.startswith(str(row["author"] or ""))
        scores = json.loads(row["scores"] or "{}")
        facts = [KINDS.get(row["author_kind"], ""), _OUTCOMES.get(row["outcome"], str(row["outcome"] or ""))]
        facts += [str(row["prompt"])] if row["prompt"] else []
        facts += [_score(scores)] if "embedding_auroc" in scores else []
        diff = word_diff_html(said.text, text) if text and text != said.text else ""
        by = str(row["author"] or UNKNOWN)
        versions.append(Version(text, by, " · ".join(fact for fact in facts if fact), is_shown, diff))
    return sorted(versions, key=lambda version: not version.is_shown)


def _score(scores: dict[str, float]) -> str:
    shuffled = scores.get("embedding_auroc_shuffled")
    beside = f", {number(shuffled)} with another feature's words" if shuffled is not None else ""
    return f"held-out score {number(scores['embedding_auroc'])}{beside}"
