"""What synthesis leaves in the workspace: a shard of each table a feature, and the summary of the run."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from facviz.coverage import compute_fac, missing_coverage, missing_features
from facviz.pipeline.session import Session
from facviz.protocols import Encoder
from facviz.records import Candidate
from facviz.store.gap import Gap
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.synthesis.results import FeatureResult


def write_feature(session: Session, scope: Scope, coverage_id: str, result: FeatureResult, generator: str) -> None:
    """The feature's candidates, its pair if one was looked for, and its state; a later pass replaces them."""
    synth_id, feature_id = scope.subject, result.brief.feature_id
    rows = [_candidate_row(synth_id, result, candidate, generator) for candidate in result.candidates]
    pairs = [] if result.pair is None else [dataclasses.asdict(result.pair) | {"state": str(result.pair.state)}]
    state = {
        "synth_id": synth_id,
        "coverage_id": coverage_id,
        "feature_id": feature_id,
        "state": str(result.state),
        "n_candidates": len(result.candidates),
        "n_accepted": len(result.accepted),
    }
    manifest, shard = session.workspace.manifest, str(feature_id)
    manifest.write_shard(scope, "candidate", shard, rows_to_arrow("candidate", rows))
    manifest.write_shard(scope, "pair", shard, rows_to_arrow("pair", [pair | {"synth_id": synth_id} for pair in pairs]))
    manifest.write_shard(scope, "synthesis_feature", shard, rows_to_arrow("synthesis_feature", [state]))


def _candidate_row(synth_id: str, result: FeatureResult, candidate: Candidate, generator: str) -> dict[str, Any]:
    messages = result.brief.document_of(candidate).messages
    return dataclasses.asdict(candidate) | {
        "synth_id": synth_id,
        "messages": [dataclasses.asdict(m) for m in messages],
        "act_threshold": result.brief.act_threshold,
        "gates": json.dumps(candidate.gates),
        "fields": json.dumps(candidate.fields, ensure_ascii=False) if candidate.fields else None,
        "generator": generator,
        "prompt": candidate.gates["prompt"],
    }


def summarise(
    gap: Gap, encoder: Encoder, measured: Mapping[str, Any], results: Sequence[FeatureResult], synth_id: str
) -> dict[str, Any]:
    """Coverage re-measured with the accepted samples, each encoded once more, alone, from the text to be exported."""
    samples = [(r.brief, c) for r in results for c in r.accepted]
    alone = [encoder.encode_alone(brief.document_of(c)).max_acts for brief, c in samples]
    generated = sparse.vstack(alone).tocsr() if alone else sparse.csr_matrix((0, gap.anchor.shape[1]), dtype=np.float32)
    missing = missing_features(gap.anchor, gap.seed, features=gap.features, act_threshold=gap.act_threshold)
    merged = sparse.vstack([gap.seed, generated]).tocsr()
    reasons = Counter(c.reject_reason for r in results for c in r.candidates if c.reject_reason)
    return {
        "synth_id": synth_id,
        "coverage_id": measured["coverage_id"],
        "n_attempted": len(results),
        "n_filled": sum(r.state == "filled" for r in results),
        "n_candidates": sum(len(r.candidates) for r in results),
        "n_accepted": len(samples),
        "missing_coverage": round(missing_coverage(missing, generated, act_threshold=gap.act_threshold), 4)
        if len(samples)
        else 0.0,
        "fac_before": measured["fac"],
        "fac_after": round(compute_fac(gap.anchor, merged, features=gap.features, act_threshold=gap.act_threshold), 4),
        "states": dict(Counter(str(r.state) for r in results)),
        "pair_states": dict(Counter(str(r.pair.state) for r in results if r.pair is not None)),
        "rejected": dict(reasons),
    }
