"""`facviz export samples` follows what people decided, beside a dashboard that has the workspace open."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from facviz.config import DatasetConfig
from facviz.corpus.reader import CorpusReader
from facviz.errors import InputError
from facviz.pipeline.export import export
from facviz.pipeline.export_samples import FORMATS, NEED_ANSWER, dataset_card
from facviz.store.database import Database
from facviz.store.events import candidate_of
from facviz.store.workspace import open_workspace
from facviz.synthesis.export import PROVENANCE
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


@pytest.mark.parametrize("name", ["messages", "sft", "sharegpt", "tsv", "parquet", "hf"])
def test_every_format_loads_back_as_the_texts_it_was_written_from(loop_copy, tmp_path, name):
    workspace = open_workspace(loop_copy / "workspace")
    out = tmp_path / f"samples{FORMATS[name]}"
    told = export(workspace, "samples", out, None, sample_format=name)
    assert (told["n_samples"], told["left_out"]) == (12, {})
    path = out / "data" / "train.parquet" if name == "hf" else out
    documents = list(CorpusReader(DatasetConfig("back", str(path))))
    samples = workspace.samples().to_pylist()
    assert [d.text for d in documents] == [s["text"] for s in samples]
    labelled = name in ("messages", "tsv", "parquet", "hf")
    assert {d.label for d in documents} == ({"1"} if labelled else {None})


@pytest.mark.parametrize("name", FORMATS)
def test_the_manifest_names_every_file_with_its_checksum(loop_copy, tmp_path, name):
    workspace, out = open_workspace(loop_copy / "workspace"), tmp_path / f"samples{FORMATS[name]}"
    if name in NEED_ANSWER:
        with pytest.raises(InputError, match=f"No sample fits the format {name}: 12 are without"):
            export(workspace, "samples", out, None, sample_format=name)
        assert not out.exists()
        return
    told = export(workspace, "samples", out, None, sample_format=name)
    listed = json.loads((out / "manifest.json" if name == "hf" else Path(told["manifest"])).read_text())
    folder = out if name == "hf" else out.parent
    assert listed["n_samples"] == 12
    for file in listed["files"]:
        content = (folder / file["name"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file["sha256"], file["bytes"])
    again = tmp_path / "again" / out.name
    again.parent.mkdir()
    export(workspace, "samples", again, None, sample_format=name)
    first = next(iter(listed["files"]))["name"]
    second = again / first if name == "hf" else again
    assert second.read_bytes() == (folder / first).read_bytes()


def test_a_row_says_where_it_comes_from(loop_copy, tmp_path):
    workspace, out = open_workspace(loop_copy / "workspace"), tmp_path / "samples.jsonl"
    export(workspace, "samples", out, None)
    [run] = workspace.coverage().to_pylist()
    row = lines_of(out)[0]
    origin = row["provenance"]
    assert (origin["coverage_id"], origin["sae_id"], origin["anchor"], origin["seed"]) == (
        run["coverage_id"],
        run["sae_id"],
        "anchor",
        "seed",
    )
    assert origin["explanation"]
    assert origin["explanation_version"] == 1
    assert len(origin["prompt_sha256"]) == 64
    assert origin["act"] > 1.05 * origin["act_threshold"]
    assert (origin["strong_id"] is None) == (origin["pair_state"] != "paired")
    with Database(workspace) as database:
        database.record("ann", candidate_of(row["candidate_id"]), "approve")
    export(workspace, "samples", out, None, only_approved=True)
    [row] = lines_of(out)
    assert (row["provenance"]["review"], row["provenance"]["reviewer"]) == ("approved", "ann")


def test_the_card_of_a_folder_holds_no_markup_from_outside(loop_copy):
    sample = dict.fromkeys(PROVENANCE) | {"strategy": "x", "task": "t", "review": "r", "layer": 1}
    hostile = "<script>alert(1)</script>\n# heading | `code`"
    card = dataset_card([sample | {"generator": hostile, "anchor": hostile, "seed": "s", "backbone": hostile}])
    assert "<script>" not in card
    assert "\n# heading" not in card
    assert card.startswith("---\nlicense: unknown\n")


def test_the_folder_is_a_hugging_face_data_set(loop_copy, tmp_path):
    import datasets

    out = tmp_path / "samples"
    export(open_workspace(loop_copy / "workspace"), "samples", out, None, sample_format="hf")
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == 12
    assert loaded["train"][0]["messages"][0]["role"] == "user"
