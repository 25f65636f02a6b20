"""`facviz export`: samples, features, lists of them, a report or the SAE, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from facviz.errors import InputError
from facviz.files import write_text_atomically
from facviz.pipeline.export_samples import export_samples
from facviz.pipeline.session import sae_row
from facviz.store.workspace import Workspace


def export(
    workspace: Workspace,
    what: str,
    out: Path,
    sae_id: str | None,
    *,
    only_approved: bool = False,
    sample_format: str = "messages",
) -> dict[str, Any]:
    """Write one kind of result to `out`; how much was written."""
    if only_approved and what != "samples":
        raise InputError(f"Only samples are approved or not; leave out --only-approved to export {what}.")
    if what == "samples":
        return export_samples(workspace, out, name=sample_format, only_approved=only_approved)
    if what == "sae":
        return _export_sae(workspace, out, sae_id)
    if out.is_dir():
        raise InputError(f"{out} is a folder; give a file for --out.")
    if not out.resolve().parent.is_dir():
        raise InputError(f"The folder {out.resolve().parent} does not exist; make it first.")
    makers: dict[str, Callable[[Workspace], tuple[str, dict[str, Any]]]]
    makers = {"features": _features, "report": _report, "lists": partial(_lists, sae_id=sae_id)}
    text, counts = makers[what](workspace)
    write_text_atomically(out, text)
    return {"out": str(out), **counts}


def _features(workspace: Workspace) -> tuple[str, dict[str, Any]]:
    rows = workspace.features().to_pylist()
    if not rows:
        raise InputError("There are no feature statistics yet; run `facviz spans` first.")
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), {"n_features": len(rows)}


def _lists(workspace: Workspace, *, sae_id: str | None) -> tuple[str, dict[str, Any]]:
    with workspace.reader() as reader:
        rows = reader.rows("listed_features", list_id=None, sae_id=sae_id)
    if not rows:
        raise InputError("No feature is on a list yet; put some there on a feature's page in the dashboard.")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return text, {"n_features": len(rows), "n_lists": len({row["list_id"] for row in rows})}


def _export_sae(workspace: Workspace, out: Path, sae_id: str | None) -> dict[str, Any]:
    from facviz.sae.formats import load_sae

    row = sae_row(workspace, sae_id)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already; give a new or empty folder for --out.")
    folder = load_sae(workspace.sae_folder(row["sae_id"]) / "weights", "saelens").save(out)
    return {"out": str(folder), "sae_id": row["sae_id"], "format": "saelens"}


def _report(workspace: Workspace) -> tuple[str, dict[str, Any]]:
    runs = workspace.coverage().to_pylist()
    if not runs:
        raise InputError("There is nothing to report yet; run `facviz coverage` first.")
    parts = ["# Feature Activation Coverage report\n", *(_run_section(run) for run in runs)]
    filled = workspace.manifest.latest_done("synthesize")
    parts += [_synthesis_section(summary) for summary in filled.values()]
    return "\n".join(parts), {"n_coverage_runs": len(runs), "n_synthesis_runs": len(filled)}


def _run_section(run: Mapping[str, Any]) -> str:
    details = json.loads(run["details"])
    interval = "not measured" if run["fac_low"] is None else f"{run['fac_low']:.3f} to {run['fac_high']:.3f}"
    curve = [
        f"| {p['threshold']} | {_number(p['fac'])} | {p['n_anchor']} | {p['n_missing']} |" for p in details["curve"]
    ]
    return "\n".join(
        [
            f"## Coverage {run['coverage_id']}: {run['task']}\n",
            f"- FAC **{run['fac']:.3f}**, 95 % interval {interval}; {run['n_missing']} of {run['n_anchor']} missing",
            f"- anchor `{run['anchor']}`, seed `{run['seed']}`, SAE `{run['sae_id']}`",
            f"- δ {run['threshold_kind']} {run['act_threshold']}, level {run['level']}, by {run['relevance_source']}",
            f"- saturated: {'yes' if run['saturated'] else 'no'}\n",
            "| δ | FAC | in the anchor | missing |",
            "|---|---|---|---|",
            *curve,
            "",
        ]
    )


def _synthesis_section(summary: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"## Synthesis {summary['synth_id']} for coverage {summary['coverage_id']}\n",
            f"- {summary['n_filled']} of {summary['n_attempted']} features filled by {summary['n_accepted']} verified "
            f"samples out of {summary['n_candidates']} candidates",
            f"- FAC {summary['fac_before']:.3f} → {summary['fac_after']:.3f}, "
            f"missing coverage {summary['missing_coverage']:.1%}",
            f"- rejected: {', '.join(f'{reason} {n}' for reason, n in summary['rejected'].items()) or 'none'}",
            "",
        ]
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
