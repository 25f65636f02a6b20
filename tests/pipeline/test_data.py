"""Adding a folder: one dataset whose name is its contents, with an account of the files."""

import json
import shutil

import pytest

from facviz.cli import main
from facviz.store.workspace import open_workspace


@pytest.fixture
def add(planted_loop, tmp_path, capsys):
    """Add a path to an own workspace under a name; exit code, JSON object and standard error."""

    def run(path, name="talk", *more):
        models = ["--backbone", planted_loop / "models" / "backbone", "--layer", 1]
        where = ["--workspace", tmp_path / "workspace", "--json", "--quiet"]
        code = main([*map(str, ["data", "add", path, "--name", name, *models, *where, *more])])
        output, errors = capsys.readouterr()
        return code, json.loads(output) if output else None, errors

    return run


@pytest.fixture
def folder(tmp_path):
    """Two files that share a document, a file that is not read and a broken row."""
    root = tmp_path / "corpus"
    (root / "more").mkdir(parents=True)
    human = '{"conversations": [{"from": "human", "value": "%s"}]}\n'
    (root / "a.jsonl").write_text(human % "apple bread" + human % "cloud drum")
    (root / "more" / "b.jsonl").write_text(human % "cloud drum" + human % "bread" + "{broken\n")
    (root / "notes.md").write_text("x")
    return root


def test_a_folder_becomes_one_dataset_and_the_report_accounts_for_its_files(add, folder, tmp_path):
    code, found, _ = add(folder)
    assert code == 0
    assert (found["n_docs"], found["n_duplicates"], found["n_dropped"], found["n_rows"]) == (3, 1, 1, 5)
    assert (found["n_files"], found["skipped_files"]) == (2, {"unknown ending": 1})
    assert found["mapping"] == "shape messages: messages from `conversations`, no label"
    dropped = (tmp_path / "workspace" / "datasets" / "talk-dropped.jsonl").read_text().splitlines()
    assert [(row["file"], row["row"]) for row in map(json.loads, dropped)] == [("more/b.jsonl", 3)]
    with open_workspace(tmp_path / "workspace").reader() as reader:
        assert reader.dataset("talk")["n_docs"] == 3


def test_an_unchanged_folder_is_not_read_again_and_a_changed_one_is(add, folder, tmp_path):
    first = add(folder)[1]
    moved = shutil.move(folder, tmp_path / "elsewhere")
    (moved / "c.md").write_text("still not data")
    assert add(moved)[1] == first
    (moved / "c.txt").write_text("")
    assert add(moved)[1]["sha256"] != first["sha256"]


def test_a_folder_with_a_link_out_of_it_leaves_the_workspace_as_it_was(add, folder, tmp_path):
    (tmp_path / "secret.jsonl").write_text('{"text": "secret"}\n')
    (folder / "z.jsonl").symlink_to(tmp_path / "secret.jsonl")
    code, found, errors = add(folder)
    assert (code, found) == (2, None)
    assert "The link `z.jsonl` leads out of the folder" in errors
    assert not list((tmp_path / "workspace").rglob("*.parquet"))


def test_roles_are_taken_from_the_named_column(add, tmp_path):
    table = tmp_path / "turns.csv"
    table.write_text("who,text\nuser,apple\nassistant,bread drum\nnarrator,cloud\n")
    found = add(table, "turns", "--role-field", "who")[1]
    assert found["mapping"] == "shape text: text from `text`, role from `who`, no label"
    assert (found["n_content_tokens"], found["dropped_by_reason"]) == (3, {"unknown role `narrator`": 1})


def test_alpaca_is_a_shape_of_the_command_line(add, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "apple", "input": "bread", "output": "drum"}\n')
    found = add(rows, "rows", "--shape", "alpaca", "--roles", "assistant")[1]
    assert found["mapping"].startswith("shape alpaca: prompt from `instruction` + `input`, completion from `output`")
    assert found["n_content_tokens"] == 1
