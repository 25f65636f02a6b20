"""`facviz map` on the planted loop: places once, names again when explanations change."""

from __future__ import annotations

import json

import pytest

from facviz.cli import main
from facviz.store.database import Database
from facviz.store.events import explanation_of
from facviz.store.workspace import open_workspace


@pytest.fixture
def draw(capsys, loop_copy):
    """Run `facviz map`; its JSON object."""

    def run(*more):
        assert main(["map", "--workspace", str(loop_copy / "workspace"), "--json", "--quiet", *more]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def shards(root, table):
    return sorted(path.name for path in (root / "tables" / table).glob("*.parquet"))


def test_every_feature_gets_a_place_once_and_names_follow_the_explanations(draw, loop_copy):
    root = loop_copy / "workspace"
    first = draw()
    assert first["n_features"] == 26
    with open_workspace(root).reader() as reader:
        rows = reader.named("feature_places", sae_id=first["sae_id"]).to_pylist()
    assert [row["feature_id"] for row in rows] == list(range(26))
    before = shards(root, "feature_map"), shards(root, "feature_cluster")
    assert draw() == first
    assert (shards(root, "feature_map"), shards(root, "feature_cluster")) == before
    with Database(open_workspace(root)) as database:
        database.sync()
        database.record("ann", explanation_of(first["sae_id"], 3), "edit", {"text": "quite other words"})
    draw()
    assert shards(root, "feature_map") == before[0]
    assert len(shards(root, "feature_cluster")) == 2


def test_another_seed_is_another_map(draw, loop_copy):
    draw()
    draw("--rng-seed", "7")
    assert len(shards(loop_copy / "workspace", "feature_map")) == 2
