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
from facviz.pipeline.synthesis_inputs import read_brief
from facviz.prompts import load_task
from facviz.records import Candidate
from facviz.store.gap import read_gap
from facviz.store.reader import Reader
from facviz.synthesis.formats import Invalid, Parsed, format_of
from facviz.synthesis.formats.base import WITHHELD, all_text
from facviz.synthesis.labelling import LabelGate
from facviz.synthesis.measuring import act_of
from facviz.synthesis.pairs import pair_messages
from facviz.synthesis.plan import FeatureBrief
from facviz.synthesis.safety import is_withheld


def verify_edit(
    session: Session,
    candidate_id: str,
    text: str,
    config: SynthesisConfig | None = None,
    *,
    judge: LabelGate | None = None,
) -> dict[str, Any]:
    """What the model and the gates say of a candidate's text as somebody changed it; nothing is written.

    Keys: `act`, `act_threshold`, `accepted`, `reject_reason`, `gates`, `peak_token`, and what the text came to: `text`,
    `messages`, `fields`. Without a `config` the gates are as strict as those the candidate met; without a `judge`
    nobody judges the label. A sample of several parts is edited in the plain layout of its task's format
    (`editable_text`); one that breaks the format is turned down as any other.

    Raises:
        InputError: there is no such candidate, or the run it came from is gone.
    """
    with session.workspace.reader() as reader:
        row = _candidate(reader, candidate_id)
        config = config or _as_strict_as(json.loads(row["gates"] or "{}"))
        measured = _coverage_run(reader, row)
        coverage = _coverage_config(measured)
        sae_id, task = measured["sae_id"], load_task(measured["task"])
        brief = read_brief(reader, measured, coverage, config, row["feature_id"])
        shown = _shown(reader, row, brief)
        corpora = Corpora.read(reader, coverage.anchor, coverage.seed)
        others = _other_samples(reader, row)
        gap = read_gap(reader, sae_id, measured["task"], measured["relevance_source"], coverage)
    sample = brief.format.parse(text) if row["fields"] else brief.format.restore(text.strip(), {})
    if isinstance(sample, Invalid):
        unread = brief.format.restore(text.strip(), {})
        return _told(brief, unread, 0.0, -1, {}, sample.reason)
    encoder = session.encoder(open_sae(session, sae_id), task.roles)
    alone = encoder.encode_alone(sample.document)
    act, peak = act_of(alone, 0, brief.feature_id)
    checks = build_gates(session, corpora, gap, encoder, task, config, samples=others, judge=judge)
    gates, reason = checks.text.check(sample.text, shown)
    gates |= {"verified_act": act}
    if reason is None and not (act > brief.bar and act > 0):
        reason = "target does not fire alone"
    if reason is None and is_withheld(all_text(sample)):
        reason = WITHHELD
    if reason is None:
        edited = _edited(row, sample, act, peak, gates)
        measures, reason = checks.after.check(brief, edited, shown, alone)
        gates |= measures
    return _told(brief, sample, act, peak, gates, reason)


def editable_text(task: str, text: str, fields: Mapping[str, Any] | None) -> str:
    """A sample as it is edited: the text, or its labelled parts where it has several."""
    form = format_of(load_task(task))
    return form.layout(form.restore(text, fields)) if fields else text


def _told(
    brief: FeatureBrief, sample: Parsed, act: float, peak: int, gates: Mapping[str, Any], reason: str | None
) -> dict[str, Any]:
    return {
        "act": act,
        "act_threshold": brief.act_threshold,
        "accepted": reason is None,
        "reject_reason": reason,
        "gates": dict(gates),
        "peak_token": peak,
        "text": sample.text,
        "messages": [dataclasses.asdict(message) for message in sample.document.messages],
        "fields": dict(sample.fields) or None,
    }


def _as_strict_as(gates: Mapping[str, Any]) -> SynthesisConfig:
    """Settings of the gates by what they recorded; the defaults for a candidate that no such gate saw."""
    if "anti_copy" not in gates:
        return SynthesisConfig()
    return SynthesisConfig(anti_copy=gates["anti_copy"], embedding_gate=gates.get("near_cosine") is not None)


def _edited(row: Mapping[str, Any], sample: Parsed, act: float, peak: int, gates: Mapping[str, Any]) -> Candidate:
    """The candidate with its new text and measures, as the gates take it."""
    kept = {f.name: row[f.name] for f in dataclasses.fields(Candidate)}
    changed = {"text": sample.text, "fields": sample.fields or None, "act": act, "peak_token": peak, "gates": gates}
    return Candidate(**kept | changed | {"accepted": False, "reject_reason": None})


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
