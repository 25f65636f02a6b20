"""`facviz export fac-tsv | neuronpedia | review-csv` and `facviz tsv-coverage`: a workspace in other tools' formats."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from facviz.errors import InputError
from facviz.exchange import fac_tsv, feature_batches
from facviz.exchange.review_csv import review_csv_text
from facviz.exchange.tsv_coverage import coverage_of_tables, how_activated
from facviz.files import disk_errors, sync_file, write_text_atomically
from facviz.pipeline.session import sae_row
from facviz.prompts import load_task
from facviz.records import DroppedRow, ExplanationOutcome, Verdict
from facviz.store.reader import Reader
from facviz.store.schema import MODE
from facviz.store.workspace import Workspace

Row = Mapping[str, Any]

SOURCE_ORDER = ("human", "llm", "label", "embedding")
"""Whose verdict on a feature is written where there are several: a person's, then what comes closest to reading."""

VERIFIED = {"accepted": Verdict.YES, "edited": Verdict.YES, "rejected": Verdict.NO}
"""`Verify` of a published file is a verdict on the explanation; here only a person gives one."""

MAX_WORDS_SPANS = 10
"""Spans of a `Words` cell, as published."""


def export_fac_tsv(
    workspace: Workspace, out: Path, sae_id: str | None, dataset: str, task: str | None = None
) -> dict[str, Any]:
    """One line for every feature that fires on a dataset: its spans, explanation, and verdicts for a task."""
    check_file(out)
    sae = sae_row(workspace, sae_id)["sae_id"]
    columns = [fac_tsv.ID, *([fac_tsv.TASK] if task else []), fac_tsv.VERIFY, fac_tsv.SUMMARY, fac_tsv.WORDS]
    with workspace.reader() as reader:
        explained = {row["feature_id"]: row for row in reader.rows("explanations", sae_id=sae)}
        judged = current_verdicts(reader, sae, load_task(task).name) if task else {}
        dataset_id = reader.dataset(dataset)["dataset_id"]
        live = [r["feature_id"] for r in _stats(reader, sae, dataset_id) if not r["is_dead"]]
        rows = [
            _fac_row(feature, explained.get(feature), judged.get(feature), spans)
            for feature, spans in _spans_of_each(reader, sae, dataset_id, live)
        ]
    write_text_atomically(out, fac_tsv.fac_tsv_text(rows, columns))
    return {"out": str(out), "sae_id": sae, "dataset": dataset, "task": task, "n_features": len(rows)}


def export_review_csv(
    workspace: Workspace, out: Path, sae_id: str | None, task: str | None, features: Sequence[int] | None = None
) -> dict[str, Any]:
    """Explanations, and verdicts for a task, to be changed in a spreadsheet and imported again."""
    check_file(out)
    found = sae_row(workspace, sae_id)
    sae = found["sae_id"]
    name = load_task(task).name if task else ""
    _check_features(features or (), sae, found["d_sae"])
    with workspace.reader() as reader:
        explained = {row["feature_id"]: row for row in reader.rows("explanations", sae_id=sae)}
        judged = current_verdicts(reader, sae, name) if name else {}
    ids = sorted(set(features) if features else {*explained, *judged})
    if not ids:
        raise InputError("There is nothing to review yet; run `facviz explain` first.")
    rows = [_review_row(sae, name, i, explained.get(i, {}), judged.get(i, {})) for i in ids]
    write_text_atomically(out, review_csv_text(rows))
    return {"out": str(out), "sae_id": sae, "task": task, "n_features": len(rows)}


def export_feature_batches(
    workspace: Workspace, out: Path, sae_id: str | None, dataset: str, features: Sequence[int] | None = None
) -> dict[str, Any]:
    """A new folder with features, spans and explanations in Neuronpedia's layout; the whole folder or none."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already; give a new or empty folder for --out.")
    row = sae_row(workspace, sae_id)
    model = str(row["backbone"]).rstrip("/").rsplit("/", 1)[-1]
    source = feature_batches.Source(model, row["sae_id"], int(row["layer"]), dataset, int(row["d_in"]))
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with disk_errors(out), workspace.reader() as reader:
        try:
            counts = _write_batches(reader, source, temporary, features)
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return {"out": str(out), "sae_id": row["sae_id"], "dataset": dataset, **counts}


def tsv_coverage(
    anchor: Path, seed: Path, *, level: str = "maybe", column: str = fac_tsv.TASK, require_verify: bool = False
) -> dict[str, Any]:
    """FAC and missing features of two FAC TSV files, with every line of theirs that could not be used."""
    tables = [fac_tsv.read_fac_tsv(path, task_column=column) for path in (anchor, seed)]
    found = coverage_of_tables(*tables, level=level, require_verify=require_verify)
    published = found.missing_as_published
    return {
        "anchor": anchor.name,
        "seed": seed.name,
        "level": level,
        "column": column,
        "require_verify": require_verify,
        "fac": round(found.fac, 4),
        "n_relevant": found.n_relevant,
        "n_anchor": found.n_anchor,
        "n_missing": len(found.missing),
        "missing": found.missing.tolist(),
        "saturated": found.saturated,
        "n_unclear": found.n_unclear,
        "n_missing_as_published": None if published is None else len(published),
        "anchor_activated": f"{found.n_anchor_activated} features, {how_activated(tables[0])}",
        "seed_activated": f"{found.n_seed_activated} features, {how_activated(tables[1])}",
        "n_malformed": sum(len(table.malformed) for table in tables),
        "malformed": [described for table in tables for described in problems(table.malformed)],
        "unreadable_verdicts": [described for table in tables for described in problems(table.unreadable)],
    }


def problems(dropped: Iterable[DroppedRow]) -> list[dict[str, Any]]:
    """Lines that could not be used, for a result."""
    return [{"file": d.file, "line": d.row, "reason": d.reason, "excerpt": d.excerpt} for d in dropped]


def current_verdicts(reader: Reader, sae_id: str, task: str) -> dict[int, dict[str, Any]]:
    """Feature to the row of the verdict on it that counts most, by `SOURCE_ORDER`."""
    found: dict[int, dict[str, Any]] = {}
    rows = reader.rows("relevance", task=task, sae_id=sae_id)
    for row in sorted(rows, key=lambda r: SOURCE_ORDER.index(r["source"]), reverse=True):
        found[row["feature_id"]] = row
    return found


def check_file(out: Path) -> None:
    """Refuse an output file that cannot be made, before any work."""
    if out.is_dir():
        raise InputError(f"{out} is a folder; give a file for --out.")
    if not out.resolve().parent.is_dir():
        raise InputError(f"The folder {out.resolve().parent} does not exist; make it first.")


def _check_features(features: Iterable[int], sae_id: str, d_sae: int) -> None:
    unknown = [i for i in features if not 0 <= i < d_sae]
    if unknown:
        raise InputError(f"SAE {sae_id} has no feature {unknown[0]}; give ids from 0 to {d_sae - 1}.")


def _stats(reader: Reader, sae_id: str, dataset_id: str) -> list[dict[str, Any]]:
    rows = reader.rows("stats", sae_id=sae_id, dataset_id=dataset_id, mode=MODE)
    if not rows:
        raise InputError("The dataset is not encoded with this SAE; run `facviz spans` on it first.")
    return rows


def _spans_of_each(
    reader: Reader, sae_id: str, dataset_id: str, features: Sequence[int]
) -> Iterator[tuple[int, list[Row]]]:
    """Each feature with its spans on a dataset, strongest first, read some features at a time."""
    for start in range(0, len(features), feature_batches.BATCH_FEATURES):
        ids = list(features[start : start + feature_batches.BATCH_FEATURES])
        by_feature: dict[int, list[Row]] = {i: [] for i in ids}
        for span in reader.rows("spans_of", sae_id=sae_id, dataset_id=dataset_id, ids=ids):
            by_feature[span["feature_id"]].append(span)
        for feature, spans in by_feature.items():
            yield feature, sorted(spans, key=lambda s: (-s["act"], s["split"], s["rank"]))


def _fac_row(feature_id: int, explained: Row | None, judged: Row | None, spans: Sequence[Row]) -> fac_tsv.FacRow:
    summary = explained["text"] or None if explained else None
    if explained and explained["outcome"] == ExplanationOutcome.CANNOT_TELL:
        summary = fac_tsv.CANNOT_TELL
    verify = VERIFIED.get(explained["status"]) if explained else None
    return fac_tsv.FacRow(
        feature_id,
        words=fac_tsv.words_of("".join(span["tokens"]) for span in spans[:MAX_WORDS_SPANS]),
        summary=summary,
        verify=fac_tsv.Judgement.of(verify),
        task=fac_tsv.Judgement.of(Verdict(judged["verdict"]), judged["rationale"] or "") if judged else None,
    )


def _review_row(sae_id: str, task: str, feature_id: int, explained: Row, judged: Row) -> dict[str, object]:
    text, verdict = explained.get("text") or "", judged.get("verdict") or ""
    return {
        "sae_id": sae_id,
        "feature_id": feature_id,
        "explanation": text,
        "explained_by": explained.get("author"),
        "status": explained.get("status") or "unreviewed",
        "task": task,
        "verdict": verdict,
        "judged_by": judged.get("author") or judged.get("source"),
        "previous_explanation": text,
        "previous_verdict": verdict,
    }


def _write_batches(
    reader: Reader, source: feature_batches.Source, folder: Path, features: Sequence[int] | None
) -> dict[str, int]:
    dataset_id = reader.dataset(source.dataset)["dataset_id"]
    stats = {r["feature_id"]: r for r in _stats(reader, source.sae_id, dataset_id)}
    chosen = sorted(set(features)) if features else list(stats)
    _check_features(chosen, source.sae_id, max(stats) + 1)
    directions = {r["feature_id"]: r for r in reader.rows("feature_directions", sae_id=source.sae_id)}
    explained = {r["feature_id"]: r for r in reader.rows("explanations", sae_id=source.sae_id) if r["text"]}
    for name, content in feature_batches.source_files(source).items():
        _write(folder / name, content)
    n_spans = 0
    for number, start in enumerate(range(0, len(chosen), feature_batches.BATCH_FEATURES)):
        ids = chosen[start : start + feature_batches.BATCH_FEATURES]
        spans = reader.rows("spans_of", sae_id=source.sae_id, dataset_id=dataset_id, ids=ids)
        n_spans += len(spans)
        lines = {
            "features": [feature_batches.feature_line(source, stats[i], directions.get(i)) for i in ids],
            "activations": [feature_batches.activation_line(source, span) for span in spans],
            "explanations": [feature_batches.explanation_line(source, explained[i]) for i in ids if i in explained],
        }
        for name, found in lines.items():
            _write(folder / name / f"batch-{number}.jsonl.gz", feature_batches.packed(found))
    n_explained = sum(i in explained for i in chosen)
    return {"n_features": len(chosen), "n_spans": n_spans, "n_explanations": n_explained}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    sync_file(path)
