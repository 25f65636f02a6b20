"""`facviz synthesize`: samples for the missing features of a coverage run, and coverage measured again with them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from facviz.config import CoverageConfig, SynthesisConfig, fingerprint
from facviz.coverage import (
    compute_fac,
    missing_coverage,
    missing_features,
)
from facviz.errors import CoverageError, InputError, SaturatedError
from facviz.explain.lexical import feature_keywords
from facviz.files import append_line, read_lines
from facviz.pipeline.features import promoted_tokens
from facviz.pipeline.sae import open_sae
from facviz.pipeline.session import CODE_VERSION, Session
from facviz.prompts import load_task, template_text
from facviz.protocols import LLMClient
from facviz.records import Candidate, ExplanationOutcome, Span, Split
from facviz.spans import spans_by_feature
from facviz.store.gap import Gap, read_gap
from facviz.store.manifest import Scope
from facviz.store.reader import Reader
from facviz.store.schema import rows_to_arrow
from facviz.synthesis.engine import PROMPTS, TEMPLATES, FeatureResult, Synthesizer, restore_candidate
from facviz.synthesis.gates import GATES_VERSION, TextGates
from facviz.synthesis.plan import BatchPlace, FeatureBrief


class _FileLedger:
    """Finished batches of one synthesis run, one line each, fsynced: what a kill cannot take away."""

    def __init__(self, session: Session, synth_id: str) -> None:
        self._session = session
        self._path = session.workspace.root / "synthesis" / f"{synth_id}.jsonl"
        self._batches = {self._key(e): e["candidates"] for e in read_lines(self._path)}
        self.n_candidates = sum(len(batch) for batch in self._batches.values())

    def recall(self, place: BatchPlace) -> list[Candidate] | None:
        found = self._batches.get((place.feature_id, place.step, place.round))
        return None if found is None else [restore_candidate(row) for row in found]

    def record(self, place: BatchPlace, candidates: Sequence[Candidate]) -> None:
        rows = [dataclasses.asdict(c) for c in candidates]
        entry = {"feature_id": place.feature_id, "step": place.step, "round": place.round, "candidates": rows}
        append_line(self._path, entry)
        self.n_candidates += len(rows)
        note = f"candidates, feature {place.feature_id}, {place.step} batch {place.round}"
        self._session.progress.update("synthesize", self.n_candidates, None, note)

    @staticmethod
    def _key(entry: Mapping[str, Any]) -> tuple[int, str, int]:
        return entry["feature_id"], entry["step"], entry["round"]


def synthesize(
    session: Session, measured: Mapping[str, Any], coverage_config: CoverageConfig, config: SynthesisConfig
) -> dict[str, Any]:
    """Fill missing features of a coverage run; refuses while that run is saturated (design §3)."""
    if measured["saturated"]:
        better = measured["unsaturated_threshold"]
        advice = f"set the threshold to {better}" if better is not None else "use another seed or anchor set"
        raise SaturatedError(
            f"Only {measured['n_missing']} of {measured['n_anchor']} relevant features are missing at this threshold, "
            f"so filling them would prove nothing; {advice}."
        )
    if measured["n_missing"] == 0:
        raise CoverageError("No relevant feature is missing, so there is nothing to synthesize.")
    told = [GATES_VERSION, *(template_text(name) for name in TEMPLATES)]
    # Both steps belong to one synthesis run: `guided` continues from the pairs an earlier `pairs` made.
    whole = dataclasses.replace(config, step="both")
    by_people = _words_of_people(session, measured)
    name = fingerprint(
        "synthesis",
        CODE_VERSION,
        measured["coverage_id"],
        whole,
        load_task(measured["task"]),
        told,
        *([by_people] if by_people else []),
    )
    synth_id = name[:12]
    scope = Scope("synthesize", synth_id, fingerprint(name, config.step))
    return session.run_once(scope, lambda: _synthesize(session, measured, coverage_config, config, synth_id, scope))


def _words_of_people(session: Session, measured: Mapping[str, Any]) -> list[tuple[int, str, str | None]]:
    """Explanations of missing features that a person wrote or turned down: they change what the generator is told."""
    with session.workspace.reader() as reader:
        missing = {r["feature_id"] for r in reader.rows("missing", coverage_id=measured["coverage_id"])}
        decided = reader.rows("decisions", kind="explanation", sae_id=measured["sae_id"])
    changed = [r for r in decided if r["feature_id"] in missing and (r["text"] or r["status"] == "rejected")]
    return sorted((r["feature_id"], r["status"], r["text"]) for r in changed)


def _synthesize(
    session: Session,
    measured: Mapping[str, Any],
    coverage_config: CoverageConfig,
    config: SynthesisConfig,
    synth_id: str,
    scope: Scope,
) -> dict[str, Any]:
    from facviz.llm.local import LocalChat

    sae_id, task, source = measured["sae_id"], measured["task"], measured["relevance_source"]
    with session.workspace.reader() as reader:
        gap = read_gap(reader, sae_id, task, source, coverage_config)
        missing = reader.rows("missing", coverage_id=measured["coverage_id"])
        briefs = _briefs(reader, sae_id, task, coverage_config, missing, config)
        texts = _corpus_texts(reader, (coverage_config.anchor, coverage_config.seed))
    guideline = load_task(task)
    encoder = session.encoder(open_sae(session, sae_id), guideline.roles)
    client: LLMClient = LocalChat(session.fast)
    synthesizer = Synthesizer(synth_id, client, encoder, TextGates(texts), _FileLedger(session, synth_id), config)
    results = []
    for number, brief in enumerate(briefs):
        results.append(synthesizer.fill(brief))
        session.progress.update("synthesize features", number + 1, len(briefs), f"features, {results[-1].state}")
        _write_feature(session, scope, synth_id, measured["coverage_id"], results[-1], client.name)
    return _summary(gap, encoder, measured, results, synth_id)


def _briefs(
    reader: Reader,
    sae_id: str,
    task: str,
    coverage_config: CoverageConfig,
    missing: Sequence[Mapping[str, Any]],
    config: SynthesisConfig,
) -> list[FeatureBrief]:
    """Missing features to attempt, most task-relevant first, with the evidence the generator may see."""
    anchor_id = reader.dataset(coverage_config.anchor)["dataset_id"]
    spans = spans_by_feature(reader.rows("dataset_spans", sae_id=sae_id, dataset_id=anchor_id))
    outputs = {r["feature_id"]: promoted_tokens(r) for r in reader.rows("feature_directions", sae_id=sae_id)}
    shown = {f: [s for s in found if s.split is Split.EXPLAIN] for f, found in spans.items()}
    shown = {f: found for f, found in shown.items() if found}
    words = {k.feature_id: k for k in feature_keywords(shown, output_tokens=outputs)}
    written = [
        r
        for r in reader.rows("explanations", sae_id=sae_id)
        if r["outcome"] == ExplanationOutcome.EXPLAINED and r["status"] != "rejected"
    ]
    explanations = {r["feature_id"]: r["text"] for r in written}
    chosen = _chosen(missing, config)
    guideline = load_task(task)
    return [
        FeatureBrief(
            feature_id=row["feature_id"],
            act_threshold=row["act_threshold"],
            explanation=explanations.get(row["feature_id"], ""),
            words=words[row["feature_id"]].peak if row["feature_id"] in words else (),
            spans=_evidence(spans.get(row["feature_id"], ()), config.evidence_spans),
            task=guideline,
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


def _evidence(spans: Sequence[Span], n: int) -> tuple[Span, ...]:
    shown = sorted((s for s in spans if s.split is Split.EXPLAIN), key=lambda s: s.rank)
    return tuple(shown[:n])


def _corpus_texts(reader: Reader, names: Sequence[str]) -> list[str]:
    return [r["text"] for n in names for r in reader.rows("documents", dataset_id=reader.dataset(n)["dataset_id"])]


def _write_feature(
    session: Session, scope: Scope, synth_id: str, coverage_id: str, result: FeatureResult, generator: str
) -> None:
    brief = result.brief
    rows = [_candidate_row(synth_id, result, candidate, generator) for candidate in result.candidates]
    pair = dataclasses.asdict(result.pair) | {"synth_id": synth_id, "state": str(result.pair.state)}
    state = {
        "synth_id": synth_id,
        "coverage_id": coverage_id,
        "feature_id": brief.feature_id,
        "state": str(result.state),
        "n_candidates": len(result.candidates),
        "n_accepted": len(result.accepted),
    }
    manifest, shard = session.workspace.manifest, str(brief.feature_id)
    manifest.write_shard(scope, "candidate", shard, rows_to_arrow("candidate", rows))
    manifest.write_shard(scope, "pair", shard, rows_to_arrow("pair", [pair]))
    manifest.write_shard(scope, "synthesis_feature", shard, rows_to_arrow("synthesis_feature", [state]))


def _candidate_row(synth_id: str, result: FeatureResult, candidate: Candidate, generator: str) -> dict[str, Any]:
    messages = result.brief.document(candidate.text).messages
    return dataclasses.asdict(candidate) | {
        "synth_id": synth_id,
        "messages": [dataclasses.asdict(m) for m in messages],
        "act_threshold": result.brief.act_threshold,
        "gates": json.dumps(candidate.gates),
        "generator": generator,
        "prompt": PROMPTS[candidate.step],
    }


def _summary(
    gap: Gap, encoder: Any, measured: Mapping[str, Any], results: Sequence[FeatureResult], synth_id: str
) -> dict[str, Any]:
    """Coverage re-measured with the accepted samples, each encoded once more, alone, from the text to be exported."""
    samples = [(r.brief, c) for r in results for c in r.accepted]
    alone = [encoder.encode_alone(brief.document(c.text)).max_acts for brief, c in samples]
    generated = sparse.vstack(alone).tocsr() if alone else sparse.csr_matrix((0, gap.anchor.shape[1]), dtype=np.float32)
    missing = _missing_ids(gap)
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
        "pair_states": dict(Counter(str(r.pair.state) for r in results)),
        "rejected": dict(reasons),
    }


def _missing_ids(gap: Gap) -> npt.NDArray[Any]:
    return missing_features(gap.anchor, gap.seed, features=gap.features, act_threshold=gap.act_threshold)
