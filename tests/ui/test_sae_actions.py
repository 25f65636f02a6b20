"""Measuring and handing over the chosen SAE, below the page: the command's words and the archive's bytes."""

from __future__ import annotations

import io
import zipfile

import pytest

from facviz.errors import WorkspaceError
from facviz.ui.components.sae_actions import eval_arguments, weights_archive


def test_only_what_was_asked_for_is_measured():
    assert eval_arguments("s", "d", fidelity=False, probe=False, health=False) == ("sae", "eval", "s", "--dataset=d")
    assert eval_arguments("s", "d", fidelity=True, probe=True, health=True)[4:] == ("--fidelity", "--probe", "--health")


def test_the_archive_holds_the_folders_files_and_loads_as_the_same_sae(loop_copy, tmp_path):
    from facviz.sae.formats import load_sae

    [folder] = (loop_copy / "workspace" / "sae").glob("*/weights")
    with zipfile.ZipFile(io.BytesIO(weights_archive(folder))) as archive:
        assert sorted(archive.namelist()) == sorted(path.name for path in folder.iterdir())
        archive.extractall(tmp_path / "out")
    assert load_sae(tmp_path / "out", "saelens").W_dec.equal(load_sae(folder, "saelens").W_dec)


def test_weights_that_cannot_be_read_are_one_sentence(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "gone").symlink_to(tmp_path / "nowhere")
    assert zipfile.ZipFile(io.BytesIO(weights_archive(tmp_path / "w"))).namelist() == []
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    with pytest.raises(WorkspaceError):
        weights_archive(blocked / "weights" / ("x" * 5000))
