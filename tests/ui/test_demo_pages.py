"""The demo on every page: content, no complaint, and the story that the documents tell."""

from __future__ import annotations

import pytest
from page_checks import PAGES, complaints, shown

from facviz.pipeline.demo import install_demo
from facviz.store.events import append_event, explanation_of, new_event, read_events
from facviz.store.workspace import open_workspace

N_METRICS = {"overview": 3, "data": 2, "sae": 3, "coverage": 2}


@pytest.fixture(scope="module")
def demo_root(tmp_path_factory):
    return install_demo(tmp_path_factory.mktemp("demo") / "demo")


@pytest.mark.parametrize("page", PAGES)
def test_every_page_shows_the_demo_without_a_complaint(open_app, demo_root, page):
    app = open_app(demo_root, page)
    app.run()
    assert complaints(app) == []
    assert "could not be shown" not in shown(app)
    assert len(app.metric) >= N_METRICS.get(page, 0)


def test_a_missing_feature_of_the_demo_has_spans_with_heat(open_app, demo_root):
    with open_workspace(demo_root).reader() as reader:
        run = reader.rows("coverage")[-1]
        [feature, *_] = reader.rows("missing", coverage_id=run["coverage_id"])
    app = open_app(demo_root, "feature", feature=feature["feature_id"])
    spans = "".join(e.value for e in app.get("html"))
    assert spans.count('class="fv-row') >= 5
    assert 'class="fv-peak' in spans
    assert complaints(app) == []


def test_the_demo_can_be_had_back_as_it_shipped(open_app, tmp_path):
    root = install_demo(tmp_path / "demo")
    append_event(root / "events", new_event("somebody", explanation_of("of-no-sae", 1), "flag"))
    app = open_app(root)
    app.button("fv_overview_reset_now").click().run()
    assert complaints(app) == []
    assert read_events(root / "events") == []
    [kept] = [p for p in tmp_path.iterdir() if p.name.startswith("demo-")]
    assert [e["kind"] for e in read_events(kept / "events")] == ["flag"]


def test_only_the_demo_offers_to_be_reset(open_app, planted_root):
    app = open_app(planted_root)
    assert "fv_overview_reset_now" not in [b.key for b in app.button]


def test_the_story_of_the_demo_holds(demo_root):
    workspace = open_workspace(demo_root)
    with workspace.reader() as reader:
        run = reader.rows("coverage")[-1]
        missing = {row["feature_id"] for row in reader.rows("missing", coverage_id=run["coverage_id"])}
        rows = reader.rows("relevance", task=run["task"], sae_id=run["sae_id"])
    [synthesis] = workspace.manifest.latest_done("synthesize").values()
    themes = {row["theme"] for row in rows if row["feature_id"] in missing}
    assert 0.5 <= run["fac"] <= 0.9
    assert len(missing) == run["n_missing"] >= 30
    assert len(themes - {""}) >= 3
    assert synthesis["n_filled"] >= 0.6 * len(missing)
    assert synthesis["n_attempted"] < len(missing), "nothing is left to try for who opens the demo"
    assert synthesis["fac_after"] > run["fac"]
    assert not run["saturated"]
