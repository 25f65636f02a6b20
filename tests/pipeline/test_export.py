"""`facviz export samples` follows what people decided, beside a dashboard that has the workspace open."""

from __future__ import annotations

import json

import pytest

from facviz.errors import InputError
from facviz.pipeline.export import export
from facviz.store.database import Database
from facviz.store.events import candidate_of
from facviz.store.workspace import open_workspace
from facviz.views.lists import add_to_list


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


def test_lists_are_exported_with_notes_and_the_explanation_that_holds(loop_copy, tmp_path):
    workspace, out = open_workspace(loop_copy / "workspace"), tmp_path / "lists.jsonl"
    with pytest.raises(InputError, match="No feature is on a list yet"):
        export(workspace, "lists", out, None)
    with Database(workspace) as database:
        database.sync()
        sae_id = database.rows("saes")[0]["sae_id"]
        add_to_list(database, "ann", sae_id, 3, "loud", "the drum")
        add_to_list(database, "bob", sae_id, 0, "loud", "")
        add_to_list(database, "bob", "another", 0, "food", "")
        assert export(workspace, "lists", out, None) == {"out": str(out), "n_features": 3, "n_lists": 2}
        assert export(workspace, "lists", out, sae_id)["n_features"] == 2
    first, second = lines_of(out)
    assert (first["name"], first["feature_id"], first["note"], first["author"]) == ("loud", 3, "the drum", "ann")
    assert (first["explanation"], second["note"]) == ('fires on "drum"', "")
