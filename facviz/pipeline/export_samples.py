"""`facviz export samples`: the data set in a format of choice, beside it a manifest with checksums."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from facviz import __version__
from facviz.errors import InputError
from facviz.files import disk_errors, sync_file, write_files
from facviz.prompts import template_text
from facviz.store.queries import Queries
from facviz.store.workspace import Workspace
from facviz.synthesis.export import BUILDERS, PROVENANCE, flat_rows, format_rows, kept_samples, tsv_text

Row = Mapping[str, Any]

FORMATS: Mapping[str, str] = {
    **dict.fromkeys(BUILDERS, ".jsonl"),
    "tsv": ".tsv",
    "parquet": ".parquet",
    "hf": "",
}
"""Every format with the suffix of its file; `hf` is a folder."""
MANIFEST = "manifest.json"
NEED_ANSWER = ("prompt-completion", "preference", "alpaca", "choices")
"""Formats that samples which are one message do not fit."""
_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64()}
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("messages", _MESSAGES),
        ("label", pa.string()),
        *((name, _TYPES[kind]) for name, kind in PROVENANCE.items()),
    ]
)
_HELP = {
    "preference": "A preference needs two answers to one prompt, as tasks with the format preference_pair have them.",
    "choices": "Options come with tasks whose format is sycophancy_item or survival_item.",
    "prompt-completion": "These are questions or plain texts, with no answer to learn.",
    "alpaca": "These are questions or plain texts, with no answer to learn.",
}


def export_samples(
    workspace: Workspace, out: Path, *, name: str = "messages", only_approved: bool = False
) -> dict[str, Any]:
    """Write the samples of a workspace with their manifest; how many, and how many were left out for which reason."""
    if name != "hf":
        _check_file(out)
    with workspace.reader() as reader:
        files, counts = sample_files(reader, name, only_approved=only_approved)
    if name == "hf":
        _write_folder(out, files)
        return {"out": str(out), "format": name, **counts}
    [content] = [content for file, content in files.items() if file != MANIFEST]
    listing = _manifest(name, {out.name: content}, counts)
    beside = out.with_name(f"{out.name}.{MANIFEST}")
    write_files({out: lambda path: path.write_bytes(content), beside: lambda path: path.write_bytes(listing)})
    return {"out": str(out), "manifest": str(beside), "format": name, **counts}


def sample_files(
    queries: Queries, name: str, *, only_approved: bool = False
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of an export by their relative name, manifest last, and what it counts; the same for the same rows.

    Raises:
        InputError: there is no sample, none is approved, or none fits the format.
    """
    found = [{**row, "prompt_sha256": _prompt_digest(row["prompt"])} for row in queries.rows("sample_records")]
    samples = kept_samples(found, only_approved=only_approved)
    if not samples and found:
        raise InputError("No sample is approved yet; approve some in the dashboard or leave out --only-approved.")
    if not samples:
        raise InputError("There are no accepted samples yet; run `facviz synthesize` first.")
    left_out: dict[str, int] = {}
    if name in BUILDERS:
        rows, left_out = format_rows(name, samples)
        if not rows:
            reasons = "; ".join(f"{n} are {reason}" for reason, n in left_out.items())
            raise InputError(
                f"No sample fits the format {name}: {reasons}. {_HELP.get(name, '')} Choose messages or tsv."
            )
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files = {f"samples{FORMATS[name]}": lines.encode("utf-8", "surrogatepass")}
    elif name == "tsv":
        files = {"samples.tsv": tsv_text(samples).encode("utf-8", "surrogatepass")}
    elif name == "parquet":
        files = {"samples.parquet": _parquet(samples)}
    else:
        files = {"README.md": dataset_card(samples).encode(), "data/train.parquet": _parquet(samples)}
    counts: dict[str, Any] = {"n_samples": len(samples) - sum(left_out.values()), "left_out": left_out}
    return files | {MANIFEST: _manifest(name, files, counts)}, counts


def packed(files: Mapping[str, bytes]) -> bytes:
    """Files as one ZIP, for a browser; the same bytes for the same files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _manifest(name: str, files: Mapping[str, bytes], counts: Mapping[str, Any]) -> bytes:
    listed = [{"name": f, "bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for f, c in files.items()]
    found = {"facviz": __version__, "format": name, **counts, "files": listed}
    return (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode()


def _parquet(samples: Sequence[Row]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(flat_rows(samples), schema=SCHEMA), out, compression="zstd")
    return out.getvalue()


def _prompt_digest(prompt: str) -> str | None:
    """SHA-256 of the template a text was asked for with; None for one that this version does not have."""
    try:
        return hashlib.sha256(template_text(prompt).encode()).hexdigest()
    except (InputError, OSError, KeyError):
        return None


def dataset_card(samples: Sequence[Row]) -> str:
    """`README.md` of the folder: what it holds, how it was made, what it cannot promise."""
    facts = "".join(f"- {title}: {_tally(samples, key)}\n" for title, key in _CARD_FACTS.items())
    made = "".join(
        f"- Coverage run `{s['coverage_id']}`: features that `{_one_line(s['anchor'])}` activates and "
        f"`{_one_line(s['seed'])}` does not, by SAE `{s['sae_id']}` at layer {s['layer']} of "
        f"`{_one_line(s['backbone'])}`\n"
        for s in {s["coverage_id"]: s for s in samples}.values()
    )
    columns = "".join(f"| `{name}` | {kind.__name__} |\n" for name, kind in PROVENANCE.items())
    return _CARD.format(n=len(samples), facts=facts, made=made, columns=columns)


_CARD_FACTS = {"Strategies": "strategy", "Written by": "generator", "Tasks": "task", "Review": "review"}
_CARD = """\
---
license: unknown
pretty_name: Samples for missing features
tags:
- synthetic
- facviz
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train.parquet
---

# Samples for missing features

{n} generated texts. Each was written for one feature that a data set failed to activate, and was read again, alone
and in float32, by the same model and sparse autoencoder: its feature fires above 1.05 δ.

{facts}
## How they were made

{made}
The method is Feature Activation Coverage (arXiv 2602.10388). `label` is the theme of the feature, or `1` where
features have no themes: the class the text was written for. Nobody judged it unless `review` says so.

## Columns

`text`, `messages`, `label`, and of where each comes from:

| column | type |
|---|---|
{columns}
## Limits

Texts are verified to activate a feature, not to be good prose, true or harmless; read them first. Before you publish
this, set the licence above by the terms of the model that wrote the texts.
"""


def _tally(samples: Sequence[Row], key: str) -> str:
    counted = Counter(str(s[key]) for s in samples).most_common(20)
    return ", ".join(f"{_one_line(value)} ({n})" for value, n in counted)


def _one_line(text: object) -> str:
    """A value in Markdown that can neither end its line nor become markup."""
    return "".join(c for c in str(text)[:200] if c.isprintable() and c not in "`|<>[]*_#")


def _check_file(out: Path) -> None:
    if out.is_dir():
        raise InputError(f"{out} is a folder; give a file for --out.")
    if not out.resolve().parent.is_dir():
        raise InputError(f"The folder {out.resolve().parent} does not exist; make it first.")


def _write_folder(out: Path, files: Mapping[str, bytes]) -> None:
    """The whole folder or none."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already; give a new or empty folder for --out.")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with disk_errors(out):
        try:
            for name, content in files.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                sync_file(path)
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
