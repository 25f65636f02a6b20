"""Which SAE, dataset, task and coverage run the feature pages look at: asked for in the address, else the newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facviz.store.feature_table import TableScope
from facviz.store.manifest import Manifest
from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.views.format import count
from facviz.views.loop import coverage_runs

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DatasetChoice:
    """A dataset that an SAE has read."""

    dataset_id: str
    name: str
    role: str

    @property
    def label(self) -> str:
        """Its name with what it is used for."""
        return f"{self.name} · {self.role}" if self.role and self.role != self.name else self.name


@dataclass(frozen=True, slots=True)
class Looked:
    """The chosen SAE, dataset and task, and what else could be chosen."""

    sae_id: str
    dataset: DatasetChoice
    task: str  # "" before any relevance was judged
    run: Row | None  # newest coverage run of this SAE and task
    source: str
    saes: Mapping[str, str]  # id → words
    datasets: Sequence[DatasetChoice]
    tasks: Sequence[str]

    @property
    def table(self) -> TableScope:
        """What the store needs to know of it."""
        coverage_id = self.run["coverage_id"] if self.run else ""
        return TableScope(self.sae_id, self.dataset.dataset_id, self.task, self.source, coverage_id)

    def act_threshold(self, p95_act: float | None) -> float | None:
        """δ of a feature in the run, given its 95th percentile on the anchor set; None where it is unknown."""
        if self.run is None:
            return None
        if self.run["threshold_kind"] == "absolute":
            return float(self.run["act_threshold"])
        return None if p95_act is None or p95_act != p95_act else float(self.run["act_threshold"]) * p95_act


def look(queries: Queries, manifest: Manifest, *, sae: str = "", dataset: str = "", task: str = "") -> Looked | None:
    """What the pages show; wishes that do not exist fall back to the newest. None before any SAE has read a dataset."""
    runs = coverage_runs(queries, manifest)
    read: dict[str, set[str]] = {}
    for row in queries.rows("encoded_datasets", mode=MODE):
        read.setdefault(row["sae_id"], set()).add(row["dataset_id"])
    saes = {row["sae_id"]: _sae_words(row) for row in queries.rows("saes") if row["sae_id"] in read}
    if not saes:
        return None
    newest = runs[-1]["sae_id"] if runs and runs[-1]["sae_id"] in saes else list(saes)[-1]
    sae_id = sae if sae in saes else newest
    judged = queries.rows("relevance_tasks", sae_id=sae_id)
    tasks = list(dict.fromkeys(row["task"] for row in judged))
    runs = [r for r in runs if r["sae_id"] == sae_id]
    chosen = task if task in tasks else runs[-1]["task"] if runs else (tasks[-1] if tasks else "")
    run = next((r for r in reversed(runs) if r["task"] == chosen), None)
    sources = [r["source"] for r in judged if r["task"] == chosen]
    datasets = _datasets(queries, read[sae_id], run)
    return Looked(
        sae_id=sae_id,
        dataset=next((d for d in datasets if d.name == dataset), datasets[0]),
        task=chosen,
        run=run,
        source=run["relevance_source"] if run else sources[-1] if sources else "",
        saes=saes,
        datasets=datasets,
        tasks=tasks,
    )


def _datasets(queries: Queries, read: set[str], run: Row | None) -> list[DatasetChoice]:
    """Those this SAE has read; the run's anchor and seed first."""
    rows = [r for r in queries.rows("datasets") if r["dataset_id"] in read]
    found = [DatasetChoice(r["dataset_id"], r["name"], r["role"] or "") for r in rows]
    found += [DatasetChoice(i, i, "") for i in sorted(read - {d.dataset_id for d in found})]
    first = [run["anchor"], run["seed"]] if run else []
    order = {"anchor": 2, "seed": 3}
    return sorted(found, key=lambda d: (first.index(d.name) if d.name in first else order.get(d.role, 4), d.name))


def _sae_words(row: Row) -> str:
    return f"{count(row['d_sae'])} features, layer {row['layer']} · {row['sae_id'][:6]}"
