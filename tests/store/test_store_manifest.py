"""The manifest: which shards count, after kills, full disks, repeated writes and changes of mind."""

from __future__ import annotations

import errno
import signal

import pyarrow.parquet as pq
import pytest

from facviz import files
from facviz.errors import WorkspaceError
from facviz.files import read_lines
from facviz.store import manifest as manifest_module
from facviz.store.manifest import Manifest, Scope
from facviz.store.schema import SCHEMA_VERSION
from facviz.store.workspace import open_workspace

A, B = Scope("data", "corpus", "a" * 16), Scope("data", "corpus", "b" * 16)


def test_a_listed_shard_is_a_complete_file_and_is_read(workspace, dataset_rows, names_in):
    workspace.manifest.write_shard(A, "dataset", "0", dataset_rows("one", "two"))
    [path] = workspace.manifest.live_shards()["dataset"]
    assert pq.read_table(path).num_rows == 2
    assert names_in(workspace) == ["one", "two"]
    [entry] = workspace.manifest.entries()
    assert (entry["kind"], entry["rows"], entry["schema"]) == ("shard", 2, SCHEMA_VERSION)
    assert workspace.manifest.has_shard(A, "dataset", "0")


@pytest.mark.parametrize(
    ("scope", "table", "shard"),
    [(B, "dataset", "0"), (A, "document", "0"), (A, "dataset", "1"), (Scope("x", "corpus", "a" * 16), "dataset", "0")],
)
def test_a_shard_of_another_result_table_or_number_is_not_this_one(workspace, dataset_rows, scope, table, shard):
    workspace.manifest.write_shard(A, "dataset", "0", dataset_rows("one"))
    assert not workspace.manifest.has_shard(scope, table, shard)


def test_a_shard_whose_entry_a_kill_prevented_is_not_listed_and_is_written_again(
    workspace, dataset_rows, names_in, monkeypatch
):
    def kill(*_):
        raise KeyboardInterrupt

    workspace.manifest.write_shard(A, "dataset", "0", dataset_rows("one"))
    with monkeypatch.context() as patched:
        patched.setattr(manifest_module, "append_line", kill)
        with pytest.raises(KeyboardInterrupt):
            workspace.manifest.write_shard(A, "dataset", "1", dataset_rows("two"))
    assert names_in(workspace) == ["one"]
    assert not workspace.manifest.has_shard(A, "dataset", "1")
    workspace.manifest.write_shard(A, "dataset", "1", dataset_rows("two"))
    assert names_in(workspace) == ["one", "two"]


def test_a_shard_written_twice_counts_once_with_its_last_rows(workspace, dataset_rows, names_in):
    for name in ("old", "new"):
        workspace.manifest.write_shard(A, "dataset", "0", dataset_rows(name))
    assert len(workspace.manifest.entries()) == 2
    assert names_in(workspace) == ["new"]


def test_a_torn_last_line_of_the_manifest_is_not_a_shard_and_does_not_swallow_the_next(
    workspace, dataset_rows, names_in
):
    for name in ("one", "two"):
        workspace.manifest.write_shard(A, "dataset", name, dataset_rows(name))
    path = workspace.root / "tables" / "manifest.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    assert names_in(workspace) == ["one"]
    workspace.manifest.write_shard(A, "dataset", "three", dataset_rows("three"))
    assert names_in(workspace) == ["one", "three"]


def test_of_several_results_of_one_scope_the_latest_counts_and_going_back_works(workspace, dataset_rows, names_in):
    manifest = workspace.manifest
    for scope, name in ((A, "first"), (B, "second")):
        manifest.write_shard(scope, "dataset", "0", dataset_rows(name))
        manifest.mark_done(scope, {"name": name})
        assert names_in(workspace) == [name]
        assert manifest.is_latest(scope)
        assert manifest.latest_fingerprint(scope.key) == scope.fingerprint
    assert manifest.done(A) == {"name": "first"}
    assert not manifest.is_latest(A)
    manifest.mark_done(A, {"name": "first"})
    assert names_in(workspace) == ["first"]
    assert (manifest.is_latest(A), manifest.is_latest(B)) == (True, False)
    assert manifest.latest_done("data") == {"corpus": {"name": "first"}}


def test_results_of_other_scopes_stay(workspace, dataset_rows, names_in):
    other = Scope("data", "other corpus", "c" * 16)
    for scope, name in ((A, "a"), (other, "c"), (B, "b")):
        workspace.manifest.write_shard(scope, "dataset", "0", dataset_rows(name))
    assert names_in(workspace) == ["c", "b"]


def test_a_scope_that_was_never_finished_is_neither_done_nor_latest(workspace, dataset_rows):
    manifest = workspace.manifest
    assert manifest.done(A) is None
    assert not manifest.is_latest(A)
    assert manifest.latest_fingerprint(A.key) is None
    manifest.write_shard(A, "dataset", "0", dataset_rows("one"))
    assert manifest.done(A) is None
    assert manifest.latest_done("data") == {}


def test_latest_done_gives_subjects_oldest_first_and_no_other_stage(workspace):
    manifest = workspace.manifest
    for subject, value in (("x", 1), ("y/z", 2), ("x", 3)):
        manifest.mark_done(Scope("sae", subject, f"{value}" * 16), {"value": value})
    manifest.mark_done(Scope("saes", "x", "9" * 16), {"value": 9})
    assert list(manifest.latest_done("sae").items()) == [("y/z", {"value": 2}), ("x", {"value": 3})]


def test_a_result_whose_shard_is_gone_is_not_done_and_its_stage_can_write_it_again(workspace, dataset_rows, names_in):
    manifest = workspace.manifest
    manifest.write_shard(A, "dataset", "0", dataset_rows("one"))
    manifest.mark_done(A, {})
    [path] = manifest.live_shards()["dataset"]
    path.unlink()
    assert manifest.done(A) is None
    assert not manifest.has_shard(A, "dataset", "0")
    with workspace.reader() as reader:
        with pytest.raises(WorkspaceError, match=r"shard .* is gone; restore it or run the stage"):
            reader.rows("datasets")
        assert reader.rows("saes") == []
    manifest.write_shard(A, "dataset", "0", dataset_rows("one"))
    assert manifest.done(A) == {}
    assert names_in(workspace) == ["one"]


def test_subjects_that_read_alike_never_share_a_file_even_with_equal_fingerprints(workspace, dataset_rows, names_in):
    long = "sae/" + "n" * 100
    subjects = ["a/b", "a_b", "a b", "a'b", long + "1", long + "2", "é" * 200, "../../outside"]
    for subject in subjects:
        workspace.manifest.write_shard(Scope("data", subject, "f" * 16), "dataset", "0", dataset_rows(subject))
    assert names_in(workspace) == subjects
    assert len(list(workspace.root.rglob("*.parquet"))) == len(subjects)
    assert not list(workspace.root.parent.glob("*.parquet"))


def test_equal_fingerprints_of_two_stages_do_not_share_a_file(workspace, dataset_rows, names_in):
    for stage in ("one", "two"):
        workspace.manifest.write_shard(Scope(stage, "corpus", "f" * 16), "dataset", "0", dataset_rows(stage))
    assert names_in(workspace) == ["one", "two"]


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["writing", "syncing"])
def test_a_full_disk_is_one_sentence_and_leaves_the_earlier_shards_intact(
    workspace, dataset_rows, names_in, monkeypatch, place
):
    workspace.manifest.write_shard(A, "dataset", "0", dataset_rows("one"))
    with monkeypatch.context() as patched:
        if place == "writing":
            patched.setattr(manifest_module.pq, "write_table", no_space)
        else:
            patched.setattr(files.os, "fsync", no_space)
        with pytest.raises(WorkspaceError, match=r"^Cannot write .*No space left on device\); free space .* kept\.$"):
            workspace.manifest.write_shard(A, "dataset", "1", dataset_rows("two"))
    assert names_in(workspace) == ["one"]
    assert [p.suffix for p in (workspace.root / "tables" / "dataset").iterdir()] == [".parquet"]
    workspace.manifest.write_shard(A, "dataset", "1", dataset_rows("two"))
    assert names_in(workspace) == ["one", "two"]


def test_a_real_write_past_the_limit_is_one_sentence_too(workspace, dataset_rows, names_in, run_python):
    workspace.manifest.write_shard(A, "dataset", "0", dataset_rows("one"))
    output = run_python(
        """
import random, resource, sys
from facviz.errors import WorkspaceError
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.workspace import open_workspace
rows = [{"dataset_id": str(random.random()), "name": str(random.random())} for _ in range(20_000)]
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    workspace = open_workspace(sys.argv[1])
    workspace.manifest.write_shard(Scope("data", "corpus", "a" * 16), "dataset", "1", rows_to_arrow("dataset", rows))
except WorkspaceError as error:
    print(error)
""",
        workspace.root,
    )
    assert output.startswith("Cannot write ")
    assert "File too large" in output
    assert len(output.splitlines()) == 1
    assert names_in(workspace) == ["one"]
    assert len(list((workspace.root / "tables" / "dataset").iterdir())) == 1


WRITER = """
import sys
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.workspace import open_workspace
scope = Scope("data", "corpus", "a" * 16)
manifest = open_workspace(sys.argv[1]).manifest
for shard in map(str, range(int(sys.argv[2]))):
    if not manifest.has_shard(scope, "dataset", shard):
        rows = [{"dataset_id": f"{shard}-{i}", "name": "x"} for i in range(50)]
        manifest.write_shard(scope, "dataset", shard, rows_to_arrow("dataset", rows))
    print(shard, flush=True)
manifest.mark_done(scope, {})
"""


def test_a_writer_killed_at_work_loses_at_most_its_unfinished_shard(workspace, start_python, run_python):
    process = start_python(WRITER, workspace.root, 100_000)
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    listed = [e["shard"] for e in workspace.manifest.entries()]
    assert listed == [str(i) for i in range(len(listed))]
    assert len(listed) >= 5
    with workspace.reader() as reader:
        assert len(reader.rows("datasets")) == 50 * len(listed)
    run_python(WRITER, workspace.root, len(listed) + 2)
    with workspace.reader() as reader:
        found = [row["dataset_id"] for row in reader.rows("datasets")]
    assert found == [f"{s}-{i}" for s in range(len(listed) + 2) for i in range(50)]


def test_entries_of_something_else_in_the_file_are_skipped(tmp_path):
    (tmp_path / "manifest.jsonl").write_text('{"note": "no scope"}\n')
    assert Manifest(tmp_path).entries() == []
    assert read_lines(tmp_path / "manifest.jsonl") == [{"note": "no scope"}]


def test_another_process_sees_a_shard_as_soon_as_it_is_listed(workspace, dataset_rows, run_python):
    workspace.manifest.write_shard(A, "dataset", "0", dataset_rows("one"))
    read = "import sys, facviz; print(facviz.open_workspace(sys.argv[1]).reader().rows('datasets')[0]['name'])"
    assert run_python(read, workspace.root) == "one"
    assert open_workspace(workspace.root).manifest.has_shard(A, "dataset", "0")
