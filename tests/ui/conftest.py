"""The dashboard under AppTest: opened through `app.py` on a planted workspace that a test may change."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def planted_root(loop_copy):
    """Workspace of a finished planted loop."""
    return loop_copy / "workspace"


@pytest.fixture
def open_app(monkeypatch, tmp_path):
    """Open a page of the dashboard on a workspace, as a fresh server would; the address's values as keywords."""
    import streamlit as st
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(REPOSITORY)

    def run(root: Path, page: str = "overview", **query: object) -> AppTest:
        monkeypatch.setenv("FACVIZ_WORKSPACE", str(root))
        app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=60)
        for name, value in query.items():
            app.query_params[name] = str(value)
        app.run()
        return app.switch_page(f"pages/{page}.py").run() if page != "overview" else app

    yield run
    st.cache_resource.clear()  # closes the databases


@pytest.fixture
def wait_until():
    """Wait for something another process does; fails after a minute."""

    def wait(is_true, seconds: float = 60.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = is_true()
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError("It did not happen in time.")

    return wait
