"""`facviz app`: this process becomes the dashboard's server. It imports little, as the first page waits for it."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from threading import Thread

from facviz.errors import FacvizError, InputError
from facviz.pipeline import demo
from facviz.store.database import Database
from facviz.store.workspace import Workspace, open_workspace

SERVER = "streamlit.web.cli"
"""What `python -m streamlit` imports first, and what takes longest."""


def serve(arguments: argparse.Namespace) -> int:
    """The dashboard on one workspace until it is stopped; signals and the exit code are Streamlit's own.

    Raises:
        InputError: there is no `app.py` beside the package, or the port does not exist.
        WorkspaceError: the workspace cannot be made or opened.
    """
    script = demo.DEMO_FOLDER.parents[1] / "app.py"
    if not script.is_file():
        raise InputError(f"There is no dashboard at {script}; run facviz from a clone of its repository.")
    if not 1 <= arguments.port <= 65535:
        raise InputError(f"The port {arguments.port} does not exist; choose one from 1024 to 65535.")
    with _importing(SERVER):
        given = arguments.workspace or os.environ.get("FACVIZ_WORKSPACE")
        root = Workspace.create(given).root if given else demo.install_demo()
        os.environ["FACVIZ_WORKSPACE"] = str(root)
        _take_in(root)
    server = {"server.port": str(arguments.port), "server.address": "127.0.0.1", "server.headless": "true"}
    return run_server(["run", str(script), *(f"--{name}={value}" for name, value in server.items())])


def run_server(arguments: list[str]) -> int:
    """`python -m streamlit …` in this process: what taking the tables in has imported is there already."""
    sys.argv = ["streamlit", *arguments]
    runpy.run_module("streamlit", run_name="__main__")
    return 0


@contextmanager
def _importing(module: str) -> Iterator[None]:
    """Import a slow module on the second core while the body waits for the disk and the database."""
    thread = Thread(target=import_module, args=(module,))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _take_in(root: Path) -> None:
    """Bring the dashboard's tables up to date before its server starts, so that the first page need not wait for it."""
    with suppress(FacvizError):  # of another dashboard's lock, for instance, the page itself says what to do
        database = Database(open_workspace(root))
        try:
            database.sync()
        finally:
            database.close()
