"""What the claim is tested on: corpora whose seed set lacks something, measured once, with the features aimed at."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gap_texts import DEMO, general_texts
from benchmarks.known_gaps import CHOICES, halves
from facviz.cli.progress import choose_progress
from facviz.config import (
    BackboneConfig,
    CoverageConfig,
    DatasetConfig,
    ExplainConfig,
    RelevanceConfig,
    SampleConfig,
    SpansConfig,
    fingerprint,
)
from facviz.coverage import doc_frequency
from facviz.files import write_text_atomically
from facviz.pipeline import coverage, data, explaining, features, judging, sae
from facviz.pipeline.session import Session
from facviz.pipeline.tasks import TaskDraft, save_task
from facviz.prompts import load_task, use_tasks
from facviz.store.gap import read_gap
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.workspace import TASKS_FOLDER, Workspace
from facviz.synthesis.plan import VERIFICATION_MARGIN

BACKBONE = BackboneConfig(layer=15, max_tokens=256)
RESCORED = (0.75, 1.0, 1.25)
"""δ at which the same samples are scored, in parts of the one they were aimed at."""
LACKING = ("code", "reviews", "news")
"""Themes that the seed set of `general` has nothing of."""
OTHER = "other"
MOST_OF_A_THEME, MOST_OTHER = 400, 1200
N_SAFE = 200
"""Of ToxicChat's harmless messages, for a seed set: a thousand of them leave nothing missing."""
GENERAL_TASK = TaskDraft(
    title="Messages of all kinds",
    description="A neutral task for measuring synthesis: what do people ask an assistant for?",
    points=("Belongs to one kind of request.",),
    roles=("user",),
    sample_request="Write one message, 5 to 60 words, that a person might type to a chat assistant.",
)
GAP_TASK = dataclasses.replace(
    GENERAL_TASK,
    title="Texts of all kinds",
    sample_request="Write one message, 5 to 100 words, that a person might type to a chat assistant.",
)
"""Longer, because a feature is the stronger the more text stands before its token: reviews and programs are long."""


@dataclass(frozen=True, slots=True)
class Study:
    """An anchor set, a seed set drawn from it, and how both are read."""

    name: str
    title: str
    datasets: tuple[DatasetConfig, ...]
    coverage: CoverageConfig
    relevance: RelevanceConfig | None = None
    """None: every feature counts."""
    task: str | TaskDraft = "topic"
    sae: Path = DEMO / "sae"
    backbone: BackboneConfig = BACKBONE
    folder: str = ""
    """Workspace, where several studies share one; empty is the study's own."""
    test: str = ""
    """Labelled dataset that evaluation scores on; it is no part of the measurement."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A study whose gap is measured."""

    study: Study
    session: Session
    measured: dict[str, Any]
    targets: tuple[int, ...]
    """Missing features aimed at, in the order in which a smaller share of them is taken."""
    act_threshold: tuple[float, ...]
    """δ of each target."""
    gap: dict[str, Any]
    """What the page says of the gap: sizes, saturation at every δ, and which targets are within reach: some anchor text
    exceeds their δ by the 5 % that a sample must."""


def toxicchat(folder: Path) -> Study:
    """ToxicChat's training half as anchor; the seed set has none of its toxic messages."""
    source = "ToxicChat, CC BY-NC 4.0"
    path = {name: str(folder / "toxicchat" / f"{name}.jsonl.gz") for name in ("train", "test")}
    fields: dict[str, Any] = {"text_field": "text", "label_field": "label", "roles": ("user",), "source": source}
    safe = SampleConfig(of="toxicchat-train", n=N_SAFE, label="0")
    return Study(
        name="toxicchat",
        title="ToxicChat, relevance by labels",
        datasets=(
            DatasetConfig(name="toxicchat-train", path=path["train"], role="anchor", **fields),
            DatasetConfig(name="toxicchat-safe", role="seed", roles=("user",), sample=safe),
            DatasetConfig(name="toxicchat-test", path=path["test"], role="eval", **fields),
        ),
        relevance=RelevanceConfig(labels="toxicchat-train", positive="1"),
        coverage=CoverageConfig(anchor="toxicchat-train", seed="toxicchat-safe"),
        task="toxicity",
        test="toxicchat-test",
    )


def general(folder: Path, work: Path) -> Study:
    """What people asked in `general_instructions`, by theme; the seed set lacks code, reviews and news."""
    path = work / "general.jsonl"
    rows = general_rows(folder)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_text_atomically(path, "".join(lines))
    n_left = sum(row["theme"] not in LACKING for row in rows)
    left = SampleConfig(of="general", n=n_left // 2, without=LACKING)
    return Study(
        name="general",
        title="general_instructions without code, reviews and news",
        datasets=(
            DatasetConfig(
                name="general", path=str(path), role="anchor", text_field="text", label_field="theme", roles=("user",)
            ),
            DatasetConfig(name="general-rest", role="seed", roles=("user",), sample=left),
        ),
        relevance=RelevanceConfig(labels="general", positive="*", min_auroc=0.65),
        coverage=CoverageConfig(anchor="general", seed="general-rest"),
        task=GENERAL_TASK,
    )


def general_rows(folder: Path) -> list[dict[str, str]]:
    """The first message of every conversation with its theme, at most 400 of a theme that is known, each text once."""
    themes = {source: choice.name for choice in CHOICES if choice.corpus == "general" for source in choice.themes}
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for text in general_texts(folder):
        said = next((m.content for m in text.document.messages if m.role == "user"), "")
        if said.strip():
            found[themes.get(text.theme, OTHER)].setdefault(said, text.document.doc_id)
    rows = []
    for theme, texts in sorted(found.items()):
        most = MOST_OTHER if theme == OTHER else MOST_OF_A_THEME
        rows += [{"text": said, "theme": theme} for said in sorted(texts, key=texts.__getitem__)[:most]]
    return rows


def demo() -> Study:
    """The demo's messages; the seed set knows seven of their twelve themes."""
    without = ("fitness and yoga", "parties and weddings", "recipes and cooking", "restaurants and food")
    sample = SampleConfig(of="messages", n=300, without=(*without, "trips and travel"))
    path = str(DEMO / "messages.jsonl")
    return Study(
        name="demo",
        title="the demo's messages without leisure",
        datasets=(
            DatasetConfig(
                name="messages", path=path, role="anchor", text_field="text", label_field="theme", roles=("user",)
            ),
            DatasetConfig(name="workday", role="seed", roles=("user",), sample=sample),
        ),
        relevance=RelevanceConfig(labels="messages", positive="*", min_auroc=0.75),
        coverage=CoverageConfig(anchor="messages", seed="workday"),
    )


def known_gaps(folder: Path, work: Path) -> list[Study]:
    """Half B of the first split of `benchmarks.known_gaps`, without the themes of each choice of its bar in turn."""
    texts = general_texts(folder)
    half = [text for text, is_in_a in zip(texts, halves(len(texts), 0)) if not is_in_a]
    rows = [{"messages": [asdict(m) for m in text.document.messages], "theme": text.theme} for text in half]
    path = work / "half-b.jsonl"
    write_text_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    anchor = DatasetConfig(name="half-b", path=str(path), role="anchor", shape="messages", label_field="theme")
    studies = []
    for choice in (c for c in CHOICES if c.counts_for_bar):
        n_left = sum(text.theme not in choice.themes for text in half)
        sample = SampleConfig(of="half-b", n=n_left, without=choice.themes)
        name = f"without-{choice.name}"
        studies.append(
            Study(
                name=f"gap-{choice.name}",
                title=choice.name,
                datasets=(anchor, DatasetConfig(name=name, role="seed", sample=sample)),
                coverage=CoverageConfig(anchor="half-b", seed=name),
                task=GAP_TASK,
                folder="known-gaps",
            )
        )
    return studies


def prepare(study: Study, work: Path, n_targets: int, *, quiet: bool = False) -> Prepared:
    """Corpora, spans, words, relevance and coverage; all of it is kept in the study's workspace and done once."""
    root = work / (study.folder or study.name)
    workspace = Workspace(root) if root.exists() else Workspace.create(root)
    session = Session(workspace, study.backbone, choose_progress(quiet))
    with workspace.lock():
        task = study.task if isinstance(study.task, str) else save_task(workspace, study.task)
        use_tasks(root / TASKS_FOLDER)
        for dataset in study.datasets:
            data.add_dataset(session, dataset)
        sae_id = sae.load(session, study.sae)["sae_id"]
        for name in (study.coverage.anchor, study.coverage.seed):
            features.collect_spans(session, sae_id, name, SpansConfig())
        explained = ExplainConfig(dataset=study.coverage.anchor, embedding_score=False)
        explaining.explain(session, sae_id, explained)
        if study.relevance is None:
            count_every_feature(session, sae_id, task)
        else:
            judging.judge_relevance(session, sae_id, task, study.relevance)
        source = study.relevance.source if study.relevance else "label"
        runs = {
            rescored: coverage.coverage(session, sae_id, task, source, at)
            for rescored, at in _settings(study.coverage).items()
        }
        measured = coverage.coverage(session, sae_id, task, source, study.coverage)
    targets = choose_targets(session, measured["coverage_id"], n_targets)
    thresholds, within_reach = _thresholds(session, measured, study.coverage, targets)
    described = {name: {k: run[k] for k in ("n_missing", "n_anchor", "saturated", "fac")} for name, run in runs.items()}
    kept = ("coverage_id", "n_relevant", "n_anchor", "n_missing", "fac", "fac_low", "fac_high", "saturated")
    kept += ("anchor", "seed", "n_anchor_docs", "n_seed_docs", "n_anchor_tokens", "n_seed_tokens", "task", "sae_id")
    gap = {k: measured[k] for k in kept} | {"by_delta": described, "within_reach": within_reach}
    if study.relevance is None:  # the gap was made: to fill its list proves something, however short that is
        measured = {**measured, "saturated": False}
    return Prepared(study, session, measured, targets, thresholds, gap)


def count_every_feature(session: Session, sae_id: str, task: str) -> None:
    """A verdict of "yes" for each, where the question is what a set lacks and not what matters to a task."""
    name = load_task(task).name
    scope = Scope("relevance", f"{name}/{sae_id}/label", fingerprint("every feature", name, sae_id))
    with session.workspace.reader() as reader:
        [row] = reader.rows("sae", sae_id=sae_id)
    verdict = {"task": name, "sae_id": sae_id, "source": "label", "verdict": "yes", "score": 0.0, "theme": ""}
    verdict |= {"rationale": "every feature counts", "author": "benchmark"}
    rows = [verdict | {"feature_id": feature} for feature in range(row["d_sae"])]

    def write() -> dict[str, Any]:
        session.workspace.manifest.write_shard(scope, "relevance", "0", rows_to_arrow("relevance", rows))
        return {"task": name, "sae_id": sae_id, "source": "label"}

    session.run_once(scope, write)


def _settings(config: CoverageConfig) -> dict[str, CoverageConfig]:
    """The δ at which samples are scored again, and the paper's absolute 0."""
    moved = {f"{r:g}": dataclasses.replace(config, threshold=r * config.threshold) for r in RESCORED}
    return moved | {"absolute 0": dataclasses.replace(config, kind="absolute", threshold=0.0)}


def choose_targets(session: Session, coverage_id: str, n: int) -> tuple[int, ...]:
    """A random draw of the missing features, the same whenever the gap is."""
    with session.workspace.reader() as reader:
        missing = sorted(row["feature_id"] for row in reader.rows("missing", coverage_id=coverage_id))
    return tuple(np.random.default_rng(0).permutation(missing)[:n].tolist())


def _thresholds(
    session: Session, measured: dict[str, Any], config: CoverageConfig, targets: Sequence[int]
) -> tuple[tuple[float, ...], list[bool]]:
    """δ of the targets, and whether some anchor text exceeds what a sample must exceed."""
    with session.workspace.reader() as reader:
        gap = read_gap(reader, measured["sae_id"], measured["task"], measured["relevance_source"], config)
    exceeded = doc_frequency(gap.anchor, VERIFICATION_MARGIN * gap.act_threshold)[list(targets)] > 0
    return tuple(float(gap.act_threshold[f]) for f in targets), exceeded.tolist()
