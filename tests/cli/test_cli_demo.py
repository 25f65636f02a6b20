"""`facviz demo` and `facviz app`: where they put the demo, what they print, and how the server is started."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from facviz.errors import WorkspaceError
from facviz.pipeline import demo, demo_build
from facviz.store.workspace import Workspace, open_workspace


@pytest.fixture
def shipped(planted_loop, tmp_path, monkeypatch):
    """A demo folder made of the planted loop, taken for the one that ships; `app.py` stands two folders above."""
    folder = tmp_path / "checkout" / "data" / "demo"
    shutil.copytree(planted_loop / "models" / "sae", folder / "sae")
    demo_build.pack(open_workspace(planted_loop / "workspace"), folder / "workspace")
    (tmp_path / "checkout" / "app.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(demo, "DEMO_FOLDER", folder)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    return folder


@pytest.fixture
def started(monkeypatch):
    """What Streamlit would have been asked for, once a server is asked for; the command then ends with 7."""
    calls = []
    monkeypatch.setattr("facviz.cli.app.run_server", lambda arguments: calls.append(arguments) or 7)
    monkeypatch.setenv("FACVIZ_WORKSPACE", "")
    return calls


def test_demo_installs_into_the_data_folder_and_prints_the_path(told, shipped, tmp_path):
    found = told("demo")
    assert found == {"workspace": str(tmp_path / "share" / "facviz" / "demo"), "is_demo": True, "is_current": True}
    assert open_workspace(found["workspace"]).coverage().num_rows == 1
    assert told("demo") == found


def test_demo_prints_a_line_for_people_too(facviz, shipped, tmp_path):
    code, output, errors = facviz("demo", "--workspace", tmp_path / "here")
    assert (code, errors) == (0, "")
    assert f"workspace: {tmp_path / 'here'}" in output


def test_the_workspace_may_come_from_the_environment_and_a_flag_wins(told, shipped, tmp_path, monkeypatch):
    monkeypatch.setenv("FACVIZ_WORKSPACE", str(tmp_path / "a"))
    assert told("demo")["workspace"] == str(tmp_path / "a")
    assert told("demo", "--workspace", tmp_path / "b")["workspace"] == str(tmp_path / "b")


def test_reset_says_where_the_demo_in_use_is_kept(told, shipped):
    root = told("demo")["workspace"]
    assert told("demo", "--reset", "--workspace", root)["kept"].startswith(f"{root}-")
    shutil.rmtree(root)
    assert told("demo", "--reset", "--workspace", root)["kept"] is None


def test_reset_refuses_a_workspace_of_ones_own(facviz, shipped, tmp_path):
    Workspace.create(tmp_path / "own")
    code, output, errors = facviz("demo", "--reset", "--workspace", tmp_path / "own")
    assert (code, output) == (2, "")
    assert "is not the demo but a workspace of your own" in errors


@pytest.mark.parametrize(("holds", "expected"), [(True, 0), (False, 1)])
def test_the_exit_code_of_a_rebuild_says_whether_its_story_holds(facviz, tmp_path, monkeypatch, holds, expected):
    asked = []

    def rebuild(progress, *, retrain):
        asked.append(retrain)
        return {"story": {"holds": holds}}

    monkeypatch.setattr(demo_build, "rebuild_demo", rebuild)
    code, output, _ = facviz("demo", "--rebuild", "--json")
    assert (code, json.loads(output)) == (expected, {"story": {"holds": holds}})
    facviz("demo", "--retrain", tmp_path / "corpus.jsonl")
    assert asked == [None, tmp_path / "corpus.jsonl"]


def test_app_starts_the_server_on_this_machine_only_with_the_demo(facviz, shipped, started, tmp_path):
    assert facviz("app")[0] == 7
    [arguments] = started
    assert arguments[:2] == ["run", str(tmp_path / "checkout" / "app.py")]
    assert set(arguments[2:]) == {"--server.port=8501", "--server.address=127.0.0.1", "--server.headless=true"}
    assert Path(os.environ["FACVIZ_WORKSPACE"]) == tmp_path / "share" / "facviz" / "demo"


def test_app_takes_the_tables_in_before_the_server_starts(facviz, shipped, started, tmp_path):
    facviz("app")
    assert (tmp_path / "share" / "facviz" / "demo" / "facviz.duckdb").is_file()


def test_app_starts_also_where_another_dashboard_has_the_tables(facviz, shipped, started, monkeypatch):
    def locked(*_):
        raise WorkspaceError("open in another dashboard")

    monkeypatch.setattr("facviz.cli.app.Database", locked)
    assert facviz("app")[0] == 7
    assert len(started) == 1


def test_app_takes_a_port_and_makes_a_new_workspace_where_it_is_told(facviz, shipped, started, tmp_path):
    assert facviz("app", "--port", "9000", "--workspace", tmp_path / "mine")[0] == 7
    assert "--server.port=9000" in started[0]
    assert os.environ["FACVIZ_WORKSPACE"] == str(tmp_path / "mine")
    assert open_workspace(tmp_path / "mine").coverage().num_rows == 0


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_that_cannot_exist_is_refused(facviz, shipped, started, port):
    code, output, errors = facviz("app", "--port", port)
    assert (code, output, started) == (2, "", [])
    assert f"The port {port} does not exist" in errors


def test_app_without_a_checkout_says_so(facviz, shipped, started, tmp_path):
    (tmp_path / "checkout" / "app.py").unlink()
    assert facviz("app")[0] == 2
    assert started == []
