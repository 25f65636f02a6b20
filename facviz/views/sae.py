"""Sparse autoencoders as people judge them: quality, densities, where they come from, and what training would cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facviz.records import Floats
from facviz.store.queries import Queries
from facviz.store.schema import MODE
from facviz.store.training import SERIES, TRAINING_FILE, TrainingCourse, read_training
from facviz.store.workspace import Workspace
from facviz.views.format import Real, count, number, short

Row = Mapping[str, Any]

_NO_NOTES = ("format", "recognised_by", "trainer")
_MAX_NOTES = 20


@dataclass(frozen=True, slots=True)
class SaeRow:
    """One SAE; None where nobody measured."""

    sae_id: str
    backbone: str
    layer: int
    hook_name: str
    architecture: str
    d_in: int
    d_sae: int
    k: int | None
    fvu: float | None
    l0: float | None
    n_dead: int | None
    n_always_on: int | None
    n_tokens: int | None
    offset_ratio: float | None
    """γ = ‖μ‖ / ‖σ‖ of the activations it was trained on."""
    site: str
    provenance: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    """What its file did not say and was inferred, and what was folded into its weights."""
    is_trained_here: bool

    @property
    def name(self) -> str:
        """Short, and telling it from its neighbours."""
        return f"{self.sae_id[:6]} · {self.architecture} · {count(self.d_sae)}" + (f" · k {self.k}" if self.k else "")


@dataclass(frozen=True, slots=True)
class Encoding:
    """A dataset that an SAE has read: which features fire there."""

    dataset: str
    dataset_id: str
    n_features: int
    n_active: int
    n_always_on: int


@dataclass(frozen=True, slots=True)
class TrainedBefore:
    """A finished training whose time is known: its size in content tokens, and how long all of it took."""

    tokens: int
    epochs: int
    d_sae: int
    seconds: float


def list_saes(queries: Queries, measured: Mapping[str, Row] | None = None) -> list[SaeRow]:
    """Every SAE, the newest last; `measured` adds what was found of it later, by sae_id."""
    return [_sae_row(row, (measured or {}).get(row["sae_id"], {})) for row in queries.rows("saes")]


def list_encodings(queries: Queries, sae_id: str) -> list[Encoding]:
    """The datasets this SAE has read, in the order they were added."""
    found = {r["dataset_id"]: r for r in queries.rows("encoded_datasets", mode=MODE) if r["sae_id"] == sae_id}
    names = ("n_features", "n_active", "n_always_on")
    return [
        Encoding(d["name"], d["dataset_id"], **{n: found[d["dataset_id"]][n] for n in names})
        for d in queries.rows("datasets")
        if d["dataset_id"] in found
    ]


def densities(queries: Queries, sae_id: str, dataset_id: str) -> npt.NDArray[np.float64]:
    """Share of a dataset's content tokens on which each feature is active, [d_sae]."""
    found: Floats = queries.named("stats", sae_id=sae_id, dataset_id=dataset_id, mode=MODE)["density"].to_numpy()
    return found.astype(np.float64)


def finished_course(workspace: Workspace, sae_id: str) -> TrainingCourse | None:
    """How the training of an SAE went; None for one that was loaded or whose course was not kept."""
    return read_training(workspace.sae_folder(sae_id))


def running_courses(root: Path, since: float) -> dict[str, TrainingCourse]:
    """By sae_id, the courses of trainings that wrote after `since` (seconds since 1970)."""
    folders = [path.parent for path in sorted(root.glob(f"sae/*/{TRAINING_FILE}")) if path.stat().st_mtime >= since]
    courses = {folder.name: read_training(folder) for folder in folders}
    return {sae_id: course for sae_id, course in courses.items() if course is not None}


def course_words(course: TrainingCourse) -> str:
    """Where a course ends, in words, for who cannot see the curves."""
    latest = {name: number(course.series[name][-1]) for name in SERIES}
    where = f"step {count(course.steps[-1])} of {count(course.n_steps)}"
    return f"{where}: loss {latest['loss']}, FVU {latest['fvu']}, L0 {latest['l0']}, {latest['n_dead']} dead features"


def estimate_seconds(tokens: int, epochs: int, d_sae: int, before: TrainedBefore | None) -> float | None:
    """The time of the last training here, scaled by tokens × epochs × features; None when none is known."""
    if before is None or not before.tokens * before.epochs * before.d_sae:
        return None
    return before.seconds * (tokens * epochs * d_sae) / (before.tokens * before.epochs * before.d_sae)


def backbone_flags(workspace: Workspace, queries: Queries) -> tuple[str, ...]:
    """Flags that keep a new stage on the model of the newest SAE, where the workspace itself remembers none."""
    saes = queries.rows("saes")
    if "backbone" in workspace.meta or not saes:
        return ()
    used = json.loads(saes[-1]["provenance"] or "{}").get("backbone", {})
    flags = {"backbone": used.get("name"), "layer": used.get("layer"), "site": used.get("site")}
    flags |= {"max-tokens-per-doc": used.get("max_tokens")}
    return tuple(f"--{name}={value}" for name, value in flags.items() if value is not None)


def headline(row: SaeRow, encodings: Sequence[Encoding]) -> tuple[tuple[str, str, str], ...]:
    """Label, value and explanation of the four numbers an SAE is judged by; unknown is a dash that says why."""
    dead, always_on, where = row.n_dead, row.n_always_on, "on texts it was not trained on"
    if dead is None and encodings:
        dead, always_on = encodings[0].n_features - encodings[0].n_active, encodings[0].n_always_on
        where = f"on {encodings[0].dataset}"
    why = "" if row.fvu is not None else " Not measured yet: a loaded SAE brings no measurement; measure it below."
    share = "" if dead is None else f" of {count(row.d_sae)}"
    return (
        ("FVU", number(row.fvu), f"Share of the variance that the SAE does not explain; lower is better.{why}"),
        ("L0", number(row.l0), f"Features active on a token, on average.{why}"),
        ("Dead features", f"{count(dead)}{share}", f"Never active {where}."),
        ("Always-on features", count(always_on), f"Active on more than 10 % of tokens {where}; not counted in FAC."),
    )


def _sae_row(row: Row, measured: Row) -> SaeRow:
    provenance = json.loads(row["provenance"] or "{}")
    metrics = json.loads(row["metrics"] or "{}")
    found = metrics if metrics.get("fvu") is not None else measured
    weights = provenance.get("weights", {})
    return SaeRow(
        **{n: row[n] for n in ("sae_id", "backbone", "layer", "architecture", "d_in", "d_sae")},
        k=row["k"] or None,
        hook_name=str(provenance.get("hook_name", "")),
        fvu=found.get("fvu"),
        l0=found.get("l0"),
        n_dead=found.get("dead"),
        n_always_on=found.get("n_always_on"),
        n_tokens=weights.get("n_training_tokens"),
        offset_ratio=weights.get("offset_ratio"),
        site=str((provenance.get("backbone") or {}).get("site") or "resid"),
        notes=_notes(weights),
        provenance=_provenance(row, provenance, weights),
        is_trained_here=weights.get("trainer") == "facviz",
    )


def _provenance(row: Row, provenance: Row, weights: Row) -> tuple[tuple[str, str], ...]:
    """Name and value of what decides whether two SAEs can be compared."""
    config, recipe = weights.get("config") or {}, weights.get("recipe") or {}
    facts: list[tuple[str, object]] = [
        ("SAE", row["sae_id"]),
        ("Model", row["backbone"]),
        ("Layer", f"{row['layer']}, read at {provenance.get('hook_name', '–')}"),
        ("Model's identity", provenance.get("identity")),
        ("Dimensions read", _known(row["d_in"])),
        ("Loaded from the format", weights.get("format")),
        ("Recognised by", weights.get("recognised_by")),
        ("Tokens seen in training", _known(weights.get("n_training_tokens"))),
        ("Steps", _known(recipe.get("n_steps"))),
        ("Batch", _known(config.get("batch_tokens"), " tokens")),
        ("Learning rate", number(recipe["learning_rate"]) if recipe.get("learning_rate") else None),
        ("Offset ratio γ", number(weights["offset_ratio"]) if weights.get("offset_ratio") else None),
        ("Seed of randomness", config.get("rng_seed")),
    ]
    return tuple((name, short(str(value), 200)) for name, value in facts if value is not None)


def _notes(weights: Row) -> tuple[str, ...]:
    """What a format module noted beside the format itself, shortened: it may quote the file."""
    stated = weights.get("notes")
    listed = [str(note) for note in stated] if isinstance(stated, list) else []
    inferred = {k: v for k, v in weights.items() if isinstance(v, str) and k not in _NO_NOTES}
    listed += [f"{key.replace('_', ' ')}: {value}" for key, value in inferred.items()]
    return tuple(short(note, 200) for note in listed[:_MAX_NOTES])


def _known(value: Real, unit: str = "") -> str | None:
    return None if value is None else f"{count(value)}{unit}"
