"""View-models read the dashboard's database of a planted loop that a test may change."""

from __future__ import annotations

import pytest

from facviz.store.database import Database
from facviz.store.workspace import open_workspace


@pytest.fixture
def database(loop_copy):
    with Database(open_workspace(loop_copy / "workspace")) as opened:
        opened.sync()
        yield opened
