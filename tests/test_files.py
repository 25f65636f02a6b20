"""Durable small writes: whatever a kill or a full disk leaves behind, finished lines stay and the next one is whole."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facviz import files
from facviz.errors import FacvizError, WorkspaceError
from facviz.files import append_line, disk_errors, read_lines, write_text_atomically

ENTRIES = [{"a": 1, "text": 'line\nbreak "quoted" é'}, {"b": [1, {"c": None}]}, {"d": "last"}]


def test_entries_come_back_in_order_and_a_missing_file_is_empty(tmp_path):
    path = tmp_path / "deep" / "log.jsonl"
    assert read_lines(path) == []
    for entry in ENTRIES:
        append_line(path, entry)
    assert read_lines(path) == ENTRIES


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.booleans())))
def test_any_plain_entry_survives_the_round_trip(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    for entry in entries:
        append_line(path, entry)
    assert read_lines(path) == entries


def test_a_file_name_that_is_no_valid_text_survives_the_round_trip(tmp_path):
    entry = {"path": os.fsdecode(b"data-\xff.jsonl")}
    append_line(tmp_path / "log.jsonl", entry)
    assert read_lines(tmp_path / "log.jsonl") == [entry]


def test_a_line_torn_by_a_kill_at_any_byte_is_ignored_and_the_next_entry_is_whole(tmp_path):
    whole = tmp_path / "whole.jsonl"
    for entry in ENTRIES[:2]:
        append_line(whole, entry)
    first = whole.read_bytes().index(b"\n") + 1
    path = tmp_path / "torn.jsonl"
    for cut in range(first, len(whole.read_bytes())):
        path.write_bytes(whole.read_bytes()[:cut])
        survivors = read_lines(path)
        assert survivors in ([ENTRIES[0]], ENTRIES[:2])
        assert survivors == [ENTRIES[0]] or cut == len(whole.read_bytes()) - 1  # only the line break is missing
        append_line(path, ENTRIES[2])
        assert read_lines(path) == [*survivors, ENTRIES[2]]


def test_lines_that_are_no_objects_are_not_entries(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'[1]\n7\n"text"\n\n\xff\xfe\n{"kept": 1}\n')
    assert read_lines(path) == [{"kept": 1}]


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_appending_is_one_sentence_and_keeps_earlier_entries(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    append_line(path, ENTRIES[0])
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", no_space)
        with pytest.raises(WorkspaceError, match=r"^Cannot write .*log\.jsonl \(No space left on device\); free space"):
            append_line(path, ENTRIES[1])
    append_line(path, ENTRIES[2])
    assert read_lines(path)[0] == ENTRIES[0]
    assert read_lines(path)[-1] == ENTRIES[2]


def test_a_small_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "meta.json"
    write_text_atomically(path, "old é")
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", no_space)
        with pytest.raises(WorkspaceError, match="No space left on device"):
            write_text_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old é"
    write_text_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert [p.name for p in path.parent.iterdir()] == ["meta.json"]


def test_only_disk_failures_are_reworded(tmp_path):
    with pytest.raises(WorkspaceError, match="Is a directory"), disk_errors(tmp_path):
        tmp_path.write_text("x")
    with pytest.raises(ZeroDivisionError), disk_errors(tmp_path):
        _ = 1 / 0
    with pytest.raises(FacvizError, match="as it is"), disk_errors(tmp_path):
        raise FacvizError("as it is")
