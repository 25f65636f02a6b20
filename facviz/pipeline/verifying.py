"""An edited sample, proved anew: encoded alone from the text as edited, and held against every gate."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from facviz.config import CoverageConfig, SynthesisConfig
from facviz.errors import InputError
from facviz.pipeline.gating import Corpora, build_gates
from facviz.pipeline.sae import open_sae
from facviz.pipeline.session import Session
from facviz.pipeline.synthesis_inputs import read_briefs
from facviz.prompts import load_task
from facviz.records import Candidate, Document
from facviz.store.gap import read_gap
from facviz.store.reader import Reader
from facviz.synthesis.formats import Invalid, format_of
from facviz.synthesis.labelling import LabelGate
from facviz.synthesis.pairs import pair_messages
from facviz.synthesis.plan import FeatureBrief


def verify_edit(
    session: Session,
    candidate_id: str,
    text: str,
    config: SynthesisConfig | None = None,
    *,
    judge: LabelGate | None = None,
) -> dict[str, Any]:
    """What the model and the gates say of a candidate's text as somebody changed it; nothing is written.

    A candidate of several parts is changed as `editable` gives it. Keys: `act`, `act_threshold`, `accepted`,
    `reject_reason`, `gates`, `peak_token`, and what the text came to: `text`, `messages`, `fields`. Without a
    `config` the gates are as strict as those the candidate met; without a `judge` nobody judges the label.

    Raises:
        InputError: there is no such candidate, or the run it came from is gone.
    """
    with session.workspace.reader() as reader:
        row = _candidate(reader, candidate_id)
        config = config or _as_strict_as(json.loads(row["gates"] or "{}"))
        measured = _coverage_run(reader, row)
        coverage = _coverage_config(measured)
        sae_id, task = measured["sae_id"], load_task(measured["task"])
        [brief] = read_briefs(reader, measured, coverage, dataclasses.replace(config, features=(row["feature_id"],)))
        shown = _shown(reader, row, brief)
        corpora = Corpora.read(reader, coverage.anchor, coverage.seed)
        others = _other_samples(reader, row)
        gap = read_gap(reader, sae_id, measured["task"], measured["relevance_source"], coverage)
    encoder = session.encoder(open_sae(session, sae_id), task.roles)
    sample = _read(brief, row, text)
    alone = encoder.encode_alone(sample.document)
    act, peak = float(alone.max_acts[0, brief.feature_id]), int(alone.peaks[0, brief.feature_id]) - 1
    checks = build_gates(session, corpora, gap, encoder, task, config, samples=others, judge=judge)
    gates, reason = checks.text.check(sample.text, shown)
    reason = sample.failure or reason
    if reason is None and not (act > brief.bar and act > 0):
        reason = "target does not fire alone"
    gates |= {"verified_act": act}
    if reason is None:
        edited = _edited(row, sample, act, peak, gates)
        measures, reason = checks.after.check(brief, edited, shown, alone)
        gates |= measures
    return {
        "act": act,
        "act_threshold": brief.act_threshold,
        "accepted": reason is None,
        "reject_reason": reason,
        "gates": gates,
        "peak_token": peak,
        "text": sample.text,
        "messages": [dataclasses.asdict(message) for message in sample.document.messages],
        "fields": sample.fields,
    }


def editable(task: str, text: str, fields: str | None) -> str:
    """A stored sample as somebody changes it: the text itself, or all parts of it, each behind its label."""
    form = format_of(load_task(task))
    return form.layout(form.restore(text, json.loads(fields or "{}")))


@dataclasses.dataclass(frozen=True, slots=True)
class _Sample:
    """A changed text as it would be kept."""

    text: str
    document: Document
    fields: dict[str, Any] | None = None
    failure: str | None = None


def _read(brief: FeatureBrief, row: Mapping[str, Any], text: str) -> _Sample:
    """One message is kept to the letter; what has several parts must still have them."""
    if not row["fields"]:
        return _Sample(text, brief.document(text))
    sample = brief.format.parse(text)
    if isinstance(sample, Invalid):
        return _Sample(text, brief.document(text), failure=sample.reason)
    return _Sample(sample.text, sample.document, dict(sample.fields))


def _as_strict_as(gates: Mapping[str, Any]) -> SynthesisConfig:
    """Settings of the gates by what they recorded; the defaults for a candidate that no such gate saw."""
    if "anti_copy" not in gates:
        return SynthesisConfig()
    return SynthesisConfig(anti_copy=gates["anti_copy"], embedding_gate="near_cosine" in gates)


def _edited(row: Mapping[str, Any], sample: _Sample, act: float, peak: int, gates: Mapping[str, Any]) -> Candidate:
    """The candidate with its new text and measures, as the gates take it."""
    kept = {f.name: row[f.name] for f in dataclasses.fields(Candidate)}
    changed = {"act": act, "peak_token": peak, "gates": gates, "accepted": False, "reject_reason": None}
    return Candidate(**kept | changed | {"text": sample.text, "fields": sample.fields})


def _candidate(reader: Reader, candidate_id: str) -> dict[str, Any]:
    for row in reader.rows("candidate", candidate_id=candidate_id):
        return row
    raise InputError(f"There is no candidate {candidate_id!r} in this workspace; choose one of the Samples page.")


def _coverage_run(reader: Reader, row: Mapping[str, Any]) -> dict[str, Any]:
    for run in reader.rows("coverage"):
        if run["coverage_id"] == row["coverage_id"]:
            return run
    raise InputError(f"The coverage run {row['coverage_id']} of this candidate is gone; run `facviz coverage` again.")


def _coverage_config(measured: Mapping[str, Any]) -> CoverageConfig:
    return CoverageConfig(
        anchor=measured["anchor"],
        seed=measured["seed"],
        kind=measured["threshold_kind"],
        threshold=measured["act_threshold"],
        level=measured["level"],
    )


def _shown(reader: Reader, row: Mapping[str, Any], brief: FeatureBrief) -> list[str]:
    """Texts that the generator saw: the evidence, and the pair where one formed."""
    _, shown = pair_messages(brief)
    pairs = reader.rows("pair_texts", synth_id=row["synth_id"], feature_id=row["feature_id"])
    return shown + [pair[side] for pair in pairs for side in ("strong_text", "weak_text") if pair[side]]


def _other_samples(reader: Reader, row: Mapping[str, Any]) -> list[str]:
    own = row["candidate_id"]
    return [s["text"] for s in reader.rows("samples") if s["synth_id"] == row["synth_id"] and s["candidate_id"] != own]
