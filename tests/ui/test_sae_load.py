"""Uploaded SAEs: kept under names that formats can go by, in a folder of their own, and nothing else."""

from __future__ import annotations

import pytest

from facviz.errors import InputError
from facviz.ui.components.sae_load import load_arguments, save_sae_upload


def test_weights_alone_are_a_file_and_with_their_configuration_a_folder(tmp_path):
    alone = save_sae_upload(tmp_path, {"topk_l16_h65k.pth": b"w"})
    assert (alone.name, alone.read_bytes()) == ("topk_l16_h65k.pth", b"w")
    both = save_sae_upload(tmp_path, {"ae.pt": b"w", "config.json": b"{}"})
    assert sorted(path.name for path in both.iterdir()) == ["ae.pt", "config.json"]
    assert both.parent == alone.parent.parent == tmp_path / "uploads"


def test_the_same_upload_is_written_once_and_another_stands_beside_it(tmp_path):
    first = save_sae_upload(tmp_path, {"ae.pt": b"w"})
    written = first.stat().st_mtime_ns
    assert save_sae_upload(tmp_path, {"ae.pt": b"w"}) == first
    assert first.stat().st_mtime_ns == written
    assert save_sae_upload(tmp_path, {"ae.pt": b"other"}) != first


def test_names_never_leave_the_folder(tmp_path):
    kept = save_sae_upload(tmp_path, {"../../../etc/cron.d/x.npz": b"w"})
    assert kept.is_relative_to(tmp_path / "uploads")
    assert kept.name == "x.npz"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"config.json": b"{}"},
        {"a.pt": b"1", "b.pt": b"2"},
        {"../cfg.json": b"{}", "cfg.json": b"{}", "a.pt": b"1"},
    ],
)
def test_anything_but_one_weights_file_is_one_sentence(tmp_path, files):
    with pytest.raises(InputError, match="Upload one weights file") as caught:
        save_sae_upload(tmp_path, files)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "uploads").exists()


def test_loading_checks_on_a_data_set_or_says_that_it_does_not():
    assert load_arguments("p", "auto", "anchor", ()) == ("sae", "load", "p", "--format=auto", "--check=anchor")
    assert load_arguments("p", "fac", "", ("--layer=3",))[3:] == ("--format=fac", "--no-check", "--layer=3")
