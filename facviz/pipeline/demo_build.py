"""`facviz demo --rebuild`: the demo made anew from its corpora and SAE, judged by its own story, and packed.

The only code that writes into the checkout, and a maintainer's command.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from facviz.config import DatasetConfig, RunConfig, fingerprint, load_run_config
from facviz.corpus import CorpusReader
from facviz.errors import InputError
from facviz.files import append_line, disk_errors, write_text_atomically
from facviz.pipeline import data, mapping, sae, training
from facviz.pipeline.demo import DEMO_FOLDER, MARK
from facviz.pipeline.run import run_loop
from facviz.pipeline.sae_measures import MEASURED
from facviz.pipeline.session import CODE_VERSION, Session, sae_row
from facviz.protocols import ProgressSink
from facviz.store.manifest import Scope
from facviz.store.schema import SCHEMA_VERSION, rows_to_arrow
from facviz.store.workspace import META_FILE, Workspace

FAC_BEFORE = (0.5, 0.9)
MIN_MISSING, MIN_THEMES, MIN_FILLED = 30, 3, 0.6
"""What the demo must show to be worth showing (design §7)."""

GENERAL_DOCUMENTS = 2400
"""Of the corpus given to --retrain: about twice the content tokens of the demo's own queries."""

_ZSTD_LEVEL = 19


def rebuild_demo(
    progress: ProgressSink, *, retrain: Path | None = None, source: Path = DEMO_FOLDER, work: Path | None = None
) -> dict[str, Any]:
    """Run the loop of `demo.toml`, pack the workspace beside it, and tell whether the story holds.

    A killed rebuild continues where it was; a finished one leaves nothing in the work folder. With `retrain` the SAE is
    trained first, on `queries.jsonl` and the beginning of that file.
    """
    config = load_run_config(source / "demo.toml")
    work = work or _work_folder(source)
    if retrain is not None:
        _train_sae(work / "training", source, config, retrain, progress)
    workspace = Workspace.create(work / _inputs_digest(source, config))
    with workspace.lock():
        session = Session(workspace, config.backbone, progress)
        result = run_loop(session, config)
        result["sae"] = _record_metrics(session, config, result["sae"])
        mapping.map_features(session, result["sae"]["sae_id"])
    packed = pack(workspace, source / "workspace")
    story = tell_story(workspace, config, result)
    shutil.rmtree(work, ignore_errors=True)
    return result | {"workspace": str(source / "workspace"), "packed": packed, "story": story}


def _work_folder(source: Path) -> Path:
    from facviz.backbone.packaged import cache_root

    return cache_root() / "demo-rebuild" / hashlib.sha256(str(source).encode()).hexdigest()[:12]


def _inputs_digest(source: Path, config: RunConfig) -> str:
    """Names the build by everything it is made from, so that none continues on another's results."""
    files = [Path(d.path) for d in config.datasets if d.path] + sorted(Path(config.sae.path).glob("*"))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()]
    return fingerprint("demo", CODE_VERSION, (source / "demo.toml").read_text(encoding="utf-8"), digests)


def _train_sae(folder: Path, source: Path, config: RunConfig, corpus: Path, progress: ProgressSink) -> None:
    """Train with the demo's settings and put the weights, in half precision and with their measures, in `sae.path`."""
    if not config.sae.path:
        raise InputError("The demo's configuration names no `sae.path` to write to; add it.")
    workspace = Workspace.create(folder)
    mixed = folder / "training.jsonl"
    write_text_atomically(mixed, "".join(_training_lines(source, corpus)))
    with workspace.lock():
        session = Session(workspace, config.backbone, progress)
        data.add_dataset(session, DatasetConfig("training", str(mixed), roles=("user", "assistant", "text")))
        trained = training.train(
            session,
            dataclasses.replace(config.capture, dataset="training"),
            dataclasses.replace(config.sae, path=""),
        )
        weights = sae.open_sae(session, trained["sae_id"])
        weights.save(config.sae.path, half_precision=True)


def _training_lines(source: Path, corpus: Path) -> Iterator[str]:
    """The demo's own queries, so that features split finely on its themes, and a part of a general corpus."""
    queries = CorpusReader(DatasetConfig("queries", str(source / "queries.jsonl")))
    general = CorpusReader(DatasetConfig("general", str(corpus), limit=GENERAL_DOCUMENTS))
    for document in chain(queries, general):
        yield json.dumps({"messages": [dataclasses.asdict(m) for m in document.messages]}, ensure_ascii=False) + "\n"


def _record_metrics(session: Session, config: RunConfig, loaded: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured in training on held-out documents, put in the row of the loaded SAE, which came without."""
    from facviz.sae.formats import load_sae

    sae_id = loaded["sae_id"]
    metrics = load_sae(Path(config.sae.path)).metadata.get(MEASURED, {})
    known = sae_row(session.workspace, sae_id)
    if metrics and json.loads(known["metrics"]) != metrics:
        scope = Scope("sae", sae_id, sae_id)
        row = known | {"metrics": json.dumps(metrics), "k": config.sae.k}
        session.workspace.manifest.write_shard(scope, "sae", "0", rows_to_arrow("sae", [row]))
        session.workspace.manifest.mark_done(scope, {**loaded, **metrics, "k": config.sae.k})
    return {**loaded, **metrics, "k": config.sae.k}


def pack(workspace: Workspace, target: Path) -> dict[str, Any]:
    """Copy what the dashboard reads, tables and manifest, well compressed; weights and work files stay behind."""
    partial = target.with_name(f".{target.name}.tmp")
    with disk_errors(target):
        shutil.rmtree(partial, ignore_errors=True)
        live = {shard.number for shard in workspace.manifest.live()}
        for number, entry in enumerate(workspace.manifest.entries()):
            if entry["kind"] == "shard" and number not in live:
                continue
            if entry["kind"] == "shard":
                _compress(workspace.root / "tables" / entry["path"], partial / "tables" / entry["path"])
            append_line(partial / "tables" / "manifest.jsonl", entry)
        meta = {"schema": SCHEMA_VERSION, MARK: _digest(partial)}
        write_text_atomically(partial / META_FILE, json.dumps(meta) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    sizes = [path.stat().st_size for path in target.rglob("*") if path.is_file()]
    return {"folder": str(target), "demo": meta[MARK], "n_files": len(sizes), "n_bytes": sum(sizes)}


def _compress(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pq.read_table(source), target, compression="zstd", compression_level=_ZSTD_LEVEL)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def tell_story(workspace: Workspace, config: RunConfig, result: Mapping[str, Any]) -> dict[str, Any]:
    """What the demo shows, by theme, and whether it `holds`: the bounds at the top of this module."""
    measured, filled = result["coverage"], result["synthesis"]
    with workspace.reader() as reader:
        judged = reader.rows("relevance", task=config.task, sae_id=measured["sae_id"])
        missing = [r["feature_id"] for r in reader.rows("missing", coverage_id=measured["coverage_id"])]
        ended = {r["feature_id"]: r["state"] for r in reader.rows("synthesis_features", synth_id=filled["synth_id"])}
    theme_of = {row["feature_id"]: row["theme"] for row in judged}
    lacking = next((d.sample.without for d in config.datasets if d.name == measured["seed"] and d.sample), ())
    by_theme = Counter(theme_of[f] for f in missing)
    filled_by_theme = Counter(theme_of[f] for f, state in ended.items() if state == "filled")
    n_lacking = {theme: by_theme[theme] for theme in lacking}
    share = filled["n_filled"] / len(missing) if missing else 0.0  # of all, also those never tried
    holds = (
        FAC_BEFORE[0] <= measured["fac"] <= FAC_BEFORE[1]
        and sum(n_lacking.values()) >= MIN_MISSING
        and sum(n > 0 for n in n_lacking.values()) >= MIN_THEMES
        and share >= MIN_FILLED
    )
    return {
        "holds": holds,
        "fac_before": measured["fac"],
        "fac_after": filled["fac_after"],
        "n_missing": measured["n_missing"],
        "n_missing_in_lacking_themes": sum(n_lacking.values()),
        "lacking_themes": list(lacking),
        "missing_by_theme": dict(by_theme.most_common()),
        "filled_by_theme": dict(filled_by_theme.most_common()),
        "filled_share": round(share, 4),
    }
