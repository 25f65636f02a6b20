"""The dashboard's file: kept up with shards and events, shared by threads, made again from what is true."""

from __future__ import annotations

import threading

import duckdb
import pytest

from facviz.errors import InputError
from facviz.store.database import DATABASE_FILE, Database
from facviz.store.derived import DERIVED_VIEWS
from facviz.store.events import append_event, candidate_of, explanation_of, new_event, read_events, relevance_of
from facviz.store.manifest import Scope
from facviz.store.schema import TABLES, rows_to_arrow
from facviz.store.workspace import open_workspace

SCOPE = Scope("data", "a", "f" * 16)
TARGET = explanation_of("sae", 1)


@pytest.fixture
def database(workspace):
    with Database(workspace) as opened:
        opened.sync()
        yield opened


def write_explanations(workspace, *texts, fingerprint="e" * 16):
    rows = [
        {"sae_id": "sae", "feature_id": i, "version": 1, "text": t, "author_kind": "lexical", "outcome": "explained"}
        for i, t in enumerate(texts)
    ]
    scope = Scope("explain", "sae/lexical", fingerprint)
    workspace.manifest.write_shard(scope, "explanation", "0", rows_to_arrow("explanation", rows))
    return scope


def texts(reader):
    return [(r["text"], r["status"]) for r in reader.rows("explanations", sae_id="sae")]


def test_a_new_shard_shows_after_one_sync_and_is_taken_in_once(workspace, database, dataset_rows):
    assert database.rows("datasets") == []
    workspace.manifest.write_shard(SCOPE, "dataset", "0", dataset_rows("a"))
    assert database.sync()
    assert [r["name"] for r in database.rows("datasets")] == ["a"]
    epoch = database.epoch
    assert not database.sync()
    workspace.manifest.mark_done(SCOPE, {})
    assert not database.sync()
    assert ([r["name"] for r in database.rows("datasets")], database.epoch) == (["a"], epoch)


def test_the_rows_of_a_replaced_result_leave_when_the_new_one_is_finished(workspace, database, dataset_rows):
    newer = Scope(SCOPE.stage, SCOPE.subject, "b" * 16)
    workspace.manifest.write_shard(SCOPE, "dataset", "0", dataset_rows("old"))
    workspace.manifest.mark_done(SCOPE, {})
    workspace.manifest.write_shard(newer, "dataset", "0", dataset_rows("new"))
    database.sync()
    assert [r["name"] for r in database.rows("datasets")] == ["old"]
    workspace.manifest.mark_done(newer, {})
    database.sync()
    assert [r["name"] for r in database.rows("datasets")] == ["new"]
    workspace.manifest.mark_done(SCOPE, {})
    database.sync()
    assert [r["name"] for r in database.rows("datasets")] == ["old"]


def test_the_file_holds_what_a_reader_sees(full_workspace):
    with Database(full_workspace) as database, full_workspace.reader() as reader:
        database.sync()
        database.record("ann", explanation_of("id", 1), "edit", {"text": "ours"})
        for table in (*TABLES, *DERIVED_VIEWS):
            if table in DERIVED_VIEWS:
                continue
            query = f"SELECT * FROM {table} ORDER BY ALL"
            assert database.select(query).to_pylist() == reader.select(query).to_pylist(), table
    with Database(full_workspace) as database, full_workspace.reader() as reader:
        database.sync()
        for table in ("review_event", "decision", *DERIVED_VIEWS):
            query = f"SELECT * FROM {table} ORDER BY ALL"
            assert database.select(query).to_pylist() == reader.select(query).to_pylist(), table


def test_an_edit_wins_over_the_machine_and_undo_brings_it_back(workspace, database):
    write_explanations(workspace, "zero", "one")
    database.sync()
    database.record("ann", TARGET, "edit", {"text": "better"})
    database.record("bob", TARGET, "edit", {"text": "best"})
    assert texts(database) == [("zero", "unreviewed"), ("best", "edited")]
    database.undo("ann", TARGET)
    assert texts(database)[1] == ("better", "edited")
    database.undo("ann", TARGET)
    assert texts(database)[1] == ("one", "unreviewed")
    with pytest.raises(InputError, match="nothing left to undo"):
        database.undo("ann", TARGET)
    database.redo("ann", TARGET)
    assert texts(database)[1] == ("better", "edited")
    database.redo("ann", TARGET)
    assert texts(database)[1] == ("best", "edited")
    with pytest.raises(InputError, match="no undo"):
        database.redo("ann", TARGET)


def test_after_a_new_decision_an_older_undo_is_not_taken_back(workspace, database):
    database.record("ann", TARGET, "edit", {"text": "a"})
    database.undo("ann", TARGET)
    database.record("ann", TARGET, "edit", {"text": "b"})
    with pytest.raises(InputError, match="no undo"):
        database.redo("ann", TARGET)


def test_a_deleted_file_comes_back_with_every_edit_verdict_and_undo(workspace):
    write_explanations(workspace, "zero", "one")
    with Database(workspace) as database:
        database.record("ann", TARGET, "edit", {"text": "kept"})
        database.record("ann", TARGET, "edit", {"text": "taken back"})
        database.undo("ann", TARGET)
        database.record("ann", relevance_of("sae", 1, "topic"), "verdict", {"verdict": "no"})
        database.record("ann", candidate_of("c"), "approve")
        before = [database.rows("decisions", kind=k, sae_id=None) for k in ("explanation", "relevance", "candidate")]
        log = database.rows("recent_events", n=10)
    (workspace.root / DATABASE_FILE).unlink()
    with Database(workspace) as database:
        database.sync()
        after = [database.rows("decisions", kind=k, sae_id=None) for k in ("explanation", "relevance", "candidate")]
        assert (after, database.rows("recent_events", n=10)) == (before, log)
        assert [len(rows) for rows in after] == [1, 1, 1]
        database.undo("ann", TARGET)
        assert texts(database)[1] == ("one", "unreviewed")


def test_a_decision_of_another_tool_shows_after_one_sync(workspace, database, run_python):
    run_python(
        """
import sys
from facviz.store.events import append_event, explanation_of, new_event
from pathlib import Path
append_event(Path(sys.argv[1]) / "events", new_event("script", explanation_of("sae", 1), "edit", {"text": "theirs"}))
""",
        workspace.root,
    )
    assert database.sync()
    assert texts(database) == [("theirs", "edited")]


def test_who_decides_on_an_outdated_view_is_told_who_was_first(workspace, database):
    event = database.record("ann", TARGET, "edit", {"text": "a"}, seen="")
    database.record("bob", TARGET, "edit", {"text": "b"}, seen=event["event_id"])
    with pytest.raises(InputError, match="bob changed this"):
        database.record("ann", TARGET, "accept", seen=event["event_id"])
    assert texts(database) == [("b", "edited")]


def test_two_browsers_at_once_lose_no_decision_and_read_no_wrong_row(workspace, database):
    write_explanations(workspace, *map(str, range(50)))
    database.sync()
    wrong = []

    def reviewer(name):
        for feature in range(20):
            database.record(name, explanation_of("sae", feature), "edit", {"text": f"{name} {feature}"})
            rows = database.rows("explanations", sae_id="sae")
            if len(rows) != 50 or rows[49]["text"] != "49":
                wrong.append(rows)

    threads = [threading.Thread(target=reviewer, args=(name,)) for name in ("ann", "bob", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(read_events(workspace.root / "events")) == 60 == len(database.rows("recent_events", n=100))
    with workspace.reader() as reader:
        assert reader.rows("explanations", sae_id="sae") == database.rows("explanations", sae_id="sae")


def test_beside_the_open_file_other_processes_read_and_a_second_dashboard_is_refused(workspace, database, run_python):
    write_explanations(workspace, "zero")
    program = """
import sys
from facviz.errors import WorkspaceError
from facviz.store.database import Database
from facviz.store.workspace import open_workspace
workspace = open_workspace(sys.argv[1])
print(workspace.explanations().num_rows)
try:
    Database(workspace)
except WorkspaceError as error:
    print(error)
"""
    n_rows, sentence = run_python(program, workspace.root).splitlines()
    assert n_rows == "1"
    assert "open in another dashboard" in sentence


@pytest.mark.parametrize("damage", [b"", b"no database", b"\0" * 4096])
def test_a_damaged_file_is_made_again(workspace, dataset_rows, damage):
    workspace.manifest.write_shard(SCOPE, "dataset", "0", dataset_rows("a"))
    (workspace.root / DATABASE_FILE).write_bytes(damage)
    with Database(workspace) as database:
        database.sync()
        assert [r["name"] for r in database.rows("datasets")] == ["a"]


def test_a_file_of_another_schema_is_made_again(workspace, dataset_rows):
    workspace.manifest.write_shard(SCOPE, "dataset", "0", dataset_rows("a"))
    with Database(workspace) as database:
        database.sync()
    with duckdb.connect(str(workspace.root / DATABASE_FILE)) as file:
        file.execute("UPDATE schema_version SET version = 0")
    with Database(open_workspace(workspace.root)) as database:
        database.sync()
        assert [r["name"] for r in database.rows("datasets")] == ["a"]


def test_a_file_from_before_evaluations_of_saes_is_made_again_with_them(workspace, dataset_rows):
    workspace.manifest.write_shard(SCOPE, "dataset", "0", dataset_rows("a"))
    with Database(workspace) as database:
        database.sync()
    with duckdb.connect(str(workspace.root / DATABASE_FILE)) as file:
        file.execute("DROP VIEW sae_evaluation")
        file.execute("DROP TABLE shard_sae_evaluation")
        file.execute("UPDATE schema_version SET version = 2")
    workspace.remember(schema=2)
    opened = open_workspace(workspace.root)
    row = {"sae_id": "s", "dataset": "", "kind": "eval", "measures": "{}", "at": "2026-01-01T00:00:00Z"}
    opened.manifest.write_shard(SCOPE, "sae_evaluation", "0", rows_to_arrow("sae_evaluation", [row]))
    with Database(opened) as database:
        database.sync()
        assert [r["name"] for r in database.rows("datasets")] == ["a"]
        assert database.rows("sae_evaluations", sae_id=None) == [row]


def test_a_damaged_shard_is_named_and_everything_else_still_shows(workspace, database, dataset_rows):
    workspace.manifest.write_shard(SCOPE, "dataset", "0", dataset_rows("a"))
    write_explanations(workspace, "zero")
    [path] = workspace.manifest.live_shards()["explanation"]
    path.write_bytes(path.read_bytes()[:50])
    database.sync()
    assert [r["name"] for r in database.rows("datasets")] == ["a"]
    [sentence] = database.damaged
    assert str(path) in sentence
    assert "run the stage that wrote it again" in sentence


def test_a_full_disk_says_so_and_keeps_every_decision_made_before(workspace, run_python):
    program = """
import resource, signal, sys
from facviz.errors import WorkspaceError
from facviz.store.database import Database
from facviz.store.events import explanation_of
from facviz.store.workspace import open_workspace
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
database = Database(open_workspace(sys.argv[1]))
database.sync()
database.record("ann", explanation_of("sae", 1), "edit", {"text": "first"})
room = (database.workspace.root / "events" / "review.jsonl").stat().st_size + 50
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    database.record("ann", explanation_of("sae", 1), "edit", {"text": "second"})
except WorkspaceError as error:
    print(error)
"""
    assert run_python(program, workspace.root).startswith("Cannot write ")
    with Database(workspace) as database:
        database.sync()
        assert texts(database) == [("first", "edited")]


def test_a_person_s_last_decision_is_theirs_alone(workspace, database):
    database.record("ann", TARGET, "accept")
    database.record("bob", explanation_of("sae", 2), "accept")
    assert database.last_target("ann", "explanation") == TARGET
    assert database.last_target("eve", "explanation") is None


def test_a_person_s_verdict_stands_beside_the_machine_s_and_keeps_the_theme(workspace, database):
    rows = [{"task": "topic", "sae_id": "sae", "feature_id": 1, "source": "label", "verdict": "yes", "theme": "birds"}]
    workspace.manifest.write_shard(
        Scope("relevance", "topic/sae/label", "c" * 16), "relevance", "0", rows_to_arrow("relevance", rows)
    )
    database.sync()
    database.record("ann", relevance_of("sae", 1, "topic"), "verdict", {"verdict": "no"})
    found = database.rows("relevance", task="topic", sae_id="sae")
    assert [(r["source"], r["verdict"], r["theme"]) for r in found] == [
        ("human", "no", "birds"),
        ("label", "yes", "birds"),
    ]


def test_rejected_samples_leave_the_export_and_approved_ones_say_so(workspace, database):
    rows = [{"candidate_id": c, "accepted": c != "d", "synth_id": "s", "feature_id": 1} for c in "abcd"]
    workspace.manifest.write_shard(
        Scope("synthesize", "s", "c" * 16), "candidate", "0", rows_to_arrow("candidate", rows)
    )
    database.sync()
    database.record("ann", candidate_of("a"), "approve")
    database.record("ann", candidate_of("b"), "reject", {"reason": "clumsy"})
    assert [(r["candidate_id"], r["review"]) for r in database.rows("samples")] == [
        ("a", "approved"),
        ("c", "unreviewed"),
    ]


def test_a_decision_logged_elsewhere_while_ours_is_written_is_not_passed_over(workspace, database, monkeypatch):
    real = Database._transaction

    def with_a_neighbour(self):
        theirs = new_event("eve", explanation_of("sae", 2), "edit", {"text": "theirs"})
        monkeypatch.setattr(Database, "_transaction", real)
        append_event(workspace.root / "events", theirs)
        return real(self)

    database.sync()
    monkeypatch.setattr(Database, "_transaction", with_a_neighbour)
    database.record("ann", TARGET, "edit", {"text": "ours"})
    database.sync()
    assert {text for text, _ in texts(database)} == {"ours", "theirs"}
