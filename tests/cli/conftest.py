"""The command line run in this process, and workspaces in every state a command can meet."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest

from facviz.cli import main


@pytest.fixture(autouse=True)
def no_workspace_in_the_environment(monkeypatch):
    monkeypatch.delenv("FACVIZ_WORKSPACE", raising=False)


@pytest.fixture
def facviz(capsys):
    """Run a command; its exit code, standard output and standard error."""

    def run(*arguments: object):
        capsys.readouterr()
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def told(facviz):
    """Run a command that must succeed, with `--json`; the object it prints."""

    def run(*arguments: object):
        code, output, errors = facviz(*arguments, "--json", "--quiet")
        assert (code, errors) == (0, "")
        return json.loads(output)

    return run


@pytest.fixture(scope="session")
def bare_loop(planted_loop, tmp_path_factory) -> Path:
    """A workspace with the anchor corpus and the SAE, and nothing measured yet; read only."""
    workspace = tmp_path_factory.mktemp("bare") / "workspace"
    models = ["--backbone", planted_loop / "models" / "backbone", "--layer", 1]
    with contextlib.redirect_stdout(io.StringIO()):
        for command in (
            ["data", "add", planted_loop / "anchor.jsonl", "--name", "anchor", "--roles", "user", *models],
            ["sae", "load", planted_loop / "models" / "sae", *models],
        ):
            assert main([*map(str, command), "--workspace", str(workspace), "--quiet"]) == 0
    return workspace


@pytest.fixture
def bare(bare_loop, tmp_path) -> Path:
    """A copy of that workspace that a test may change."""
    return Path(shutil.copytree(bare_loop, tmp_path / "bare"))
