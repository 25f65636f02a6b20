"""What the browser may name: paths under the allowed folders only, and uploads under names made here."""

from __future__ import annotations

import os

import pytest

from facviz.errors import InputError, WorkspaceError
from facviz.ui.components.imports import allowed_path, dataset_name, import_roots, safe_name, save_upload


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """A workspace, a start folder and an import root, each with a file; and a folder outside."""
    for name in ("workspace", "start", "extra", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text("text\nx\n")
    monkeypatch.chdir(tmp_path / "start")
    monkeypatch.setenv("FACVIZ_IMPORT_ROOTS", os.pathsep.join([str(tmp_path / "extra"), ""]))
    return tmp_path


@pytest.mark.parametrize("folder", ["workspace", "start", "extra"])
def test_a_path_under_an_allowed_folder_is_taken(roots, folder):
    path = roots / folder / "a.csv"
    assert allowed_path(f"  {path} ", roots / "workspace") == path
    assert allowed_path(str(roots / folder), roots / "workspace") == roots / folder


def test_a_relative_path_starts_in_the_start_folder(roots):
    assert allowed_path("a.csv", roots / "workspace") == roots / "start" / "a.csv"


@pytest.mark.parametrize("text", ["/etc/passwd", "../outside/a.csv", "/", "..", "~"])
def test_a_path_outside_is_refused_with_the_allowed_folders(roots, text):
    with pytest.raises(InputError, match=r"lies outside .*FACVIZ_IMPORT_ROOTS") as caught:
        allowed_path(text, roots / "workspace")
    assert "\n" not in str(caught.value)


def test_a_neighbour_whose_name_only_begins_like_an_allowed_folder_is_outside(roots):
    (roots / "extra-more").mkdir()
    with pytest.raises(InputError, match="lies outside"):
        allowed_path(str(roots / "extra-more"), roots / "workspace")


def test_a_link_out_of_an_allowed_folder_is_outside(roots):
    (roots / "start" / "link.csv").symlink_to(roots / "outside" / "a.csv")
    (roots / "start" / "folder").symlink_to(roots / "outside")
    for text in ("link.csv", "folder/a.csv"):
        with pytest.raises(InputError, match="lies outside"):
            allowed_path(text, roots / "workspace")


@pytest.mark.parametrize("text", ["a\0b", "x" * 10_000, "missing.csv"])
def test_what_is_no_path_is_one_sentence(roots, text):
    with pytest.raises(InputError, match=r"no path|nothing at"):
        allowed_path(text, roots / "workspace")


def test_a_start_folder_that_is_the_whole_disk_allows_nothing_by_itself(roots, monkeypatch):
    monkeypatch.chdir("/")
    monkeypatch.delenv("FACVIZ_IMPORT_ROOTS")
    assert import_roots(roots / "workspace") == [roots / "workspace"]


@pytest.mark.parametrize(
    ("client", "safe"),
    [
        ("corpus.jsonl", "corpus.jsonl"),
        ("../../etc/cron.d/x.csv", "x.csv"),
        ("C:\\data\\my texts.csv.gz", "my_texts.csv.gz"),
        (".bashrc", "bashrc"),
        ("<img src=x onerror=alert(1)>.txt", "img_src_x_onerror_alert_1_.txt"),
        ("日本.csv", "csv"),
        ("...", "upload"),
        ("", "upload"),
        ("a\0b\n.csv", "a_b_.csv"),
    ],
)
def test_an_upload_gets_a_safe_name_with_its_ending(client, safe):
    assert safe_name(client) == safe


def test_a_very_long_name_keeps_its_ending():
    name = safe_name("x" * 5000 + ".jsonl.gz")
    assert len(name) <= 80
    assert name.endswith(".jsonl.gz")


def test_the_same_upload_is_kept_once_and_inside_the_workspace(tmp_path):
    first = save_upload(tmp_path, "../a.csv", b"text\nx\n")
    written = first.stat().st_mtime_ns
    assert save_upload(tmp_path, "../a.csv", b"text\nx\n") == first
    assert first.stat().st_mtime_ns == written
    assert first.parent == tmp_path / "uploads"
    assert first.read_bytes() == b"text\nx\n"
    assert save_upload(tmp_path, "a.csv", b"other") != first
    assert len(list((tmp_path / "uploads").iterdir())) == 2


def test_an_upload_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "uploads").write_text("a file in the way")
    with pytest.raises(WorkspaceError, match="free space or change --workspace"):
        save_upload(tmp_path, "a.csv", b"x")


def test_a_suggested_name_is_the_files_and_never_one_that_is_taken():
    assert dataset_name("My corpus (v2).jsonl.gz", []) == "My_corpus_v2_"
    assert dataset_name("seed.csv", ["anchor", "seed", "seed-2"]) == "seed-3"
    assert dataset_name("0a1b2c3d-seed.csv", []) == "seed"
    assert dataset_name("...", []) == "upload"
