"""The frame: every page opens through `app.py`, failures are sentences, and settings follow the reader."""

from __future__ import annotations

import pytest
from page_checks import PAGES, complaints

from facviz.store.database import Database
from facviz.store.workspace import Workspace, open_workspace


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_on_a_finished_loop_without_a_complaint(open_app, planted_root, page):
    app = open_app(planted_root, page)
    assert complaints(app) == []
    assert len(app.title) == 1


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_on_an_empty_workspace_and_says_what_to_do(open_app, tmp_path, page):
    root = Workspace.create(tmp_path / "empty").root
    app = open_app(root, page)
    assert complaints(app) == []
    assert len(app.title) == 1


def test_a_workspace_open_in_another_dashboard_is_one_sentence(open_app, planted_root, start_python):
    program = """
import sys
from facviz.store.database import Database
from facviz.store.workspace import open_workspace
database = Database(open_workspace(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""
    other = start_python(program, planted_root)
    assert other.stdout.readline() == "open\n"
    app = open_app(planted_root)
    assert complaints(app) == []
    assert any("open in another dashboard" in t.value for t in app.text)


def test_a_folder_that_is_no_workspace_is_one_sentence(open_app, tmp_path):
    app = open_app(tmp_path / "nothing")
    assert complaints(app) == []
    assert any("is no facviz workspace" in t.value for t in app.text)


def test_a_shard_written_by_another_process_shows_after_one_rerun(open_app, planted_root):
    app = open_app(planted_root)
    entries = len(open_workspace(planted_root).manifest.entries())
    app.run()
    assert len(open_workspace(planted_root).manifest.entries()) == entries  # looking writes nothing


def test_the_database_is_closed_when_the_server_lets_go_of_it(open_app, planted_root):
    import streamlit as st

    open_app(planted_root)
    st.cache_resource.clear()
    with Database(open_workspace(planted_root)) as database:
        assert not database.sync()
