"""What synthesis is told of a coverage run: the missing features to attempt, and their evidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from facviz.config import CoverageConfig, SynthesisConfig
from facviz.errors import InputError
from facviz.explain.lexical import feature_keywords
from facviz.explain.words import words_to_use
from facviz.pipeline.features import promoted_tokens
from facviz.pipeline.session import Session
from facviz.prompts import load_task
from facviz.records import ExplanationOutcome, Span, Split
from facviz.spans import spans_by_feature
from facviz.store.reader import Reader
from facviz.store.schema import MODE
from facviz.synthesis.evidence import evidence
from facviz.synthesis.plan import FeatureBrief


def words_of_people(session: Session, measured: Mapping[str, Any]) -> list[tuple[int, str, str | None]]:
    """Explanations of missing features that a person wrote or turned down: they change what the generator is told."""
    with session.workspace.reader() as reader:
        missing = {r["feature_id"] for r in reader.rows("missing", coverage_id=measured["coverage_id"])}
        decided = reader.rows("decisions", kind="explanation", sae_id=measured["sae_id"])
    changed = [r for r in decided if r["feature_id"] in missing and (r["text"] or r["status"] == "rejected")]
    return sorted((r["feature_id"], r["status"], r["text"]) for r in changed)


def read_briefs(
    reader: Reader, measured: Mapping[str, Any], coverage_config: CoverageConfig, config: SynthesisConfig
) -> list[FeatureBrief]:
    """Missing features to attempt, most task-relevant first, with the evidence the generator may see."""
    chosen = _chosen(reader.rows("missing", coverage_id=measured["coverage_id"]), config)
    return briefs_of(reader, measured, coverage_config, config, chosen)


def briefs_of(
    reader: Reader,
    measured: Mapping[str, Any],
    coverage_config: CoverageConfig,
    config: SynthesisConfig,
    chosen: Sequence[Mapping[str, Any]],
) -> list[FeatureBrief]:
    """Evidence of any features; a row holds `feature_id`, `act_threshold` and `n_anchor_docs`."""
    sae_id = measured["sae_id"]
    anchor_id = reader.dataset(coverage_config.anchor)["dataset_id"]
    spans = spans_by_feature(reader.rows("dataset_spans", sae_id=sae_id, dataset_id=anchor_id))
    outputs = {r["feature_id"]: promoted_tokens(r) for r in reader.rows("feature_directions", sae_id=sae_id)}
    shown = {f: [s for s in found if s.split is Split.EXPLAIN] for f, found in spans.items()}
    shown = {f: found for f, found in shown.items() if found}
    found = feature_keywords(shown, output_tokens=outputs)
    words = {k.feature_id: words_to_use(k.peak, shown[k.feature_id]) for k in found}
    return _briefs(reader, measured, config, chosen, anchor_id, shown, words)


def read_brief(
    reader: Reader,
    measured: Mapping[str, Any],
    coverage_config: CoverageConfig,
    config: SynthesisConfig,
    feature_id: int,
) -> FeatureBrief:
    """One missing feature as gates need it: without `words`, which are read off the spans of all features at once."""
    sae_id, anchor_id = measured["sae_id"], reader.dataset(coverage_config.anchor)["dataset_id"]
    rows = reader.rows("spans", feature_id=feature_id, sae_id=sae_id)
    spans = spans_by_feature(row for row in rows if row["dataset_id"] == anchor_id)
    missing = reader.rows("missing", coverage_id=measured["coverage_id"])
    chosen = _chosen(missing, dataclasses.replace(config, features=(feature_id,)))
    shown = {feature_id: [s for s in spans.get(feature_id, ()) if s.split is Split.EXPLAIN]}
    [brief] = _briefs(reader, measured, config, chosen, anchor_id, shown, {})
    return brief


def _briefs(
    reader: Reader,
    measured: Mapping[str, Any],
    config: SynthesisConfig,
    chosen: Sequence[Mapping[str, Any]],
    anchor_id: str,
    spans: Mapping[int, Sequence[Span]],
    words: Mapping[int, tuple[str, ...]],
) -> list[FeatureBrief]:
    written = [
        r
        for r in reader.rows("explanations", sae_id=measured["sae_id"])
        if r["outcome"] == ExplanationOutcome.EXPLAINED and r["status"] != "rejected"
    ]
    explanations = {r["feature_id"]: r["text"] for r in written}
    guideline = load_task(measured["task"])
    ids = sorted({span.doc_no for row in chosen for span in spans.get(row["feature_id"], ())})
    of = {"sae_id": measured["sae_id"], "dataset_id": anchor_id, "mode": MODE}
    largest = {
        r["feature_id"]: float(r["max_act"])
        for r in reader.rows("strongest", **of, ids=[row["feature_id"] for row in chosen])
    }
    documents = reader.rows("messages_of", dataset_id=anchor_id, ids=ids)
    contents = {row["doc_no"]: [m["content"] for m in row["messages"]] for row in documents}
    return [
        FeatureBrief(
            feature_id=row["feature_id"],
            act_threshold=row["act_threshold"],
            explanation=explanations.get(row["feature_id"], ""),
            words=words.get(row["feature_id"], ()),
            spans=evidence(spans.get(row["feature_id"], ()), contents, config.evidence_spans, config.max_tokens),
            task=guideline,
            n_anchor_docs=row["n_anchor_docs"],
            anchor_max=largest.get(row["feature_id"], math.inf),
        )
        for row in chosen
    ]


def _chosen(missing: Sequence[Mapping[str, Any]], config: SynthesisConfig) -> list[Mapping[str, Any]]:
    if not config.features:
        return list(missing[: config.max_features])
    by_id = {row["feature_id"]: row for row in missing}
    absent = [f for f in config.features if f not in by_id]
    if absent:
        raise InputError(f"Feature {absent[0]} is not among the {len(missing)} missing features; choose missing ones.")
    return [by_id[f] for f in dict.fromkeys(config.features)]
