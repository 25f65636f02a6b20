"""`facviz db rebuild`: the dashboard's file holds what the shards and events say, and is never half-written."""

from __future__ import annotations

import json

import duckdb
import pytest

from facviz.errors import WorkspaceError
from facviz.store import database as ingest
from facviz.store.database import rebuild_database
from facviz.store.manifest import Scope
from facviz.store.schema import SCHEMA_VERSION, TABLES
from facviz.store.workspace import Workspace


def rows_of(connection, table):
    return sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)


def check_same(workspace, counts):
    """Every table of the file equals the reader's view of it."""
    with duckdb.connect(str(workspace.root / "facviz.duckdb"), read_only=True) as file, workspace.reader() as reader:
        for table in (*TABLES, "review_event"):
            expected = rows_of(reader._connection, table)
            assert rows_of(file, table) == expected
            assert counts[table] == len(expected)
        assert file.execute("SELECT version FROM schema_version").fetchall() == [(SCHEMA_VERSION,)]


def write_event(workspace, **event):
    folder = workspace.root / "events"
    folder.mkdir(exist_ok=True)
    with (folder / "reviews.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def test_the_rebuilt_file_holds_the_same_rows_as_the_reader(full_workspace):
    write_event(full_workspace, event_id="e1", kind="approve", payload={"text": "o'k"})
    counts = rebuild_database(full_workspace)
    assert counts == dict.fromkeys(TABLES, 4) | {"review_event": 1}
    check_same(full_workspace, counts)


def test_an_empty_workspace_rebuilds_to_empty_tables(workspace):
    counts = rebuild_database(workspace)
    assert set(counts.values()) == {0}
    check_same(workspace, counts)


def test_after_the_file_is_deleted_or_things_change_a_rebuild_has_everything_again(full_workspace, dataset_rows):
    write_event(full_workspace, event_id="e1", kind="edit", payload={})
    rebuild_database(full_workspace)
    (full_workspace.root / "facviz.duckdb").unlink()
    write_event(full_workspace, event_id="e2", kind="undo", undoes="e1")
    full_workspace.manifest.write_shard(Scope("data", "new", "a" * 16), "dataset", "0", dataset_rows("new"))
    counts = rebuild_database(full_workspace)
    assert (counts["review_event"], counts["dataset"]) == (2, 5)
    check_same(full_workspace, counts)
    check_same(full_workspace, rebuild_database(full_workspace))


def test_activations_taken_in_together_lie_by_feature_and_strongest_first(workspace):
    from facviz.store.schema import rows_to_arrow

    for shard, acts in enumerate([[1.0, 3.0], [2.0, 4.0]]):
        rows = [{"sae_id": "s", "dataset_id": "d", "feature_id": 1 - i, "max_act": a} for i, a in enumerate(acts)]
        scope = Scope("spans", "s", "f" * 16)
        workspace.manifest.write_shard(scope, "doc_activation", str(shard), rows_to_arrow("doc_activation", rows))
    rebuild_database(workspace)
    with duckdb.connect(str(workspace.root / "facviz.duckdb"), read_only=True) as file:
        found = file.execute("SELECT feature_id, max_act FROM shard_doc_activation ORDER BY rowid").fetchall()
    assert found == [(0, 4.0), (0, 3.0), (1, 2.0), (1, 1.0)]


@pytest.mark.parametrize("folder", ["it's a place", "clock with blocks", "a[1]", "name=evil"])
def test_a_rebuild_works_wherever_the_workspace_lies(tmp_path, dataset_rows, folder):
    workspace = Workspace.create(tmp_path / folder)
    workspace.manifest.write_shard(Scope("data", "d", "f" * 16), "dataset", "0", dataset_rows("it's"))
    check_same(workspace, rebuild_database(workspace))
    with duckdb.connect(str(workspace.root / "facviz.duckdb"), read_only=True) as file:
        assert file.execute("SELECT shard_no FROM shard_dataset").fetchall() == [(0,)]


@pytest.mark.parametrize("damage", [b"", b"junk", b"x" * 20_000, None])
def test_a_damaged_file_is_exactly_what_a_rebuild_replaces(tmp_path, dataset_rows, damage):
    workspace = Workspace.create(tmp_path / "clock")  # a path with "lock" in it is no lock
    workspace.manifest.write_shard(Scope("data", "d", "f" * 16), "dataset", "0", dataset_rows("one"))
    rebuild_database(workspace)
    target = workspace.root / "facviz.duckdb"
    target.write_bytes(target.read_bytes()[:5000] if damage is None else damage)
    check_same(workspace, rebuild_database(workspace))


def test_the_log_of_a_killed_dashboard_is_not_replayed_on_the_new_file(workspace, dataset_rows):
    workspace.manifest.write_shard(Scope("data", "d", "f" * 16), "dataset", "0", dataset_rows("one"))
    rebuild_database(workspace)
    (workspace.root / "facviz.duckdb.wal").write_bytes(b"what is left of another file's log")
    check_same(workspace, rebuild_database(workspace))
    assert not (workspace.root / "facviz.duckdb.wal").exists()


HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
print(connection.execute("SELECT name FROM dataset").fetchall(), flush=True)
sys.stdin.readline()
print(connection.execute("SELECT name FROM dataset").fetchall(), flush=True)
"""


@pytest.mark.parametrize("mode", ["read", "write"])
def test_beside_an_open_dashboard_reading_works_and_rebuilding_is_refused(
    workspace, dataset_rows, names_in, start_python, mode
):
    workspace.manifest.write_shard(Scope("data", "a", "f" * 16), "dataset", "0", dataset_rows("one"))
    rebuild_database(workspace)
    target = workspace.root / "facviz.duckdb"
    dashboard = start_python(HOLD, target, mode)
    assert dashboard.stdout.readline() == "[('one',)]\n"
    assert names_in(workspace) == ["one"]
    workspace.manifest.write_shard(Scope("data", "b", "f" * 16), "dataset", "0", dataset_rows("two"))
    assert names_in(workspace) == ["one", "two"]
    with pytest.raises(WorkspaceError, match=r"open in another program; close the dashboard and run this again\.$"):
        rebuild_database(workspace)
    output, errors = dashboard.communicate("\n")
    assert (output, dashboard.returncode) == ("[('one',)]\n", 0), errors
    check_same(workspace, rebuild_database(workspace))


def leftovers(workspace):
    return sorted(p.name for p in workspace.root.iterdir() if "facviz" in p.name)


def test_a_damaged_shard_stops_the_rebuild_and_the_old_file_stays(workspace, dataset_rows):
    workspace.manifest.write_shard(Scope("data", "a", "f" * 16), "dataset", "0", dataset_rows("one"))
    rebuild_database(workspace)
    before = (workspace.root / "facviz.duckdb").read_bytes()
    [path] = workspace.manifest.live_shards()["dataset"]
    path.write_bytes(b"junk")
    with pytest.raises(WorkspaceError, match="delete it and run the stage that wrote it again"):
        rebuild_database(workspace)
    path.unlink()
    with pytest.raises(WorkspaceError, match="is gone; restore it or run the stage that wrote it again"):
        rebuild_database(workspace)
    assert (workspace.root / "facviz.duckdb").read_bytes() == before
    assert leftovers(workspace) == ["facviz.duckdb"]


def test_a_full_disk_stops_the_rebuild_in_one_sentence_and_the_old_file_stays(workspace, dataset_rows, run_python):
    workspace.manifest.write_shard(Scope("data", "a", "f" * 16), "dataset", "0", dataset_rows(*map(str, range(50_000))))
    target = workspace.root / "facviz.duckdb"
    target.write_bytes(b"")
    output = run_python(
        """
import resource, sys
from facviz.errors import WorkspaceError
from facviz.store.database import rebuild_database
from facviz.store.workspace import open_workspace
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    print(rebuild_database(open_workspace(sys.argv[1])))
except WorkspaceError as error:
    print(error)
""",
        workspace.root,
    )
    assert output.startswith(f"Cannot write {target}")
    assert len(output.splitlines()) == 1
    assert leftovers(workspace) == ["facviz.duckdb"]


def test_a_kill_in_the_middle_keeps_the_old_file(full_workspace, monkeypatch):
    counts = rebuild_database(full_workspace)

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ingest, "_take_in_events", kill)
        with pytest.raises(KeyboardInterrupt):
            rebuild_database(full_workspace)
    check_same(full_workspace, counts)
    assert leftovers(full_workspace) == ["facviz.duckdb"]
