"""Reading: views over live shards only, whatever the names, beside running programs, and despite damage."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import pytest
from scipy import sparse

from facviz.errors import InputError, WorkspaceError
from facviz.store.events import append_event, explanation_of, list_of, listed_of, new_event, queue_of
from facviz.store.manifest import Scope
from facviz.store.queries import NAMED_QUERIES
from facviz.store.schema import TABLES, rows_to_arrow, to_arrow
from facviz.store.workspace import Workspace

PARAMETERS = {
    "margin": 1.05,
    "sae_id": "id",
    "dataset_id": "id",
    "coverage_id": "id",
    "synth_id": "id",
    "mode": "id",
    "task": "id",
    "feature_id": 1,
    "target": "explanation/id/1",
    "among": ["explanation/id/1"],
    "kind": "explanation",
    "n": 5,
    "offset": 0,
    "label": None,
    "search": None,
    "ids": [1],
    "actor": "ann",
    "anchor": "anchor 'é' 0",
    "seed": "seed 'é' 0",
    "accepted": None,
    "review": None,
    "reason": None,
    "author": None,
    "source": "source 'é' 0",
    "wrote_by": "author_kind 'é' 0",
    "list_id": "id",
    "doc_nos": [0, 1],
    "prefix": "explanation/",
    "batch": "b",
    "eval_id": None,
    "candidate_id": "id",
}


def test_every_named_query_answers_on_empty_and_on_full_tables(full_workspace, tmp_path):
    empty = Workspace.create(tmp_path / "empty")
    for target, kind in (
        (explanation_of("id", 1), "edit"),
        (list_of("id"), "create"),
        (listed_of("id", 1, "id"), "add"),
    ):
        event = new_event("ann", target, kind, {"text": "a word", "batch": "b"})
        append_event(full_workspace.root / "events", event)
    append_event(full_workspace.root / "events", new_event("ann", queue_of("mine"), "save", {"asked": {}}))
    with full_workspace.reader() as full, empty.reader() as nothing:
        for query in NAMED_QUERIES:
            found, none = full.named(query, **PARAMETERS), nothing.named(query, **PARAMETERS)
            assert found.num_rows > 0, query
            assert (none.num_rows, none.column_names) == (0, found.column_names), query


HOSTILE = ["it's", 'say "hi"', "x'; DROP TABLE dataset; --", "%_", "$sae_id", "日本", "back\\slash", ""]


def test_hostile_names_are_values_and_nothing_else(workspace, dataset_rows, names_in):
    workspace.manifest.write_shard(Scope("data", HOSTILE[2], "f" * 16), "dataset", "0", dataset_rows(*HOSTILE))
    assert names_in(workspace) == HOSTILE
    with workspace.reader() as reader:
        assert [reader.dataset(n)["dataset_id"] for n in HOSTILE] == [f"id-{n}" for n in HOSTILE]
        for name in HOSTILE:
            assert reader.rows("documents", dataset_id=name) == []


@pytest.mark.parametrize(
    "folder", ["it's a place", 'double "quoted"', "a[1]", "a*b", "q?x", "lr=0.1", "name=evil", "{a,b}", "**", "é 日本"]
)
def test_a_workspace_reads_its_own_shards_wherever_it_lies(tmp_path, dataset_rows, names_in, folder):
    for name, path in (("neighbour", "a1"), ("neighbour", "axb"), ("neighbour", "qyx"), ("mine", folder)):
        workspace = Workspace.create(tmp_path / path)
        workspace.manifest.write_shard(Scope("data", "d", "f" * 16), "dataset", "0", dataset_rows(name))
    assert names_in(workspace) == ["mine"]
    with workspace.reader() as reader:
        assert reader.named("datasets").column_names == TABLES["dataset"].names


def test_an_unknown_dataset_is_refused_with_the_known_ones(workspace, dataset_rows):
    with workspace.reader() as reader, pytest.raises(InputError, match=r"no dataset 'x' .*known: none yet"):
        reader.dataset("x")
    workspace.manifest.write_shard(Scope("data", "d", "f" * 16), "dataset", "0", dataset_rows("one", "two"))
    with workspace.reader() as reader, pytest.raises(InputError, match=r"known: one, two\); add it with `facviz data"):
        reader.dataset("x")


def test_a_shard_from_before_a_column_existed_reads_as_unknown(workspace, dataset_rows):
    rows = dataset_rows("old")
    workspace.manifest.write_shard(Scope("data", "a", "f" * 16), "dataset", "0", rows.drop_columns(["licence"]))
    workspace.manifest.write_shard(Scope("data", "b", "f" * 16), "dataset", "0", dataset_rows("new"))
    with workspace.reader() as reader:
        assert [(r["name"], r["licence"]) for r in reader.rows("datasets")] == [("old", None), ("new", None)]


def test_a_reader_keeps_its_view_while_new_readers_see_the_new_shard(workspace, dataset_rows, names_in):
    workspace.manifest.write_shard(Scope("data", "a", "f" * 16), "dataset", "0", dataset_rows("one"))
    with workspace.reader() as early:
        workspace.manifest.write_shard(Scope("data", "b", "f" * 16), "dataset", "0", dataset_rows("two"))
        assert [r["name"] for r in early.rows("datasets")] == ["one"]
        assert names_in(workspace) == ["one", "two"]


def damages(whole: bytes) -> list[bytes]:
    return [b"", b"junk", whole[:-20], whole[: len(whole) // 2], whole[:10] + b"\xff" * 60 + whole[70:]]


@pytest.mark.parametrize("k", range(5))
def test_a_damaged_shard_is_one_sentence_and_other_tables_still_answer(workspace, dataset_rows, names_in, k):
    scope = Scope("data", "d", "f" * 16)
    workspace.manifest.write_shard(scope, "dataset", "0", dataset_rows("one"))
    [path] = workspace.manifest.live_shards()["dataset"]
    path.write_bytes(damages(path.read_bytes())[k])
    with workspace.reader() as reader:
        with pytest.raises(WorkspaceError, match="delete it and run the stage that wrote it again") as caught:
            reader.rows("datasets")
        assert "\n" not in str(caught.value)
        assert reader.rows("saes") == []
    path.unlink()
    assert not workspace.manifest.has_shard(scope, "dataset", "0")
    workspace.manifest.write_shard(scope, "dataset", "0", dataset_rows("one"))
    assert names_in(workspace) == ["one"]


def activation_rows(workspace, matrix, shards, *, sae_id="s", dataset_id="d", mode="inference"):
    """Write a documents × features matrix the way the span stage does, split into shards of documents."""
    scope = Scope("spans", f"{sae_id}/{dataset_id}/{mode}", "f" * 16)
    keys = {"sae_id": sae_id, "dataset_id": dataset_id, "mode": mode}
    for shard, numbers in enumerate(np.array_split(np.arange(matrix.shape[0]), shards)):
        part = sparse.coo_matrix(matrix[numbers])
        order = np.lexsort((-part.data, part.col))
        columns = {"feature_id": part.col[order], "doc_no": numbers[part.row[order]], "max_act": part.data[order]}
        table = to_arrow("doc_activation", columns | {"peak_token": np.zeros(len(order), np.int32)} | keys, len(order))
        workspace.manifest.write_shard(scope, "doc_activation", str(shard), table)
        encoded = {"doc_no": numbers, "n_content_tokens": numbers + 1, "n_cut_tokens": 0}
        table = to_arrow("encoded_document", encoded | keys, len(numbers))
        workspace.manifest.write_shard(scope, "encoded_document", str(shard), table)


def random_matrix(rng_seed, n_docs=40, d_sae=30):
    rng = np.random.default_rng(rng_seed)
    dense = rng.random((n_docs, d_sae), np.float32) * (rng.random((n_docs, d_sae)) < 0.2)
    dense[5] = 0  # a document on which nothing fires
    return sparse.csr_matrix(dense)


@pytest.mark.parametrize("shards", [1, 3])
def test_the_activation_matrix_equals_the_written_rows(workspace, shards):
    matrix = random_matrix(0)
    activation_rows(workspace, matrix, shards)
    with workspace.reader() as reader:
        found = reader.activation_matrix("s", "d", "inference", 30)
        encoded = reader.rows("encoded_documents", sae_id="s", dataset_id="d", mode="inference")
    assert [row["n_content_tokens"] for row in encoded] == list(range(1, 41))
    assert found.shape == matrix.shape
    assert found.dtype == np.float32
    assert (found != matrix).nnz == 0


def test_an_activation_matrix_of_nothing_is_empty(workspace):
    with workspace.reader() as reader:
        assert reader.activation_matrix("s", "d", "inference", 30).shape == (0, 30)


def test_defect_7_anchor_and_seed_results_never_overwrite_each_other(workspace):
    keys = [("s", "anchor", "inference"), ("s", "seed", "inference"), ("s", "anchor", "dense")]
    written = {}
    for rng_seed, (sae_id, dataset_id, mode) in enumerate([*keys, ("other sae", "anchor", "inference")]):
        matrix = written[sae_id, dataset_id, mode] = random_matrix(rng_seed, n_docs=20 + rng_seed)
        activation_rows(workspace, matrix, 2, sae_id=sae_id, dataset_id=dataset_id, mode=mode)
    with workspace.reader() as reader:
        for (sae_id, dataset_id, mode), matrix in written.items():
            assert (reader.activation_matrix(sae_id, dataset_id, mode, 30) != matrix).nnz == 0
            quantiles = reader.rows("doc_quantiles", sae_id=sae_id, dataset_id=dataset_id, mode=mode)
            for row in quantiles:
                column = matrix[:, row["feature_id"]].data
                assert row["n_docs"] == len(column)
                assert row["max_act"] == column.max()
                assert row["p95_act"] == pytest.approx(np.quantile(column, 0.95), rel=1e-6)


EVENT = {
    "event_id": "e1",
    "at": "2026-11-22T10:00:00Z",
    "actor": "o'neil",
    "target": "sample/c1",
    "kind": "approve",
    "payload": {"note": 'said "yes" é'},
    "undoes": None,
}


def test_events_are_read_line_by_line_and_a_torn_one_is_skipped(workspace):
    folder = workspace.root / "events"
    folder.mkdir()
    lines = [json.dumps(EVENT), json.dumps(EVENT | {"event_id": "e2", "kind": "undo", "undoes": "e1", "extra": 1})]
    (folder / "2.jsonl").write_text("\n".join(lines) + '\n{"event_id": "torn')
    (folder / "1.jsonl").write_text(json.dumps({"event_id": 0, "payload": [1, None]}) + "\n")
    (folder / "notes.txt").write_text(json.dumps(EVENT))
    with workspace.reader() as reader:
        rows = reader._connection.execute("SELECT * FROM review_event").fetchall()
    assert rows == [
        ("0", None, None, None, None, "[1, null]", None),
        (*[EVENT[k] for k in ("event_id", "at", "actor", "target", "kind")], json.dumps(EVENT["payload"]), None),
        ("e2", EVENT["at"], EVENT["actor"], EVENT["target"], "undo", json.dumps(EVENT["payload"]), "e1"),
    ]


def test_a_closed_reader_frees_its_connection(workspace):
    reader = workspace.reader()
    reader.close()
    with pytest.raises(duckdb.ConnectionException, match="already closed"):
        reader.rows("datasets")


def test_columns_that_are_not_declared_or_not_given_are_refused():
    with pytest.raises(ValueError, match=r"missing columns \['scores', 'version'\], unknown columns \['extra'\]"):
        to_arrow("explanation", dict.fromkeys([*set(TABLES["explanation"].names) - {"scores", "version"}, "extra"]), 1)


def test_one_value_stands_for_all_rows_and_none_is_unknown():
    columns = dict.fromkeys(TABLES["sae"].names) | {"sae_id": "s", "layer": 3, "d_sae": np.array([1, 2, 3])}
    table = to_arrow("sae", columns, 3)
    assert table.schema == TABLES["sae"]
    assert table["sae_id"].to_pylist() == ["s"] * 3
    assert table["layer"].to_pylist() == [3] * 3
    assert table["d_sae"].to_pylist() == [1, 2, 3]
    assert table["metrics"].null_count == 3


def test_rows_take_the_declared_schema():
    table = rows_to_arrow("document", [{"doc_no": 1, "messages": [{"role": "user", "content": "hi"}]}])
    assert table.schema == TABLES["document"]
    assert table.to_pylist()[0]["messages"] == [{"role": "user", "content": "hi"}]
    assert rows_to_arrow("document", []).schema == TABLES["document"]
