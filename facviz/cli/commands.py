"""What each sub-command does: configs from flags, one pipeline call, the result and the exit code."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from facviz.cli.doctor import examine
from facviz.cli.progress import LockWait, choose_progress, say
from facviz.config import (
    BackboneConfig,
    CaptureConfig,
    CoverageConfig,
    DatasetConfig,
    EvaluationConfig,
    ExplainConfig,
    RelevanceConfig,
    RunConfig,
    SaeConfig,
    ScoreConfig,
    SpansConfig,
    SynthesisConfig,
    check_ranges,
    from_mapping,
    load_run_config,
)
from facviz.errors import InputError
from facviz.files import user_path, write_text_atomically
from facviz.jobs import JobReport
from facviz.pipeline import (
    coverage,
    data,
    demo,
    evaluating,
    exchange,
    explaining,
    export,
    features,
    imports,
    judging,
    mapping,
    run,
    sae_quality,
    scoring,
    synthesis,
    training,
)
from facviz.pipeline.evaluation_inputs import find_run
from facviz.pipeline.session import Session, sae_row
from facviz.store.database import rebuild_database
from facviz.store.workspace import Workspace, open_workspace
from facviz.synthesis.safety import safety_note

Result = tuple[dict[str, Any], int]
T = TypeVar("T")
HERE = "the command line"


def _from_flags(cls: type[T], arguments: argparse.Namespace, **more: object) -> T:
    """A config whose fields are the flags of the same name; what was not given keeps its default."""
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    given = {k: v for k, v in vars(arguments).items() if k in names and v is not None}
    return from_mapping(cls, {**given, **more}, where=HERE)


def _workspace_path(arguments: argparse.Namespace) -> str:
    if not (path := arguments.workspace or os.environ.get("FACVIZ_WORKSPACE")):
        raise InputError("Say where results go: give --workspace W or set FACVIZ_WORKSPACE.")
    return str(path)


@contextmanager
def _locked(arguments: argparse.Namespace, workspace: Workspace) -> Iterator[None]:
    """The workspace's lock; with `--wait` after the stage that holds it, and a job says which of both it does."""
    report = JobReport.from_environment()
    with workspace.lock(LockWait(report, arguments.quiet) if arguments.wait else None):
        report.running()
        yield


@contextmanager
def _backbone_session(arguments: argparse.Namespace, workspace: Workspace) -> Iterator[Session]:
    """A locked session on the flags' backbone, else the last one that worked here, else the default."""
    with _locked(arguments, workspace):
        remembered = workspace.meta.get("backbone", {})
        given = {"name": arguments.backbone, "layer": arguments.layer, "site": arguments.site}
        given |= {"max_tokens": arguments.max_tokens_per_doc}
        config = from_mapping(
            BackboneConfig, {**remembered, **{k: v for k, v in given.items() if v is not None}}, where=HERE
        )
        yield Session(workspace, config, choose_progress(arguments.quiet))
        described = {n: getattr(config, n) for n in ("name", "layer", "site", "max_tokens")}
        if remembered != described:
            workspace.remember(backbone=described)


def _sae_session(arguments: argparse.Namespace, workspace: Workspace) -> tuple[Session, str]:
    """A session on the backbone, layer and cut that the SAE was made with."""
    row = sae_row(workspace, arguments.sae)
    backbone = json.loads(row["provenance"])["backbone"]
    config = from_mapping(
        BackboneConfig, {k: v for k, v in backbone.items() if v is not None}, where="the SAE's record"
    )
    return Session(workspace, config, choose_progress(arguments.quiet)), row["sae_id"]


def _seeded(config: RunConfig, rng_seed: int | None) -> RunConfig:
    """The same run with one seed for every stage that draws."""
    if rng_seed is None:
        return config
    stages = ("sae", "relevance", "coverage", "synthesis")
    return dataclasses.replace(
        config, **{s: dataclasses.replace(getattr(config, s), rng_seed=rng_seed) for s in stages}
    )


def _run(arguments: argparse.Namespace) -> Result:
    config = _seeded(load_run_config(user_path(arguments.config)), arguments.rng_seed)
    workspace = Workspace.create(_workspace_path(arguments))
    say("" if arguments.quiet else safety_note(config.task, config.synthesis.provider))
    with _locked(arguments, workspace):
        return run.run_loop(Session(workspace, config.backbone, choose_progress(arguments.quiet)), config), 0


def _doctor(arguments: argparse.Namespace) -> Result:
    path = arguments.workspace or os.environ.get("FACVIZ_WORKSPACE")
    found = examine(arguments.backbone or "default", Path(path) if path else None)
    return found, 0 if found["ready"] else 1


def _db(arguments: argparse.Namespace) -> Result:
    workspace = open_workspace(_workspace_path(arguments))
    with _locked(arguments, workspace):
        return {"database": str(workspace.root / "facviz.duckdb"), "rows": rebuild_database(workspace)}, 0


def _data(arguments: argparse.Namespace) -> Result:
    config = _from_flags(DatasetConfig, arguments, path=str(user_path(arguments.path)))
    workspace = Workspace.create(_workspace_path(arguments))
    with _backbone_session(arguments, workspace) as session:
        return data.add_dataset(session, config), 0


def _capture(arguments: argparse.Namespace) -> Result:
    config = _from_flags(CaptureConfig, arguments)
    with _backbone_session(arguments, open_workspace(_workspace_path(arguments))) as session:
        return data.capture_dataset(session, config), 0


def _train(session: Session, arguments: argparse.Namespace, layers: Sequence[int]) -> Result:
    """One SAE as its own result, several as a list."""
    capture_flags = argparse.Namespace(dataset=arguments.dataset, tokens=arguments.tokens)
    capture = _from_flags(CaptureConfig, capture_flags, keep=not arguments.no_keep)
    widths, ks = arguments.d_sae or (), arguments.k or ()
    one = argparse.Namespace(**vars(arguments) | {"d_sae": None, "k": None})
    first = {name: values[0] for name, values in (("d_sae", widths), ("k", ks)) if values}
    configs = training.vary(_from_flags(SaeConfig, one, **first), widths, ks)
    for config in configs:
        check_ranges(config, HERE)
    trained = training.train_several(session, capture, configs, layers or [session.backbone.layer])
    return (trained[0] if len(trained) == 1 else {"saes": trained}), 0


def _sae(arguments: argparse.Namespace) -> Result:
    workspace = open_workspace(_workspace_path(arguments)) if arguments.action != "load" else None
    workspace = workspace or Workspace.create(_workspace_path(arguments))
    if arguments.action == "match":
        return sae_quality.match(workspace, arguments.a, arguments.b), 0
    if arguments.action == "eval":
        return _evaluate(arguments, workspace)
    layers: Sequence[int] = ()
    if arguments.action == "train" and arguments.layer:
        layers, arguments.layer = arguments.layer, arguments.layer[0]
    with _backbone_session(arguments, workspace) as session:
        if arguments.action == "load":
            return _answer(
                sae_quality.load_and_check(
                    session,
                    arguments.path,
                    arguments.format,
                    check=not arguments.no_check,
                    dataset=arguments.check,
                )
            )
        return _train(session, arguments, layers)


def _evaluate(arguments: argparse.Namespace, workspace: Workspace) -> Result:
    with _locked(arguments, workspace):
        session, sae_id = _sae_session(arguments, workspace)
        asked = {"fidelity": arguments.fidelity, "probe": arguments.probe, "health": arguments.health}
        return _answer(sae_quality.evaluate(session, sae_id, arguments.dataset, **asked))


def _answer(measured: dict[str, Any]) -> Result:
    """Exit 1 when a health check among it says that the SAE does not fit."""
    health = measured.get("health")
    return measured, 1 if health and health["verdict"] == "does not fit" else 0


def _spans(arguments: argparse.Namespace) -> Result:
    config = _from_flags(SpansConfig, arguments)
    workspace = open_workspace(_workspace_path(arguments))
    with _locked(arguments, workspace):
        session, sae_id = _sae_session(arguments, workspace)
        return {"spans": [features.collect_spans(session, sae_id, name, config) for name in config.datasets]}, 0


def _explain(arguments: argparse.Namespace) -> Result:
    config = _from_flags(ExplainConfig, arguments, embedding_score=not arguments.no_score)
    workspace = open_workspace(_workspace_path(arguments))
    with _locked(arguments, workspace):
        session, sae_id = _sae_session(arguments, workspace)
        stage = explaining.estimate if arguments.dry_run else explaining.explain
        return stage(session, sae_id, config), 0


def _score(arguments: argparse.Namespace) -> Result:
    config = _from_flags(ScoreConfig, arguments)
    workspace = open_workspace(_workspace_path(arguments))
    with _locked(arguments, workspace):
        session, sae_id = _sae_session(arguments, workspace)
        stage = scoring.estimate if arguments.dry_run else scoring.score
        return stage(session, sae_id, config), 0


def _map(arguments: argparse.Namespace) -> Result:
    workspace = open_workspace(_workspace_path(arguments))
    with _locked(arguments, workspace):
        session, sae_id = _sae_session(arguments, workspace)
        return mapping.map_features(session, sae_id, rng_seed=arguments.rng_seed or 0), 0


def _relevance(arguments: argparse.Namespace) -> Result:
    config = _from_flags(RelevanceConfig, arguments)
    workspace = open_workspace(_workspace_path(arguments))
    with _locked(arguments, workspace):
        session, sae_id = _sae_session(arguments, workspace)
        stage = judging.estimate if arguments.dry_run else judging.judge_relevance
        return stage(session, sae_id, arguments.task, config), 0


def _coverage(arguments: argparse.Namespace) -> Result:
    config = _from_flags(CoverageConfig, arguments)
    workspace = open_workspace(_workspace_path(arguments))
    with _locked(arguments, workspace):
        session, sae_id = _sae_session(arguments, workspace)
        measured = coverage.coverage(session, sae_id, arguments.task, arguments.relevance_source, config)
    exact = (measured["n_anchor"] - measured["n_missing"]) / measured["n_anchor"]  # "fac" itself is rounded
    return measured, int(config.min_fac is not None and exact < config.min_fac)


def _synthesize(arguments: argparse.Namespace) -> Result:
    coverage_config = _from_flags(CoverageConfig, arguments)
    left_out = {n: False for n in ("axes", "anti_copy", "embedding_gate") if getattr(arguments, f"no_{n}")}
    config = _from_flags(SynthesisConfig, arguments, **left_out)
    say("" if arguments.quiet else safety_note(arguments.task, config.provider))
    workspace = open_workspace(_workspace_path(arguments))
    with _locked(arguments, workspace):
        session, sae_id = _sae_session(arguments, workspace)
        measured = coverage.coverage(session, sae_id, arguments.task, arguments.relevance_source, coverage_config)
        stage = synthesis.estimate if arguments.dry_run else synthesis.synthesize
        return stage(session, measured, coverage_config, config), 0


def _evaluate_samples(arguments: argparse.Namespace) -> Result:
    config = _from_flags(EvaluationConfig, arguments)
    workspace = open_workspace(_workspace_path(arguments))
    with _locked(arguments, workspace):
        with workspace.reader() as reader:
            found = find_run(reader, workspace.manifest, arguments.task, config.coverage)
        arguments.sae = found["sae_id"]
        session, _ = _sae_session(arguments, workspace)
        return evaluating.evaluate(session, arguments.task, config), 0


def _export(arguments: argparse.Namespace) -> Result:
    workspace = open_workspace(_workspace_path(arguments))
    out, what, sae = user_path(arguments.out), arguments.what, arguments.sae
    if what not in EXCHANGED:
        _refuse_flags(arguments, what, ("dataset", "task", "features", *(() if what == "samples" else ("format",))))
        if what == "report" and out.suffix.lower() in (".html", ".htm"):
            return _export_report(workspace, out), 0
        wish = {"only_approved": arguments.only_approved, "sample_format": arguments.format or "messages"}
        return export.export(workspace, what, out, sae, **wish), 0
    _refuse_flags(arguments, what, [flag for flag in EXPORT_FLAGS if flag not in EXCHANGED[what]])
    if "dataset" in EXCHANGED[what] and not arguments.dataset:
        raise InputError(f"Say whose spans to write; give --dataset for export {what}.")
    if what == "fac-tsv":
        return exchange.export_fac_tsv(workspace, out, sae, arguments.dataset, arguments.task), 0
    if what == "neuronpedia":
        return exchange.export_feature_batches(workspace, out, sae, arguments.dataset, arguments.features), 0
    if what == "review-csv":
        return exchange.export_review_csv(workspace, out, sae, arguments.task, arguments.features), 0
    return _export_html(workspace, out, sae, arguments), 0


EXPORT_FLAGS = ("dataset", "task", "features", "only_approved", "format")
EXCHANGED: Mapping[str, Sequence[str]] = {
    "fac-tsv": ("dataset", "task"),
    "neuronpedia": ("dataset", "features"),
    "review-csv": ("task", "features"),
    "html": ("dataset", "features"),
}
"""Exports for other tools and the flags they take; one that would be ignored is refused."""


def _refuse_flags(arguments: argparse.Namespace, what: str, flags: Sequence[str]) -> None:
    given = [flag for flag in flags if getattr(arguments, flag)]
    if given:
        name = given[0].replace("_", "-")
        raise InputError(f"There is no use for --{name} with {what}; leave it out.")


def _export_report(workspace: Workspace, out: Path) -> dict[str, Any]:
    from facviz.views.report import stakeholder_report

    exchange.check_file(out)
    with workspace.reader() as reader:
        page, counts = stakeholder_report(reader, workspace.manifest)
    write_text_atomically(out, page)
    return {"out": str(out), **counts}


def _export_html(workspace: Workspace, out: Path, sae: str | None, arguments: argparse.Namespace) -> dict[str, Any]:
    from facviz.views.feature_sheet import feature_sheet

    exchange.check_file(out)
    sae_id = sae_row(workspace, sae)["sae_id"]
    chosen = arguments.features or ()
    with workspace.reader() as reader:
        page = feature_sheet(reader, sae_id, reader.dataset(arguments.dataset), chosen, title="Features")
    write_text_atomically(out, page)
    return {"out": str(out), "sae_id": sae_id, "dataset": arguments.dataset, "n_features": len(set(chosen))}


def _import(arguments: argparse.Namespace) -> Result:
    workspace = open_workspace(_workspace_path(arguments))
    path, author = user_path(arguments.path), arguments.author or ""
    wish = imports.ImportWish(author, arguments.by_person, arguments.theirs, arguments.dry_run)
    with _locked(arguments, workspace):
        if arguments.what == "fac-tsv":
            found = imports.import_fac_tsv(workspace, path, arguments.sae, arguments.task, wish)
        else:
            _refuse_flags(arguments, "review-csv", ("task", "by_person"))
            found = imports.import_review_csv(workspace, path, arguments.sae, wish)
    return found, 1 if found.get("n_conflicts") else 0


def _tsv_coverage(arguments: argparse.Namespace) -> Result:
    found = exchange.tsv_coverage(
        user_path(arguments.anchor),
        user_path(arguments.seed),
        level=arguments.level,
        column=arguments.column,
        require_verify=arguments.require_verify,
    )
    return found, 1 if arguments.min_fac is not None and found["fac"] < arguments.min_fac else 0


def _demo(arguments: argparse.Namespace) -> Result:
    if arguments.rebuild or arguments.retrain:
        from facviz.pipeline.demo_build import rebuild_demo

        corpus = user_path(arguments.retrain) if arguments.retrain else None
        made = rebuild_demo(choose_progress(arguments.quiet), retrain=corpus)
        return made, 0 if made["story"]["holds"] else 1
    target = arguments.workspace or os.environ.get("FACVIZ_WORKSPACE") or None
    if not arguments.reset:
        return demo.describe_demo(demo.install_demo(target)), 0
    root, kept = demo.reset_demo(target)
    return demo.describe_demo(root) | {"kept": str(kept) if kept else None}, 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace], Result]] = {
    "run": _run,
    "doctor": _doctor,
    "db": _db,
    "data": _data,
    "capture": _capture,
    "sae": _sae,
    "spans": _spans,
    "explain": _explain,
    "score": _score,
    "map": _map,
    "relevance": _relevance,
    "coverage": _coverage,
    "synthesize": _synthesize,
    "evaluate": _evaluate_samples,
    "export": _export,
    "import": _import,
    "tsv-coverage": _tsv_coverage,
    "demo": _demo,
}
