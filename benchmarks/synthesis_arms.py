"""One arm: a strategy with one seed on one study, run to its end, and what every sample activates."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthesis_scores import EQUAL_TOTAL
from benchmarks.synthesis_studies import Prepared
from facviz.config import SynthesisConfig, fingerprint
from facviz.files import write_text_atomically
from facviz.pipeline.sae import open_sae
from facviz.pipeline.synthesis import synthesize
from facviz.prompts import load_task
from facviz.records import Document, Message
from facviz.synthesis.asking import ASKING_VERSION
from facviz.synthesis.baselines import BASELINES, RANDOM_FEATURE
from facviz.synthesis.copying import ONLY_COPIED
from facviz.synthesis.gates import GATES_VERSION
from facviz.synthesis.steered import PER_STRENGTH, STRENGTHS
from facviz.synthesis.strategies import PAIRS, TUNE

N_PAIR = 4
"""Candidates a target of step 1, beside the others: only the pair is made of them (paper Algorithm 2)."""
N_TUNING = len(STRENGTHS) * PER_STRENGTH
"""Candidates a target beside the others, by which a strategy that pushes chooses its push."""
ENGINE = [ASKING_VERSION, GATES_VERSION]
"""A record that another engine made is made again."""
TWO_STEPS = ("paper", "paper+steered", RANDOM_FEATURE)
ARMS = ("one-step", "paper", "steered", "paper+steered", *BASELINES, *EQUAL_TOTAL)


@dataclass(frozen=True, slots=True)
class Plan:
    """What every arm gets."""

    n_targets: int = 40
    n_candidates: int = 8
    """Candidates a target that may be accepted; what pairs and pushes are made of is drawn beside them."""
    n_wanted: int | None = None
    """Accepted samples after which a target draws no more; None draws all, so that arms compare."""
    passes: int = 1
    """Rounds over all targets; each but the first draws as many again for those that no sample activates."""
    max_tokens: int = 40
    temperature: float = 0.8
    n_seeds: int = 3
    batch: int = 32
    at_once: int = 8

    def config(self, arm: str, targets: Sequence[int], rng_seed: int) -> SynthesisConfig:
        """Nothing stops early but by `n_wanted`, so arms draw the same; one draws what others draw beside as well."""
        n = self.n_candidates
        if arm in EQUAL_TOTAL:
            arm = EQUAL_TOTAL[arm]
            n += N_TUNING if arm in TWO_STEPS else N_TUNING + N_PAIR
        first = min(N_PAIR, n // 2) if arm in TWO_STEPS else n // 2
        counted = n if arm in (*TWO_STEPS, "steered") else n - first
        return SynthesisConfig(
            strategy=arm,  # type: ignore[arg-type]
            features=tuple(targets),
            per_feature=self.n_wanted or n,
            pair_candidates=2 if arm == "steered" else first,  # nothing is drawn of a step that there is not
            max_candidates=counted,
            passes=self.passes,
            batch=self.batch,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            features_at_once=self.at_once,
            rng_seed=rng_seed,
        )


def arm_path(folder: Path, study: str, arm: str, rng_seed: int) -> Path:
    """Where an arm's record stands."""
    return folder / "arms" / f"{study}-{arm}-{rng_seed}.json".replace(" ", "_")


def run_arm(prepared: Prepared, arm: str, rng_seed: int, plan: Plan, folder: Path) -> dict[str, Any]:
    """The record of an arm, from its file if it is there; a killed arm goes on by its own ledger."""
    config = plan.config(arm, prepared.targets, rng_seed)
    key = fingerprint(config, prepared.gap["coverage_id"], arm)
    path = arm_path(folder, prepared.study.name, arm, rng_seed)
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known["key"] == key and known.get("engine") == ENGINE:
            return known
    started = time.monotonic()
    with prepared.session.workspace.lock():
        told = synthesize(prepared.session, prepared.measured, prepared.study.coverage, config)
    record = {"key": key, "engine": ENGINE, "study": prepared.study.name, "arm": arm, "rng_seed": rng_seed}
    record |= describe(prepared, told["synth_id"], config) | {"seconds": round(time.monotonic() - started, 1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(record, ensure_ascii=False) + "\n")
    return record


def describe(prepared: Prepared, synth_id: str, config: SynthesisConfig) -> dict[str, Any]:
    """Counts of a run, and for every sample its share of each target's δ, encoded alone from its text."""
    with prepared.session.workspace.reader() as reader:
        rows = reader.rows("candidates", synth_id=synth_id)
    units = units_of(rows, config.strategy, prepared.targets)
    roles = load_task(prepared.gap["task"]).roles
    encoder = prepared.session.encoder(open_sae(prepared.session, prepared.gap["sae_id"]), roles)
    thresholds = np.array(prepared.act_threshold)
    samples = []
    for row, unit in zip(rows, units):
        if row["accepted"] or row["reject_reason"] == ONLY_COPIED:
            document = Document(tuple(Message(m["role"], m["content"]) for m in row["messages"]))
            acts = encoder.encode_alone(document).max_acts[0, list(prepared.targets)].toarray().ravel()
            shares = (acts / thresholds).round(4).tolist()
            samples.append({"unit": unit, "accepted": bool(row["accepted"]), "shares": shares})
    counted = [unit for row, unit in zip(rows, units) if row["step"] not in (PAIRS, TUNE)]
    return {
        "synth_id": synth_id,
        "n_units": len(prepared.targets),
        "drawn": [counted.count(unit) for unit in range(len(prepared.targets))],
        "n_beside": len(rows) - len(counted),
        "samples": samples,
        "reasons": dict(Counter(row["reject_reason"] for row in rows if row["reject_reason"]).most_common()),
        "steps": dict(Counter(row["step"] for row in rows)),
        "generator": rows[0]["generator"],
    }


def units_of(rows: Sequence[Mapping[str, Any]], strategy: str, targets: Sequence[int]) -> list[int]:
    """Which equal part of the budget each candidate was drawn from: its target, or its place in the pool."""
    if strategy == RANDOM_FEATURE:
        aimed_at = [json.loads(row["gates"])["aimed_at"] for row in rows]
        places = {feature: place for place, feature in enumerate(sorted(set(aimed_at)))}
        return [places[feature] for feature in aimed_at]
    if strategy in BASELINES:
        units = [0] * len(rows)
        for place, i in enumerate(sorted(range(len(rows)), key=lambda i: (rows[i]["round"], rows[i]["slot"]))):
            units[i] = place * len(targets) // len(rows)
        return units
    places = {feature: place for place, feature in enumerate(targets)}
    return [places[row["feature_id"]] for row in rows]
