"""A workspace: which folders are accepted, who may write, and what the read-only front door answers."""

from __future__ import annotations

import json
import os
import signal

import pytest

import facviz
from facviz.errors import WorkspaceError
from facviz.store.manifest import Scope
from facviz.store.schema import SCHEMA_VERSION, rows_to_arrow
from facviz.store.workspace import META_FILE, Workspace, open_workspace


def is_one_sentence(error: BaseException) -> bool:
    text = str(error)
    return text.endswith(".") and "\n" not in text


def test_a_new_or_empty_folder_becomes_a_workspace_and_opens_again(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "deep/new"):
        created = Workspace.create(tmp_path / name)
        assert created.meta == {"schema": SCHEMA_VERSION}
        assert Workspace.create(str(tmp_path / name)).root == created.root == open_workspace(tmp_path / name).root


def test_a_folder_a_kill_left_half_created_is_taken_over(tmp_path):
    (tmp_path / f".{META_FILE}.4711.tmp").write_text("{")
    assert Workspace.create(tmp_path).meta == {"schema": SCHEMA_VERSION}


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="choose an empty or new folder") as caught:
        Workspace.create(tmp_path)
    assert is_one_sentence(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("below", ["", "/inside"])
def test_a_file_is_no_workspace(tmp_path, below):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkspaceError) as caught:
        Workspace.create(f"{tmp_path}/file{below}")
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize("make", [False, True])
def test_opening_what_is_no_workspace_says_what_to_give(tmp_path, make):
    path = tmp_path / "nothing"
    if make:
        path.mkdir()
    with pytest.raises(WorkspaceError, match="no facviz workspace; give the folder of an earlier run"):
        open_workspace(path)
    assert path.exists() == make


@pytest.mark.parametrize("schema", [SCHEMA_VERSION + 1, "2", None, 1.5])
def test_a_workspace_of_a_newer_facviz_is_refused(workspace, schema):
    (workspace.root / META_FILE).write_text(json.dumps({"schema": schema}))
    for opened in (open_workspace, Workspace.create):
        with pytest.raises(WorkspaceError, match=r"written by a newer facviz .* update facviz"):
            opened(workspace.root)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"null", b"[1]", b"7"])
def test_a_damaged_description_is_one_sentence(workspace, damage):
    (workspace.root / META_FILE).write_bytes(damage)
    with pytest.raises(WorkspaceError, match="cannot be read") as caught:
        open_workspace(workspace.root)
    assert is_one_sentence(caught.value)


def test_facts_are_remembered_across_openings(workspace):
    workspace.remember(dtype="bfloat16")
    workspace.remember(bfloat16_speedup=2.5)
    assert open_workspace(workspace.root).meta == {
        "schema": SCHEMA_VERSION,
        "dtype": "bfloat16",
        "bfloat16_speedup": 2.5,
    }


HOLD = """
import os, sys
from facviz.store.workspace import open_workspace
with open_workspace(sys.argv[1]).lock():
    print(os.getpid(), flush=True)
    sys.stdin.readline()
"""
TRY = """
import sys
from facviz.errors import WorkspaceError
from facviz.store.workspace import open_workspace
try:
    with open_workspace(sys.argv[1]).lock():
        print("free")
except WorkspaceError as error:
    print(error)
"""


def test_a_second_process_is_told_who_writes(workspace, run_python):
    with workspace.lock():
        answer = run_python(TRY, workspace.root)
    assert answer == (f"Another facviz (process {os.getpid()}) is writing to {workspace.root}; wait for it or stop it.")
    assert run_python(TRY, workspace.root) == "free"


def test_the_lock_is_free_after_its_holder_was_killed(workspace, start_python):
    process = start_python(HOLD, workspace.root)
    holder = int(process.stdout.readline())
    with pytest.raises(WorkspaceError, match=rf"\(process {holder}\) is writing"), workspace.lock():
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with workspace.lock():
        assert (workspace.root / ".lock").read_text() == str(os.getpid())


def test_the_lock_is_not_taken_twice_in_one_process_and_is_freed_by_an_error(workspace):
    with workspace.lock(), pytest.raises(WorkspaceError, match=f"process {os.getpid()}"), workspace.lock():
        pass
    with pytest.raises(ZeroDivisionError), workspace.lock():
        _ = 1 / 0
    with workspace.lock():
        pass


def test_whoever_waits_is_asked_again_and_again_until_the_lock_is_free(workspace, start_python, monkeypatch):
    monkeypatch.setattr("facviz.store.workspace.POLL_SECONDS", 0.01)
    process = start_python(HOLD, workspace.root)
    process.stdout.readline()
    asked = []

    def wait():
        asked.append(process.poll())
        if len(asked) == 3:
            process.stdin.write("\n")
            process.stdin.flush()

    with workspace.lock(wait):
        assert process.wait(30) == 0
    assert asked[:3] == [None] * 3
    with workspace.lock(wait):  # free: nobody is asked
        assert len(asked) == asked.count(None)


def test_the_lock_sweeps_what_killed_writers_left_and_nothing_a_living_one_needs(workspace, run_python):
    gone = run_python("import os; print(os.getpid())")
    left = workspace.root / "tables" / f".shard.parquet.{gone}.tmp"
    needed = [workspace.root / "jobs" / f".status.json.{os.getpid()}.tmp", workspace.root / "storage-0.tmp"]
    needed.append(workspace.root / "facviz.duckdb.tmp" / "inside")
    for path in (left, *needed):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with workspace.lock():
        assert not left.exists()
        assert [path.exists() for path in needed] == [True] * 3


def test_reading_needs_no_lock(workspace, run_python):
    with workspace.lock():
        read = "import sys, facviz; print(facviz.open_workspace(sys.argv[1]).coverage().num_rows)"
        assert run_python(read, workspace.root) == "0"


def test_every_question_has_an_empty_answer_before_any_stage_ran(workspace):
    opened = facviz.open_workspace(workspace.root)
    answers = [opened.features(), opened.spans(0), opened.explanations(), opened.coverage(), opened.samples()]
    assert [a.num_rows for a in answers] == [0] * 5


def write(workspace, table, rows, shard="0"):
    workspace.manifest.write_shard(Scope("stage", table, "f" * 16), table, shard, rows_to_arrow(table, rows))


def test_features_come_with_their_statistics_and_their_latest_explanation(workspace):
    stats = [
        {"sae_id": s, "dataset_id": d, "feature_id": f, "n_docs": 10 * f} for s in "ab" for d in "xy" for f in (1, 0)
    ]
    write(workspace, "feature_stats", stats)
    write(workspace, "feature", [{"sae_id": "a", "feature_id": 1, "top_tokens": ["cat"]}])
    versions = [
        {"sae_id": "a", "feature_id": 1, "version": v, "text": t, "outcome": "explained"}
        for v, t in ((1, "old"), (10, "newest"), (2, "newer"))
    ]
    write(workspace, "explanation", versions)
    rows = workspace.features("a").to_pylist()
    assert [(r["dataset_id"], r["feature_id"], r["n_docs"]) for r in rows] == [
        ("x", 0, 0),
        ("x", 1, 10),
        ("y", 0, 0),
        ("y", 1, 10),
    ]
    assert [r["explanation"] for r in rows] == [None, "newest", None, "newest"]
    assert rows[1]["top_tokens"] == ["cat"]
    assert workspace.features().num_rows == 8
    assert [r["text"] for r in workspace.explanations("a").to_pylist()] == ["newest"]
    assert workspace.explanations("b").num_rows == 0


def test_spans_of_a_feature_come_strongest_first_within_their_half(workspace):
    spans = [
        {"sae_id": s, "dataset_id": "d", "feature_id": f, "split": half, "rank": r}
        for s in "ab"
        for f in (3, 4)
        for half in ("score", "explain")
        for r in (1, 0)
    ]
    write(workspace, "span", spans)
    rows = workspace.spans(3, "b").to_pylist()
    assert [(r["sae_id"], r["split"], r["rank"]) for r in rows] == [
        ("b", "explain", 0),
        ("b", "explain", 1),
        ("b", "score", 0),
        ("b", "score", 1),
    ]
    assert workspace.spans(3).num_rows == 8
    assert workspace.spans(5).num_rows == 0


def test_coverage_runs_come_in_the_order_they_were_made(workspace):
    for shard, name in enumerate(("z", "a", "m")):
        write(workspace, "coverage_run", [{"coverage_id": name}], str(shard))
    assert workspace.coverage()["coverage_id"].to_pylist() == ["z", "a", "m"]


def test_samples_are_the_accepted_candidates_alone(workspace):
    candidates = [
        {"candidate_id": f"c{i}", "feature_id": i, "accepted": i % 2 == 0, "act": 2.0, "act_threshold": 1.0}
        for i in range(4)
    ]
    write(workspace, "candidate", candidates)
    rows = workspace.samples().to_pylist()
    assert [(r["candidate_id"], r["feature_id"], r["act"], r["act_threshold"]) for r in rows] == [
        ("c0", 0, 2.0, 1.0),
        ("c2", 2, 2.0, 1.0),
    ]


def test_folders_of_heavy_things_stay_inside_the_workspace(workspace):
    assert workspace.sae_folder("s1") == workspace.root / "sae" / "s1"
    assert workspace.activations_folder("c1") == workspace.root / "activations" / "c1"
