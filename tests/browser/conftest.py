"""The dashboard in headless Chromium: a server of its own per test, and a workspace whose every text is hostile."""

from __future__ import annotations

import json

import pytest
from hostile import HOSTILE

from facviz.pipeline.demo import install_demo
from facviz.store.database import Database
from facviz.store.events import explanation_of
from facviz.store.manifest import Scope
from facviz.store.saved_views import save_view
from facviz.store.schema import MODE, rows_to_arrow
from facviz.store.workspace import open_workspace
from facviz.testing.browser import Server, find_chromium, open_browser


def pytest_collection_modifyitems(items):
    for item in items:
        if "browser" in item.path.parts and find_chromium() is None:
            item.add_marker(pytest.mark.skip(reason="no Chromium on this machine"))


@pytest.fixture
def serve(tmp_path):
    """Start a dashboard on a workspace; whatever was started is stopped, by pid."""
    started: list[Server] = []

    def start(root) -> Server:
        environment = {"HF_HUB_OFFLINE": "1", "XDG_DATA_HOME": str(tmp_path / "data")}
        server = Server(root, log=tmp_path / "server.log", environment=environment)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def browser_page():
    """A page in headless Chromium, 1,280 pixels wide."""
    with open_browser() as page:
        yield page


@pytest.fixture
def demo_root(tmp_path):
    """The demo as it ships, in a folder of the test."""
    return install_demo(tmp_path / "demo")


def place_on_a_map(workspace, sae_id: str, name: str = HOSTILE) -> None:
    """Every planted feature at a place that is its number, ten to a cluster, the clusters named `name`."""
    places = [{"feature_id": i, "umap_x": i / 3 - 4, "umap_y": i % 5 - 2, "cluster": i // 10} for i in range(26)]
    clusters = [{"cluster": i, "name": name, "n_features": 10} for i in range(3)]
    for stage, table, rows in (("map", "feature_map", places), ("map-names", "feature_cluster", clusters)):
        scope = Scope(stage, sae_id, "d" * 16)
        whole = [row | {"sae_id": sae_id} for row in rows]
        workspace.manifest.write_shard(scope, table, "0", rows_to_arrow(table, whole))
        workspace.manifest.mark_done(scope, {})


@pytest.fixture
def mapped_root(loop_copy):
    """A finished planted loop with a map."""
    workspace = open_workspace(loop_copy / "workspace")
    with workspace.reader() as reader:
        [sae] = reader.rows("saes")
    place_on_a_map(workspace, sae["sae_id"], "words")
    return workspace.root


@pytest.fixture
def hostile_root(loop_copy, evaluation_summary):
    """A finished loop in which dataset, source, texts, spans, explanations and samples try to break out."""
    workspace = open_workspace(loop_copy / "workspace")
    with workspace.reader() as reader:
        [sae] = reader.rows("saes")
        anchor = reader.dataset("anchor")
        [span, *_] = reader.rows("spans", feature_id=12, sae_id=None)
        candidates = reader.rows("samples")[:2]
    manifest = workspace.manifest
    name = Scope("data", HOSTILE, "a" * 16)
    row = anchor | {"dataset_id": "hostile", "name": HOSTILE, "source": HOSTILE, "licence": HOSTILE, "mapping": HOSTILE}
    document = {"dataset_id": "hostile", "doc_no": 0, "doc_id": "0" * 16, "text": HOSTILE, "label": HOSTILE}
    document |= {"messages": [{"role": "user", "content": HOSTILE}], "split": "explain", "n_content_tokens": 3}
    manifest.write_shard(name, "document", "0", rows_to_arrow("document", [document]))
    manifest.write_shard(name, "dataset", "0", rows_to_arrow("dataset", [row | {"n_docs": 1}]))
    manifest.mark_done(name, {})
    spans = Scope("spans", f"{sae['sae_id']}/hostile/{MODE}", "b" * 16)
    tokens = [HOSTILE[:20], HOSTILE[20:60], HOSTILE[60:]]
    hostile_span = span | {"dataset_id": "hostile", "tokens": tokens, "acts": [0.0, 1.0, 0.0], "doc_no": 0, "rank": 0}
    hostile_span |= {"start_token": 0, "end_token": 3, "peak_token": 1, "start_char": 0, "end_char": len(HOSTILE)}
    manifest.write_shard(spans, "span", "0", rows_to_arrow("span", [hostile_span]))
    manifest.mark_done(spans, {})
    evaluation = Scope("evaluate", "e" * 12, "d" * 16)
    said = {"task": HOSTILE, "seed": HOSTILE, "test": HOSTILE, "positive": [HOSTILE], "backbone": HOSTILE}
    manifest.mark_done(evaluation, evaluation_summary | said)
    synthesis = Scope("synthesize", candidates[0]["synth_id"] + "x", "c" * 16)
    columns = set(rows_to_arrow("candidate", []).column_names)
    hostile_candidates = [
        {k: v for k, v in c.items() if k in columns}
        | {"candidate_id": f"hostile{i}", "text": HOSTILE, "gates": json.dumps({})}
        for i, c in enumerate(candidates)
    ]
    manifest.write_shard(synthesis, "candidate", "0", rows_to_arrow("candidate", hostile_candidates))
    score = dict.fromkeys(("judge", "explainer", "text", "negatives"), HOSTILE) | {
        "intervals": "[]",
        "at": "2026-01-01",
    }
    score |= {"sae_id": sae["sae_id"], "feature_id": 12, "kind": "detection", "chance": 0.5, "accuracy": 0.5, "n": 4}
    score |= {"low": 0.1, "high": 0.9, "n_invalid": 0}
    scored = Scope("score", "hostile", "d" * 16)
    manifest.write_shard(scored, "explanation_score", "0", rows_to_arrow("explanation_score", [score]))
    manifest.mark_done(scored, {})
    place_on_a_map(workspace, sae["sae_id"])
    with Database(workspace) as database:
        database.sync()
        save_view(database, HOSTILE, "features", HOSTILE[:60], {"search": HOSTILE})
        for feature_id in range(25):
            database.record(HOSTILE, explanation_of(sae["sae_id"], feature_id), "edit", {"text": HOSTILE})
    return workspace.root
