"""A folder is one dataset: its files in a fixed order under one mapping, nothing read from outside it."""

import gzip
import json
import os
import shutil

import pytest

from facviz.config import DatasetConfig
from facviz.corpus import CorpusReader, hash_source, sources
from facviz.errors import InputError

needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")


@pytest.fixture
def folder(tmp_path):
    """Write files given as text, bytes or rows, and return the folder that holds them."""

    def build(files):
        root = tmp_path / "corpus"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, list):
                content = "".join(json.dumps(row) + "\n" for row in content)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return build


def open_folder(root, **settings):
    return CorpusReader(DatasetConfig(name="d", path=str(root), **settings))


def refuse(action):
    """The message of the InputError that `action` raises, checked to be one sentence."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_every_supported_file_below_a_folder_is_read_in_the_order_of_its_path(folder):
    root = folder(
        {
            "b.csv": "text,label\nthree,1\nfour,0\n",
            "a/z.jsonl.gz": gzip.compress(b'{"text": "two", "label": 1}\n'),
            "a/deep/x.json": '[{"text": "one", "label": 0}]',
        }
    )
    reader = open_folder(root)
    assert [(d.text, d.label) for d in reader] == [("one", "0"), ("two", "1"), ("three", "1"), ("four", "0")]
    assert reader.report.n_files == 3
    assert reader.report.n_rows == 4
    assert reader.report.labels == {"0": 2, "1": 2}
    assert reader.mapping.describe() == "shape text: text from `text`, label from `label`"


def test_hidden_and_unknown_files_are_skipped_and_counted_by_reason(folder):
    root = folder(
        {
            "a.jsonl": [{"text": "a"}],
            "README.md": "# Data",
            "image.png": b"\x89PNG",
            ".a.jsonl": [{"text": "secret"}],
            ".git/b.jsonl": [{"text": "secret"}],
            ".git/c.jsonl": [{"text": "secret"}],
        }
    )
    os.mkfifo(root / "pipe.jsonl")
    reader = open_folder(root)
    assert [d.text for d in reader] == ["a"]
    assert reader.report.skipped_files == {"unknown ending": 2, "hidden": 2, "not a file": 1}


@pytest.mark.parametrize("name", ["LICENSE.txt", "readme.en.txt", "sub/Licence.txt", "dataset_info.json"])
def test_a_licence_beside_the_data_is_no_document_of_it(folder, name):
    root = folder({"data.txt": "x\n", name: "Attribution 4.0 International\n"})
    reader = open_folder(root)
    assert [d.text for d in reader] == ["x"]
    assert reader.report.skipped_files == {"about the data": 1}


def test_a_file_named_like_a_licence_is_read_when_it_is_asked_for(folder):
    root = folder({"license.txt": "Attribution\n", "licensed.txt": "x\n"})
    assert [d.text for d in open_folder(root / "license.txt")] == ["Attribution"]
    assert [d.text for d in open_folder(root)] == ["x"]


def test_duplicates_are_counted_across_files(folder):
    root = folder({"a.jsonl": [{"text": "x"}, {"text": "y"}], "b.jsonl": [{"text": "y"}, {"text": "z"}]})
    reader = open_folder(root)
    assert [d.text for d in reader] == ["x", "y", "z"]
    assert reader.report.n_duplicates == 1


def test_a_dropped_row_says_in_which_file_it_stands(folder):
    root = folder({"a.jsonl": [{"text": "x"}, {"text": 3}], "sub/b.jsonl": '{"text": "y"}\n{broken\n'})
    reader = open_folder(root)
    assert len(list(reader)) == 2
    assert [(row.file, row.row, row.reason) for row in reader.report.dropped] == [
        ("a.jsonl", 2, "field `text` is not text"),
        ("sub/b.jsonl", 2, "invalid JSON"),
    ]


def test_the_limit_counts_over_all_files_and_leaves_the_rest_unread(folder):
    root = folder({"a.jsonl": [{"text": "1"}, {"text": "2"}], "b.jsonl": [{"text": "3"}], "c.jsonl": "broken"})
    reader = open_folder(root, limit=3)
    assert [d.text for d in reader] == ["1", "2", "3"]
    assert reader.report.n_files == 2


def test_files_without_rows_are_passed_over_even_at_the_start(folder):
    root = folder({"a.jsonl": "", "b.jsonl": [{"text": "x"}], "c.jsonl": "\n", "d.csv": "other\n"})
    assert [d.text for d in open_folder(root)] == ["x"]


MISFITS = {
    "another field": ({"a.jsonl": [{"text": "x"}], "b.jsonl": [{"body": "y"}]}, "has no field `text` among `body`"),
    "another shape": (
        {"a.jsonl": [{"instruction": "x", "output": "y"}], "b.jsonl": [{"instruction": "x", "response": "y"}]},
        "has no field `output` among `instruction`, `response`",
    ),
    "no roles": (
        {"a.jsonl": [{"role": "user", "content": "x"}], "b.jsonl": [{"content": "y"}]},
        "has no field `role` among `content`",
    ),
    "lines after rows": ({"a.jsonl": [{"text": "x"}], "b.txt": "y\n"}, "holds lines without fields"),
    "rows after lines": ({"a.txt": "x\n", "b.jsonl": [{"text": "y"}]}, "holds rows with fields"),
}


@pytest.mark.parametrize(("files", "problem"), MISFITS.values(), ids=MISFITS)
def test_a_later_file_that_does_not_fit_the_first_is_refused_naming_both(folder, files, problem):
    reader = open_folder(folder(files))
    message = refuse(lambda: list(reader))
    first, second = files
    assert message.startswith(f"{second} {problem}")
    assert f"its first file {first} is ({reader.mapping.describe()})" in message


def test_one_odd_row_among_fitting_ones_is_dropped_and_not_a_misfit(folder):
    root = folder({"a.jsonl": [{"text": "x"}], "b.jsonl": [{"body": "?"}, {"text": "y"}]})
    reader = open_folder(root)
    assert [d.text for d in reader] == ["x", "y"]
    assert reader.report.dropped_by_reason == {"missing field `text`": 1}


def test_a_file_that_cannot_be_read_is_named_by_its_path_in_the_folder(folder):
    root = folder({"a.jsonl": [{"text": "x"}], "sub/b.csv": b"text\nna\xefve\n"})
    assert refuse(lambda: list(open_folder(root))).startswith("sub/b.csv is not UTF-8 at line 2, byte 8")


def test_a_folder_whose_rows_all_fail_is_refused_with_the_reasons_of_all_files(folder):
    message = refuse(lambda: list(open_folder(folder({"a.jsonl": "{x\n", "b.jsonl": "{y\n{z\n"}))))
    assert "None of the rows of corpus became a document (invalid JSON: 3)" in message


def test_a_folder_without_a_file_to_read_is_refused_before_reading(folder, tmp_path):
    message = refuse(lambda: open_folder(folder({"notes.md": "x", ".hidden.csv": "text\nx\n"})))
    assert ".parquet" in message
    assert "hidden: 1" in message
    assert "unknown ending: 1" in message


def test_a_folder_with_far_too_many_files_is_refused(folder, monkeypatch):
    monkeypatch.setattr(sources, "MAX_ENTRIES", 3)
    root = folder({f"{i}.jsonl": [{"text": str(i)}] for i in range(4)})
    assert "more than 3 files" in refuse(lambda: open_folder(root))


@needs_permissions
def test_a_subfolder_that_cannot_be_opened_is_refused_and_not_left_out(folder):
    root = folder({"a.jsonl": [{"text": "x"}], "sub/b.jsonl": [{"text": "y"}]})
    (root / "sub").chmod(0)
    try:
        assert "check its permissions" in refuse(lambda: open_folder(root))
    finally:
        (root / "sub").chmod(0o700)


@pytest.mark.parametrize("name", ["link.jsonl", "link"], ids=["to a file", "to a folder"])
@pytest.mark.parametrize("is_relative", [True, False], ids=["relative", "absolute"])
def test_a_link_that_leaves_the_folder_is_refused(folder, tmp_path, name, is_relative):
    root = folder({"a.jsonl": [{"text": "x"}]})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.jsonl").write_text('{"text": "secret"}\n')
    target = outside / "b.jsonl" if name.endswith("jsonl") else outside
    (root / name).symlink_to(os.path.relpath(target, root) if is_relative else target)
    message = refuse(lambda: open_folder(root))
    assert f"The link `{name}` leads out of the folder" in message
    assert message == refuse(lambda: hash_source(root))


def test_a_link_to_a_neighbour_whose_name_begins_like_the_folder_leaves_it(folder, tmp_path):
    root = folder({"a.jsonl": [{"text": "x"}]})
    (tmp_path / "corpus-private.jsonl").write_text('{"text": "secret"}\n')
    (root / "b.jsonl").symlink_to("../corpus-private.jsonl")
    assert "leads out" in refuse(lambda: open_folder(root))


def test_links_that_stay_inside_are_read_or_skipped_and_never_followed_in_circles(folder):
    root = folder({"a.jsonl": [{"text": "x"}], ".store/blob": '{"text": "y"}\n'})
    (root / "b.jsonl").symlink_to(".store/blob")
    (root / "round").symlink_to(".")
    (root / "gone.jsonl").symlink_to("nothing.jsonl")
    (root / "self.jsonl").symlink_to("self.jsonl")
    reader = open_folder(root)
    assert [d.text for d in reader] == ["x", "y"]
    assert reader.report.skipped_files == {"hidden": 1, "a link to a folder": 1, "not a file": 2}


def test_a_folder_reached_through_a_link_is_read(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder({"a.jsonl": [{"text": "x"}]}))
    assert [d.text for d in open_folder(tmp_path / "link")] == ["x"]


def test_the_hash_depends_on_names_and_contents_and_on_nothing_else(folder, tmp_path):
    root = folder({"a.jsonl": [{"text": "x"}], "b/c.jsonl": [{"text": "y"}]})
    reader = open_folder(root)
    list(reader)
    first = hash_source(root)
    assert reader.report.sha256 == first
    assert hash_source(shutil.copytree(root, tmp_path / "copy")) == first
    (root / "notes.md").write_text("not read")
    assert hash_source(root) == first
    (root / "a.jsonl").rename(root / "a2.jsonl")
    renamed = hash_source(root)
    (root / "a2.jsonl").write_text('{"text": "z"}\n')
    assert len({first, renamed, hash_source(root)}) == 3


def test_moving_a_line_break_between_files_changes_the_hash(folder):
    root = folder({"a.txt": "x\n", "b.txt": "y"})
    before = hash_source(root)
    folder({"a.txt": "x", "b.txt": "\ny"})
    assert hash_source(root) != before


def test_a_file_name_with_a_line_break_still_gives_one_line(folder):
    root = folder({"a.jsonl": [{"text": "x"}], "b\n\udcff.jsonl": [{"body": "y"}]})
    message = refuse(lambda: list(open_folder(root)))
    assert message.startswith("b \ufffd.jsonl has no field")
    assert hash_source(root)
