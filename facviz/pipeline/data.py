"""`facviz data add` and `facviz capture`: corpora into tables, and activations of one corpus to disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facviz.config import CaptureConfig, DatasetConfig, fingerprint
from facviz.corpus import CorpusReader, CorpusReport, draw_sample, hash_source
from facviz.errors import InputError, WorkspaceError
from facviz.files import write_text_atomically
from facviz.pipeline.session import CODE_VERSION, Session, load_documents
from facviz.records import Document, split_of
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow

if TYPE_CHECKING:
    from facviz.activations import CapturePlan, TrainingActivations
    from facviz.backbone import Renderer

DOCS_PER_SHARD = 4096


def add_dataset(session: Session, config: DatasetConfig) -> dict[str, Any]:
    """Read, normalise, de-duplicate and count one corpus; what was dropped is written beside with its reasons."""
    source = _sample_source(session, config) if config.sample else hash_source(Path(config.path))
    described = dataclasses.replace(config, path="")
    tokenizer = fingerprint(session.backbone_config.name, session.backbone_config.max_tokens)
    scope = Scope("data", config.name, fingerprint("data", CODE_VERSION, described, source, tokenizer))
    return session.run_once(scope, lambda: _add(session, config, scope))


def _add(session: Session, config: DatasetConfig, scope: Scope) -> dict[str, Any]:
    documents, report, mapping = _read(session, config)
    dataset_id = _dataset_id(documents, config.roles)
    counts = _count_tokens(session, config, documents)
    manifest = session.workspace.manifest
    for start in range(0, len(documents), DOCS_PER_SHARD):
        part = range(start, min(start + DOCS_PER_SHARD, len(documents)))
        rows = [_document_row(dataset_id, i, documents[i], counts[i][0]) for i in part]
        manifest.write_shard(scope, "document", f"{start // DOCS_PER_SHARD:05d}", rows_to_arrow("document", rows))
    row = {
        "dataset_id": dataset_id,
        "name": config.name,
        "role": config.role,
        "source": config.source,
        "licence": config.licence,
        "roles": list(config.roles),
        "mapping": mapping,
        "n_docs": len(documents),
        "n_duplicates": report.n_duplicates,
        "n_dropped": report.n_dropped,
        "n_content_tokens": sum(n for n, _ in counts),
        "n_cut_tokens": sum(cut for _, cut in counts),
        "sha256": report.sha256,
    }
    manifest.write_shard(scope, "dataset", "0", rows_to_arrow("dataset", [row]))
    details = {"n_rows": report.n_rows, "dropped_by_reason": report.dropped_by_reason, "labels": report.labels}
    details |= {"n_files": report.n_files, "skipped_files": report.skipped_files}
    dropped_file = _write_dropped(session, config.name, report)
    lengths = sorted(n for n, _ in counts)
    tokens = {"median_tokens": lengths[len(lengths) // 2], "max_tokens": lengths[-1]}
    return row | details | tokens | {"dropped_file": dropped_file, "n_label_conflicts": report.n_label_conflicts}


def _read(session: Session, config: DatasetConfig) -> tuple[list[Document], CorpusReport, str]:
    if config.sample is not None:
        with session.workspace.reader() as reader:
            pool = load_documents(reader, reader.dataset(config.sample.of)["dataset_id"])
        drawn = draw_sample(pool, config.sample)
        report = CorpusReport(n_rows=len(pool), n_documents=len(drawn))
        return drawn, report, f"{config.sample.n} documents drawn from {config.sample.of}"
    corpus = CorpusReader(config)
    documents = []
    for document in corpus:
        documents.append(document)
        if len(documents) % 1000 == 0:
            session.progress.update(f"read {config.name}", len(documents), config.limit, "documents")
    return documents, corpus.report, corpus.mapping.describe()


def _sample_source(session: Session, config: DatasetConfig) -> str:
    if config.sample is None:
        raise InputError(f"Dataset {config.name} is not a sample.")
    with session.workspace.reader() as reader:
        return str(reader.dataset(config.sample.of)["dataset_id"])


def _dataset_id(documents: Sequence[Document], roles: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps(list(roles)).encode())
    for document in documents:
        digest.update(f"{document.doc_id}{document.label}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:12]


def _count_tokens(session: Session, config: DatasetConfig, documents: Sequence[Document]) -> list[tuple[int, int]]:
    renderer = session.renderer(config.roles)
    counts: list[tuple[int, int]] = []
    for chunk in _chunks(documents, 512):
        rendered = renderer.render_many(list(enumerate(chunk)))
        counts.extend((d.n_content_tokens, d.n_cut_tokens) for d in rendered)
        session.progress.update(f"count {config.name}", len(counts), len(documents), "documents tokenised")
    if not any(n for n, _ in counts):
        raise InputError(
            f"Dataset {config.name} has no content tokens of the roles {', '.join(config.roles)}; choose other --roles."
        )
    return counts


def _chunks(documents: Sequence[Document], size: int) -> Iterable[Sequence[Document]]:
    for start in range(0, len(documents), size):
        yield documents[start : start + size]


def _document_row(dataset_id: str, number: int, document: Document, n_tokens: int) -> dict[str, Any]:
    return {
        "dataset_id": dataset_id,
        "doc_no": number,
        "doc_id": document.doc_id,
        "text": document.text,
        "messages": [{"role": m.role, "content": m.content} for m in document.messages],
        "label": document.label,
        "split": str(split_of(document.doc_id)),
        "n_content_tokens": n_tokens,
    }


def _write_dropped(session: Session, name: str, report: CorpusReport) -> str | None:
    if not report.dropped:
        return None
    path = session.workspace.root / "datasets" / f"{name}-dropped.jsonl"
    lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) for row in report.dropped]
    write_text_atomically(path, "\n".join(lines) + "\n")
    return str(path)


def capture_dataset(session: Session, config: CaptureConfig) -> dict[str, Any]:
    """Activations of the dataset's content tokens to disk, training and held-out documents apart."""
    return capture_layers(session, config, [session.backbone.layer])[0]


def capture_layers(session: Session, config: CaptureConfig, layers: Sequence[int]) -> list[dict[str, Any]]:
    """One capture a layer, from one pass of the model for all that are not there yet; with `keep` off, only planned."""
    from facviz.activations import capture

    with session.workspace.reader() as reader:
        dataset = reader.dataset(config.dataset)
    sizes = dataclasses.replace(config, dataset="")
    ids = [
        fingerprint("capture", CODE_VERSION, dataset["dataset_id"], sizes, session.encoding_fingerprint(layer))
        for layer in layers
    ]
    scopes = [Scope("capture", f"{dataset['dataset_id']}/{layer}", i) for layer, i in zip(layers, ids)]
    lacking = [n for n, scope in enumerate(scopes) if session.workspace.manifest.done(scope) is None]
    common = {"dataset": config.dataset, "dataset_id": dataset["dataset_id"]}
    summaries = [{"capture_id": i, **common, "layer": layer} for layer, i in zip(layers, ids)]
    if lacking:
        renderer, documents, plan = plan_dataset(session, config)
        counts = {"n_tokens": plan.n_tokens, "n_heldout_tokens": plan.n_heldout_tokens}
        summaries = [summary | counts for summary in summaries]
        if not config.keep:
            return summaries
        folders = [session.workspace.activations_folder(ids[n]) for n in lacking]
        for folder in folders:
            write_text_atomically(folder / "plan.json", json.dumps(dataclasses.asdict(plan)))
        capture(
            [session.fast.at(layers[n]) for n in lacking],
            renderer,
            documents,
            plan,
            folders,
            batch_tokens=session.backbone_config.batch_tokens,
            progress=session.progress,
        )
    return [session.run_once(scope, lambda summary=s: summary) for scope, s in zip(scopes, summaries)]  # type: ignore[misc]


def plan_dataset(session: Session, config: CaptureConfig) -> tuple[Renderer, list[Document], CapturePlan]:
    """What a capture of the dataset runs through the model, and in which shards."""
    from facviz.activations import plan_capture

    with session.workspace.reader() as reader:
        dataset = reader.dataset(config.dataset)
        documents = load_documents(reader, dataset["dataset_id"])
    renderer = session.renderer(tuple(dataset["roles"]))
    return renderer, documents, plan_capture(documents, renderer, config)


def open_capture(session: Session, capture_ids: Sequence[str]) -> TrainingActivations:
    """The shards of finished captures of one plan; of several side by side."""
    from facviz.activations import ActivationShards, CapturePlan, PackedShards

    folders = [session.workspace.activations_folder(i) for i in capture_ids]
    try:
        plan = json.loads((folders[0] / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkspaceError(
            f"The captured activations in {folders[0]} are gone; run `facviz capture` again."
        ) from error
    shards = tuple((name, tuple(members)) for name, members in plan["shards"])
    planned = CapturePlan(shards, plan["n_tokens"], plan["n_heldout_tokens"])
    parts = [ActivationShards(folder, planned) for folder in folders]
    return parts[0] if len(parts) == 1 else PackedShards(parts, planned)
