"""One arm: a strategy with one seed on one study, run to its end, and what every sample activates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.synthesis_studies import Prepared
from facviz.config import SynthesisConfig, fingerprint
from facviz.files import write_text_atomically
from facviz.pipeline.sae import open_sae
from facviz.pipeline.synthesis import synthesize
from facviz.prompts import load_task
from facviz.records import Document, Message
from facviz.synthesis.baselines import BASELINES, RANDOM_FEATURE

TARGETED = ("one-step", "paper", "steered", "paper+steered")
STRATEGIES = (*TARGETED, *BASELINES)
ANTI_COPY = "target leans on copied words"
"""Why the anti-copy gate turns a sample down; scored as accepted where the gate is thought away."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What every arm gets."""

    n_targets: int = 40
    n_candidates: int = 8
    """Candidates a target, all steps together."""
    max_tokens: int = 40
    n_seeds: int = 3
    batch: int = 32
    at_once: int = 8

    def config(self, strategy: str, targets: Sequence[int], rng_seed: int) -> SynthesisConfig:
        """Half of the candidates are of step 1 where there are two; nothing stops early, so all arms draw the same."""
        first = self.n_candidates // 2
        return SynthesisConfig(
            strategy=strategy,  # type: ignore[arg-type]
            features=tuple(targets),
            per_feature=self.n_candidates,
            pair_candidates=first,
            max_candidates=self.n_candidates - first,
            batch=self.batch,
            max_tokens=self.max_tokens,
            features_at_once=self.at_once,
            rng_seed=rng_seed,
        )


def arm_path(folder: Path, study: str, strategy: str, rng_seed: int) -> Path:
    """Where an arm's record stands."""
    return folder / "arms" / f"{study}-{strategy}-{rng_seed}.json"


def run_arm(prepared: Prepared, strategy: str, rng_seed: int, plan: Plan, folder: Path) -> dict[str, Any]:
    """The record of an arm, from its file if it is there; a killed arm goes on by its own ledger."""
    key = fingerprint(asdict(plan), prepared.gap["coverage_id"], prepared.targets, strategy, rng_seed)
    path = arm_path(folder, prepared.study.name, strategy, rng_seed)
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known["key"] == key:
            return known
    config = plan.config(strategy, prepared.targets, rng_seed)
    with prepared.session.workspace.lock():
        told = synthesize(prepared.session, prepared.measured, prepared.study.coverage, config)
    record = {"key": key, "study": prepared.study.name, "strategy": strategy, "rng_seed": rng_seed}
    record |= describe(prepared, told["synth_id"], strategy, plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(record, ensure_ascii=False) + "\n")
    return record


def describe(prepared: Prepared, synth_id: str, strategy: str, plan: Plan) -> dict[str, Any]:
    """Counts of a run, and for every sample its share of each target's δ, encoded alone from its text."""
    with prepared.session.workspace.reader() as reader:
        rows = reader.rows("candidates", synth_id=synth_id)
    units = units_of(rows, strategy, prepared.targets, plan.n_candidates)
    roles = load_task(prepared.gap["task"]).roles
    encoder = prepared.session.encoder(open_sae(prepared.session, prepared.gap["sae_id"]), roles)
    samples = []
    for row, unit in zip(rows, units):
        if not (row["accepted"] or row["reject_reason"] == ANTI_COPY):
            continue
        document = Document(tuple(Message(m["role"], m["content"]) for m in row["messages"]))
        acts = encoder.encode_alone(document).max_acts[0, list(prepared.targets)].toarray().ravel()
        shares = [round(float(a) / t, 4) if t > 0 else float(a > 0) * 2 for a, t in zip(acts, prepared.act_threshold)]
        samples.append({"unit": unit, "accepted": bool(row["accepted"]), "shares": shares, "words": len(row["text"].split())})
    return {
        "synth_id": synth_id,
        "n_units": len(prepared.targets),
        "drawn": [units.count(unit) for unit in range(len(prepared.targets))],
        "samples": samples,
        "reasons": dict(Counter(row["reject_reason"] for row in rows if row["reject_reason"]).most_common()),
        "steps": dict(Counter(row["step"] for row in rows)),
        "generator": rows[0]["generator"] if rows else "",
    }


def units_of(
    rows: Sequence[Mapping[str, Any]], strategy: str, targets: Sequence[int], n_candidates: int
) -> list[int]:
    """Which equal part of the budget each candidate was drawn from: its target, or its place in the pool."""
    if strategy == RANDOM_FEATURE:
        aimed_at = [json.loads(row["gates"])["aimed_at"] for row in rows]
        places = {feature: place for place, feature in enumerate(sorted(set(aimed_at)))}
        return [places[feature] for feature in aimed_at]
    if strategy in BASELINES:
        order = sorted(range(len(rows)), key=lambda i: (rows[i]["round"], rows[i]["slot"]))
        units = [0] * len(rows)
        for place, i in enumerate(order):
            units[i] = min(place // n_candidates, len(targets) - 1)
        return units
    places = {feature: place for place, feature in enumerate(targets)}
    return [places[row["feature_id"]] for row in rows]
