"""`facviz import fac-tsv | review-csv`: what other tools and people say of features, taken into a workspace.

What a machine said becomes rows of `explanation` and `relevance` that name their author; what a person said becomes
review events, so that each can be undone in the dashboard. A change of what somebody has changed meanwhile is listed
and left out. The same file twice changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from facviz.config import fingerprint
from facviz.errors import InputError
from facviz.exchange.fac_tsv import FacRow, FacTable, read_fac_tsv
from facviz.exchange.review_csv import Change, Fate, ReviewRow, changes_of, read_review_csv
from facviz.explain.judging import VERDICT_SCORES
from facviz.pipeline.exchange import current_verdicts, problems
from facviz.pipeline.session import sae_row
from facviz.prompts import load_task
from facviz.records import DroppedRow, ExplanationOutcome
from facviz.store.events import append_events, as_batch, explanation_of, new_event, relevance_of
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.workspace import Workspace

IMPORT_VERSION = 1
"""Raised when an import makes something else of the same file."""


@dataclass(frozen=True, slots=True)
class ImportWish:
    """Who says what a file says, and how much may change; `theirs` lets the file win over newer decisions."""

    author: str = ""
    by_person: bool = False
    theirs: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Now:
    """What the workspace says of features at this moment; verdicts by (task, feature)."""

    sae_id: str
    d_sae: int
    written: Mapping[int, str]  # by machines
    explanations: Mapping[int, str]
    judged: Mapping[tuple[str, int], str]  # by machines
    verdicts: Mapping[tuple[str, int], str]


def import_fac_tsv(
    workspace: Workspace, path: Path, sae_id: str | None, task: str | None, wish: ImportWish
) -> dict[str, Any]:
    """Summaries as explanations, and the Task column as verdicts for `task`; by a person, as review events.

    Raises:
        InputError: the file cannot be read, holds nothing to import, or its features are not this SAE's.
    """
    row = sae_row(workspace, sae_id)
    name = load_task(task).name if task else ""
    table = read_fac_tsv(path)
    foreign = [_foreign(r.feature_id, r.line, row["d_sae"], path) for r in table.rows if r.feature_id >= row["d_sae"]]
    rows = [r for r in table.rows if r.feature_id < row["d_sae"]]
    counted = _counts(table, rows, foreign, name)
    if not counted["n_explained"] + counted["n_cannot_tell"] + counted["n_verdicts"]:
        raise InputError(f"{path.name} has no explanation, and no verdict for a task named with --task, to import.")
    if wish.by_person:
        now = _now(workspace, row, [name] if name else [])
        return counted | _apply(workspace, now, _asked_by_tsv(rows, now, name), path, wish)
    return counted | _add_rows(workspace, row["sae_id"], name, rows, path, wish)


def import_review_csv(workspace: Workspace, path: Path, sae_id: str | None, wish: ImportWish) -> dict[str, Any]:
    """The changes of a file exported for review, each as an event of its author."""
    row = sae_row(workspace, sae_id)
    table = read_review_csv(path)
    tasks = {name: load_task(name).name for name in {r.task for r in table.rows} if name}
    now = _now(workspace, row, sorted(set(tasks.values())))
    malformed = list(table.malformed)
    changes: list[Change] = []
    for found in table.rows:
        if found.sae_id != now.sae_id or found.feature_id >= now.d_sae:
            malformed.append(_foreign(found.feature_id, found.line, now.d_sae, path))
            continue
        changes += _changes_now(replace(found, task=tasks.get(found.task, "")), now)
    result = {"file": path.name, "sae_id": now.sae_id, "n_rows": len(table.rows), "n_malformed": len(malformed)}
    return result | {"malformed": problems(malformed)} | _apply(workspace, now, changes, path, wish)


def _changes_now(row: ReviewRow, now: Now) -> list[Change]:
    verdict = now.verdicts.get((row.task, row.feature_id), "")
    return changes_of(row, now.explanations.get(row.feature_id, ""), verdict)


def _counts(table: FacTable, rows: Sequence[FacRow], foreign: Sequence[DroppedRow], task: str) -> dict[str, Any]:
    malformed = [*table.malformed, *foreign]
    outcomes = [row.outcome for row in rows]
    verdicts = [row.task.decision.verdict for row in rows if task and row.task]
    return {
        "n_rows": len(rows),
        "n_explained": outcomes.count(ExplanationOutcome.EXPLAINED),
        "n_cannot_tell": outcomes.count(ExplanationOutcome.CANNOT_TELL),
        "n_verdicts": sum(v is not None for v in verdicts),
        "n_malformed": len(malformed),
        "malformed": problems(malformed),
        "unreadable_verdicts": problems(table.unreadable),
    }


def _foreign(feature_id: int, line: int, d_sae: int, path: Path) -> DroppedRow:
    reason = f"feature {feature_id} is not of this SAE, which has {d_sae} features; choose another with --sae"
    return DroppedRow(line, reason, "", path.name)


def _now(workspace: Workspace, sae: Mapping[str, Any], tasks: Sequence[str]) -> Now:
    sae_id = str(sae["sae_id"])
    with workspace.reader() as reader:
        explained = reader.rows("explanations", sae_id=sae_id)
        found = {task: current_verdicts(reader, sae_id, task) for task in tasks}
    verdicts = {(task, i): row for task, rows in found.items() for i, row in rows.items()}
    return Now(
        sae_id=sae_id,
        d_sae=int(sae["d_sae"]),
        written={r["feature_id"]: r["written"] or "" for r in explained},
        explanations={r["feature_id"]: r["text"] or "" for r in explained},
        judged={key: r["verdict"] for key, r in verdicts.items() if r["source"] != "human"},
        verdicts={key: r["verdict"] for key, r in verdicts.items()},
    )


def _asked_by_tsv(rows: Iterable[FacRow], now: Now, task: str) -> list[Change]:
    """Everything a person's file says. It does not tell what it was written from: a machine's words may be replaced."""
    changes: list[Change] = []
    for row in rows:
        i = row.feature_id
        if row.summary and row.outcome is ExplanationOutcome.EXPLAINED:
            now_text = now.explanations.get(i, "")
            changes.append(Change(row.line, i, "", row.summary, now.written.get(i, ""), now_text))
        verdict = row.task.decision.verdict if task and row.task else None
        if verdict is not None:
            key = (task, i)
            is_persons = key in now.verdicts and key not in now.judged
            before = "" if is_persons else now.verdicts.get(key, "")
            changes.append(Change(row.line, i, task, verdict.value, before, now.verdicts.get(key, "")))
    return changes


def _apply(workspace: Workspace, now: Now, changes: Sequence[Change], path: Path, wish: ImportWish) -> dict[str, Any]:
    """Write the events of the changes that may be made, after all of them were found to be sound."""
    if not wish.author.strip() and not wish.dry_run:
        raise InputError("Say whose decisions these are; give a name with --author.")
    wanted: dict[str, Change] = {}
    events: list[dict[str, Any]] = []
    conflicts: list[dict[str, Any]] = []
    refused: list[DroppedRow] = []
    for change in changes:
        target = explanation_of(now.sae_id, change.feature_id)
        kind, payload = "edit", {"text": change.value}
        if change.task:
            target = relevance_of(now.sae_id, change.feature_id, change.task)
            kind, payload = "verdict", {"verdict": change.value}
        first = wanted.setdefault(target.key, change)
        if first is not change:
            if first.value != change.value:
                reason = f"line {first.line} asks for something else of feature {change.feature_id}"
                refused.append(DroppedRow(change.line, reason, change.value[:200], path.name))
            continue
        if change.fate is Fate.CONFLICT and not wish.theirs:
            conflicts.append(asdict(change))
        elif change.fate is not Fate.DONE:
            details = payload | {"previous": change.current, "imported_from": path.name}
            try:
                events.append(new_event(wish.author.strip(), target, kind, details))
            except InputError as error:
                refused.append(DroppedRow(change.line, str(error), change.value[:200], path.name))
    if events and not wish.dry_run:
        append_events(workspace.root / "events", as_batch(events))
    return {
        "dry_run": wish.dry_run,
        "n_changes": len(changes),
        "n_applied": 0 if wish.dry_run else len(events),
        "n_would_apply": len(events),
        "n_already_so": sum(change.fate is Fate.DONE for change in changes),
        "n_conflicts": len(conflicts),
        "conflicts": conflicts,
        "refused": problems(refused),
    }


def _add_rows(
    workspace: Workspace, sae_id: str, task: str, rows: Sequence[FacRow], path: Path, wish: ImportWish
) -> dict[str, Any]:
    """A machine's explanations, each one version above what the workspace has, and its verdicts for the task."""
    author = wish.author.strip() or path.name
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    name = fingerprint("import", IMPORT_VERSION, content, sae_id, task, author)
    said, judged = Scope("import", f"{sae_id}/{author}", name), Scope("relevance", f"{task}/{sae_id}/llm", name)
    manifest = workspace.manifest
    verdicts = _verdict_rows(rows, sae_id, task, author) if task else []
    own = manifest.latest_done("relevance").get(judged.subject)
    if verdicts and own is not None and "imported_from" not in own and not wish.theirs:
        raise InputError(
            f"This workspace has verdicts by a language model for {task} of its own; give --theirs to replace them."
        )
    scopes = [said, judged] if verdicts else [said]
    is_known = all(manifest.done(scope) is not None and manifest.is_latest(scope) for scope in scopes)
    summary = {"imported_from": path.name, "author": author, "dry_run": wish.dry_run, "n_applied": 0}
    if is_known or wish.dry_run:
        return summary
    with workspace.reader() as reader:
        versions = {r["feature_id"]: int(r["version"]) for r in reader.rows("explanations", sae_id=sae_id)}
    explanations = _explanation_rows(rows, sae_id, author, versions)
    summary["n_applied"] = len(explanations) + len(verdicts)
    if verdicts:
        manifest.write_shard(judged, "relevance", "0", rows_to_arrow("relevance", verdicts))
        manifest.mark_done(judged, {**summary, "task": task, "source": "llm", "n_judged": len(verdicts)})
    manifest.write_shard(said, "explanation", "0", rows_to_arrow("explanation", explanations))
    manifest.mark_done(said, summary)
    return summary


def _verdict_rows(rows: Iterable[FacRow], sae_id: str, task: str, author: str) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "sae_id": sae_id,
            "feature_id": row.feature_id,
            "source": "llm",
            "verdict": verdict.value,
            "score": VERDICT_SCORES[verdict],
            "rationale": (row.task.analysis or "") if row.task else "",
            "author": author,
            "theme": "",
        }
        for row in rows
        if row.task and (verdict := row.task.decision.verdict) is not None
    ]


def _explanation_rows(
    rows: Iterable[FacRow], sae_id: str, author: str, versions: Mapping[int, int]
) -> list[dict[str, Any]]:
    return [
        {
            "sae_id": sae_id,
            "feature_id": row.feature_id,
            "version": versions.get(row.feature_id, 0) + 1,
            "text": row.summary if outcome is ExplanationOutcome.EXPLAINED else "",
            "author_kind": "llm",
            "author": author,
            "prompt": "",
            "outcome": outcome.value,
            "scores": "{}",
        }
        for row in rows
        if (outcome := row.outcome) is not None
    ]
