"""The loop of a workspace stage by stage: what each did, in numbers, where it stands, and what comes next."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from facviz.records import ExplanationOutcome, Verdict
from facviz.store.manifest import Manifest
from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.views.format import count, percent

StageState = Literal["done", "running", "next", "waiting"]
Row = Mapping[str, Any]

DECIDED = ("accepted", "edited", "rejected", "flagged")
"""What a person can have made of an explanation; one that was only skipped still waits."""
JOB_STAGES = {
    "data": "data",
    "capture": "sae",
    "sae": "sae",
    "spans": "spans",
    "explain": "explanations",
    "relevance": "relevance",
    "coverage": "coverage",
    "synthesize": "synthesis",
}
"""Which stage a command works on."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the tables say about one SAE and one coverage run, rows as read."""

    datasets: Sequence[Row]
    sae: Row | None
    encoded: Mapping[str, Row]  # by dataset_id, for this SAE
    explanations: Sequence[Row]
    relevance: Sequence[Row]
    run: Row | None
    synthesis: Row | None  # its summary

    @property
    def anchor(self) -> Row | None:
        """The dataset of the run, else the one with the role, else the largest."""
        return self._dataset("anchor") or max(self.datasets, key=lambda d: int(d["n_docs"]), default=None)

    @property
    def seed(self) -> Row | None:
        """The dataset of the run, else the one with the role, else the newest that is not the anchor."""
        anchor = self.anchor
        others = [d for d in self.datasets if anchor is not None and d["name"] != anchor["name"]]
        return self._dataset("seed") or (others[-1] if others else None)

    @property
    def unread(self) -> list[Row]:
        """Datasets of the comparison that this SAE has not encoded yet."""
        wanted = [d for d in (self.anchor, self.seed) if d is not None]
        return [d for d in wanted if d["dataset_id"] not in self.encoded]

    @property
    def n_explained(self) -> int:
        """Features with an explanation."""
        return sum(r["n"] for r in self.explanations if r["outcome"] == ExplanationOutcome.EXPLAINED)

    def n_reviewed(self, *statuses: str) -> int:
        """Explained features that a person gave one of these statuses, or any."""
        explained = [r for r in self.explanations if r["outcome"] == ExplanationOutcome.EXPLAINED]
        return sum(r["n"] for r in explained if r["status"] in (statuses or DECIDED))

    def _dataset(self, role: str) -> Row | None:
        if self.run is not None:
            return next((d for d in self.datasets if d["name"] == self.run[role]), None)
        return next((d for d in reversed(self.datasets) if d["role"] == role), None)


@dataclass(frozen=True, slots=True)
class Stage:
    """One card of the sequence; `page` is where its results are."""

    number: int
    key: str
    name: str
    state: StageState
    did: str
    page: str


def read_facts(queries: Queries, manifest: Manifest, coverage_id: str = "") -> Facts:
    """The newest coverage run, or the one named; without any, the newest SAE."""
    run = next((r for r in reversed(coverage_runs(queries, manifest)) if coverage_id in ("", r["coverage_id"])), None)
    saes = queries.rows("saes")
    wanted = run["sae_id"] if run else None
    sae = next((s for s in reversed(saes) if wanted in (None, s["sae_id"])), None)
    sae_id = sae["sae_id"] if sae else ""
    encoded = [r for r in queries.rows("encoded_datasets", mode=MODE) if r["sae_id"] == sae_id]
    fills = [s for s in manifest.latest_done("synthesize").values() if run and s["coverage_id"] == run["coverage_id"]]
    relevance = [r for r in queries.rows("relevance_counts", sae_id=sae_id) if r["source"] != "human"]
    return Facts(
        datasets=queries.rows("datasets"),
        sae=sae,
        encoded={r["dataset_id"]: r for r in encoded},
        explanations=queries.rows("explanation_states", sae_id=sae_id),
        relevance=[r for r in relevance if run is None or _names(r) == _names(run)],
        run=run,
        synthesis=fills[-1] if fills else None,
    )


def coverage_runs(queries: Queries, manifest: Manifest) -> list[dict[str, Any]]:
    """Coverage runs in the order they were last asked for, the newest last."""
    order = {name: i for i, name in enumerate(manifest.latest_done("coverage"))}
    return sorted(queries.rows("coverage"), key=lambda r: order.get(r["coverage_id"], -1))


def list_stages(facts: Facts, running: Collection[str] = ()) -> list[Stage]:
    """All eight, in order; the first that is neither done nor running is next."""
    stages, is_next_found = [], False
    for i, (key, (name, page)) in enumerate(_STAGES.items(), start=1):
        did, is_done = _DESCRIBE[key](facts)
        state: StageState = "running" if key in running else "done" if is_done else "waiting"
        if state == "waiting" and not is_next_found:
            state, is_next_found = "next", True
        is_next_found |= state == "running" and not is_done
        stages.append(Stage(i, key, name, state, did, page))
    return stages


_STAGES = {
    "data": ("Data", "data"),
    "sae": ("SAE", "sae"),
    "spans": ("Spans", "features"),
    "explanations": ("Explanations", "features"),
    "relevance": ("Relevance", "coverage"),
    "coverage": ("Coverage", "coverage"),
    "synthesis": ("Synthesis", "synthesis"),
    "review": ("Review", "review"),
}


def _names(row: Row) -> tuple[str, str]:
    return row["task"], row.get("relevance_source") or row["source"]


def _data(facts: Facts) -> tuple[str, bool]:
    if not facts.datasets:
        return "Add the texts to compare.", False
    docs, tokens = (sum(int(d[k] or 0) for d in facts.datasets) for k in ("n_docs", "n_content_tokens"))
    n = len(facts.datasets)
    return f"{n} data set{'s' * (n != 1)}, {count(docs)} texts, {count(tokens)} content tokens", n > 1


def _sae(facts: Facts) -> tuple[str, bool]:
    if facts.sae is None:
        return "Train or load the autoencoder that names what the model notices.", False
    fvu = json.loads(facts.sae["metrics"] or "{}").get("fvu")
    quality = "" if fvu is None else f", explain {percent(1 - fvu)} of the variance"
    return f"{count(facts.sae['d_sae'])} features at layer {facts.sae['layer']}{quality}", True


def _spans(facts: Facts) -> tuple[str, bool]:
    if not facts.encoded:
        return "Find where every feature fires.", False
    most = max(int(r["n_active"]) for r in facts.encoded.values())
    sets = len(facts.encoded)
    return f"{count(most)} features fire; {sets} data set{'s' * (sets != 1)} read", not facts.unread


def _explanations(facts: Facts) -> tuple[str, bool]:
    total = sum(int(r["n"]) for r in facts.explanations)
    if not total:
        return "Say in words what each feature responds to.", False
    return f"{count(facts.n_explained)} of {count(total)} features explained", True


def _relevance(facts: Facts) -> tuple[str, bool]:
    if not facts.relevance:
        return "Judge which features matter to the task.", False
    newest = _names(facts.relevance[-1])
    judged = [r for r in facts.relevance if _names(r) == newest]
    matter = sum(r["n"] for r in judged if r["verdict"] != Verdict.NO)
    return f"{count(matter)} of {count(sum(r['n'] for r in judged))} features matter to {newest[0]}", True


def _coverage(facts: Facts) -> tuple[str, bool]:
    run = facts.run
    if run is None:
        return "Measure which of them the seed set lacks.", False
    return f"{count(run['n_anchor'] - run['n_missing'])} covered, {count(run['n_missing'])} missing", True


def _synthesis(facts: Facts) -> tuple[str, bool]:
    done = facts.synthesis
    if done is None:
        return "Write texts that activate the missing features.", False
    return f"{count(done['n_filled'])} of {count(done['n_attempted'])} tried features filled", True


def _review(facts: Facts) -> tuple[str, bool]:
    if not facts.n_explained:
        return "Let people check the explanations.", False
    parts = {status: facts.n_reviewed(status) for status in DECIDED}
    shown = ", ".join(f"{count(n)} {status}" for status, n in parts.items() if n) or "none"
    return f"{shown} of {count(facts.n_explained)} explanations", facts.n_reviewed() >= facts.n_explained


_DESCRIBE = {
    "data": _data,
    "sae": _sae,
    "spans": _spans,
    "explanations": _explanations,
    "relevance": _relevance,
    "coverage": _coverage,
    "synthesis": _synthesis,
    "review": _review,
}


def describe_threshold(run: Row) -> str:
    """The δ of a coverage run with its unit: `δ 1 × p95`, `δ 0.5 absolute`."""
    unit = "× p95" if run["threshold_kind"] == "relative" else "absolute"
    return f"δ {run['act_threshold']:g} {unit}"


def spans_arguments(sae_id: str, datasets: Sequence[str]) -> tuple[str, ...]:
    """`facviz spans` of one SAE over these datasets."""
    return ("spans", f"--sae={sae_id}", *(f"--dataset={name}" for name in datasets))


def explain_arguments(sae_id: str, dataset: str) -> tuple[str, ...]:
    """`facviz explain` from the spans of this dataset."""
    return ("explain", f"--sae={sae_id}", f"--dataset={dataset}")
