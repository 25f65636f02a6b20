"""What the dashboard's file keeps between reruns is what a fresh look would give, and goes when shards change."""

from __future__ import annotations

import numpy as np

from facviz.store import keeping
from facviz.store.database import Database
from facviz.store.events import explanation_of, relevance_of
from facviz.store.feature_table import TableFilter, TableScope, feature_page, feature_totals
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow

SQL = "SELECT name FROM dataset WHERE name <> $but ORDER BY name"
SCOPE = TableScope("sae", "d", "toxicity", "label", "run")


def kept_names(database, but):
    where = database.kept(SQL, but=but, unused=1)
    return where, database.select(f"SELECT name FROM {where} ORDER BY name", but=but)["name"].to_pylist()


def write_names(workspace, dataset_rows, *names, fingerprint="f" * 16):
    scope = Scope("data", "x", fingerprint)
    workspace.manifest.write_shard(scope, "dataset", "0", dataset_rows(*names))
    workspace.manifest.mark_done(scope, {})


def test_an_answer_is_kept_for_its_statement_and_its_values(workspace, dataset_rows):
    write_names(workspace, dataset_rows, "a", "b", "c")
    with Database(workspace) as database:
        database.sync()
        first, rows = kept_names(database, "a")
        other, others = kept_names(database, "b")
        assert (rows, others) == (["b", "c"], ["a", "c"])
        assert first != other
        assert kept_names(database, "a") == (first, rows)
    with workspace.reader() as reader:
        assert kept_names(reader, "a")[1] == rows  # worked out there, with the same words


def test_a_restart_finds_what_was_kept_and_new_shards_make_it_anew(workspace, dataset_rows):
    write_names(workspace, dataset_rows, "a", "b")
    with Database(workspace) as database:
        database.sync()
        before, _ = kept_names(database, "a")
    with Database(workspace) as database:
        database.sync()
        assert kept_names(database, "a") == (before, ["b"])
        write_names(workspace, dataset_rows, "a", "new", fingerprint="e" * 16)
        database.sync()
        after, rows = kept_names(database, "a")
        assert after != before
        assert rows == ["new"]
        # A session that was told the old table a moment ago still reads it; after the next change it is gone.
        assert database.select(f"SELECT name FROM {before}")["name"].to_pylist() == ["b"]
        write_names(workspace, dataset_rows, "third", fingerprint="d" * 16)
        database.sync()
        [(n,)] = database._connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [before]
        ).fetchall()
        assert n == 0


def test_only_so_many_answers_are_kept_and_the_rest_are_still_right(workspace, dataset_rows, monkeypatch):
    monkeypatch.setattr(keeping, "MAX_KEPT", 2)
    write_names(workspace, dataset_rows, "a", "b", "c")
    with Database(workspace) as database:
        database.sync()
        found = [kept_names(database, name) for name in ("a", "b", "c", "a")]
        assert [rows for _, rows in found] == [["b", "c"], ["a", "c"], ["a", "b"], ["b", "c"]]
        assert [where.startswith("kept_") for where, _ in found] == [True, True, False, True]


def test_decisions_show_at_once_in_a_table_whose_machine_half_is_kept(workspace):
    scope = Scope("made", "up", "f" * 16)
    keys = {"sae_id": "sae", "dataset_id": "d", "mode": "inference"}
    stats = [
        keys | {"feature_id": i, "density": 0.01, "n_docs": 1, "max_act": 1.0, "p95_act": 1.0, "is_dead": False,
                "is_always_on": False}
        for i in range(3)
    ]  # fmt: skip
    words = [
        {"sae_id": "sae", "feature_id": i, "version": 1, "text": f"word {i}", "author_kind": "lexical",
         "outcome": "explained", "scores": '{"embedding_auroc": 0.5}'}
        for i in range(3)
    ]  # fmt: skip
    workspace.manifest.write_shard(scope, "feature_stats", "0", rows_to_arrow("feature_stats", stats))
    workspace.manifest.write_shard(scope, "explanation", "0", rows_to_arrow("explanation", words))
    with Database(workspace) as database:
        database.sync()
        assert [r["explanation"] for r in feature_page(database, SCOPE, TableFilter()).rows] == [
            "word 0", "word 1", "word 2"
        ]  # fmt: skip
        database.record("ann", explanation_of("sae", 1), "edit", {"text": "what ann says"})
        database.record("ann", relevance_of("sae", 2, "toxicity"), "verdict", {"verdict": "yes"})
        rows = feature_page(database, SCOPE, TableFilter()).rows
        said = [(r["explanation"], r["status"], r["author_kind"], r["score"], r["verdict"]) for r in rows]
        assert said == [
            ("word 0", "unreviewed", "lexical", 0.5, None),
            ("what ann says", "edited", "human", None, None),
            ("word 2", "unreviewed", "lexical", 0.5, "yes"),
        ]
        assert feature_totals(database, SCOPE)["n_reviewed"] == 1
        database.undo("ann", explanation_of("sae", 1))
        assert feature_page(database, SCOPE, TableFilter()).rows[1]["explanation"] == "word 1"
        with workspace.reader() as reader:
            assert feature_page(reader, SCOPE, TableFilter()) == feature_page(database, SCOPE, TableFilter())


def test_the_best_explanation_follows_its_shards(workspace):
    def write(*auroc, fingerprint):
        scope = Scope("explain", "sae/llm", fingerprint)
        rows = [
            {"sae_id": "sae", "feature_id": 0, "version": i, "text": f"v{i}", "author_kind": "llm", "prompt": "p",
             "outcome": "explained", "scores": f'{{"embedding_auroc": {a}}}'}
            for i, a in enumerate(auroc)
        ]  # fmt: skip
        workspace.manifest.write_shard(scope, "explanation", "0", rows_to_arrow("explanation", rows))
        workspace.manifest.mark_done(scope, {})

    def shown(queries):
        return [r["text"] for r in queries.rows("explanations", sae_id="sae")]

    for scores in (0.6, 0.9, 0.7), (0.8, 0.5):
        write(*scores, fingerprint=str(len(scores)) * 16)
        with Database(workspace) as database, workspace.reader() as reader:
            database.sync()
            assert shown(database) == shown(reader) == [f"v{int(np.argmax(scores))}"]
