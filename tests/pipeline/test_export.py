"""`facviz export samples` follows what people decided, beside a dashboard that has the workspace open."""

from __future__ import annotations

import json

import pytest

from facviz.errors import InputError
from facviz.pipeline.export import export
from facviz.store.database import Database
from facviz.store.events import candidate_of
from facviz.store.workspace import open_workspace


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rejected_samples_are_left_out_and_approved_ones_can_be_taken_alone(loop_copy, tmp_path):
    workspace, out = open_workspace(loop_copy / "workspace"), tmp_path / "out.jsonl"
    first, second = workspace.samples().to_pylist()[:2]
    with pytest.raises(InputError, match="No sample is approved yet"):
        export(workspace, "samples", out, None, only_approved=True)
    with Database(workspace) as database:
        database.record("ann", candidate_of(first["candidate_id"]), "approve")
        database.record("ann", candidate_of(second["candidate_id"]), "reject")
        assert export(workspace, "samples", out, None)["n_samples"] == 11
        assert {line["review"] for line in lines_of(out)} == {"approved", "unreviewed"}
        assert export(workspace, "samples", out, None, only_approved=True)["n_samples"] == 1
        assert lines_of(out)[0]["text"] == first["text"]


def test_only_samples_can_be_asked_for_by_approval(loop_copy, tmp_path):
    with pytest.raises(InputError, match="leave out --only-approved"):
        export(open_workspace(loop_copy / "workspace"), "report", tmp_path / "r.md", None, only_approved=True)
