"""The coverage page on the planted run: the gap at every δ, saturation, choosing, and a kept measurement."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from page_checks import complaints

from facviz.cli import main
from facviz.jobs import JobState, list_jobs
from facviz.store.events import append_event, candidate_of, explanation_of, new_event, relevance_of
from facviz.store.workspace import Workspace, open_workspace
from facviz.testing.workspaces import MARKED


@pytest.fixture
def open_page(open_app, planted_root):
    def run(**query):
        return open_app(planted_root, "coverage", **query)

    return run


def metrics_of(app):
    return {metric.label: metric.value for metric in app.metric}


def counted_of(app):
    """Features counted, as the first metric says beside the missing ones."""
    [beside] = [metric.delta for metric in app.metric if metric.label == "Missing features"]
    return beside


def html_of(app):
    return "\n".join(element.value for element in app.get("html"))


def picks_of(app):
    return [box for box in app.checkbox if str(box.key).startswith("fv_coverage_pick_")]


def test_the_page_opens_with_the_answer_at_the_kept_threshold(open_page):
    app = open_page()
    assert complaints(app) == []
    assert metrics_of(app) == {
        "Missing features": "12",
        "Filled since": "12",
        "FAC-freq": "71 %",
        "More of the same would add": "0",
    }
    assert counted_of(app) == "of 17 counted, 17 relevant"
    assert "29 %" in html_of(app)
    assert "12 never fire" in html_of(app)
    assert len(app.get("plotly_chart")) == 3
    assert not [b for b in app.button if b.key == "fv_coverage_keep"]
    assert len(picks_of(app)) == 8


def test_the_threshold_in_the_address_is_the_one_measured(open_page):
    app = open_page(threshold=2.0)
    assert complaints(app) == []
    assert counted_of(app) == "of 12 counted, 17 relevant"
    assert metrics_of(app)["Missing features"] == "9"
    assert app.button(key="fv_coverage_write").disabled


def test_moving_the_threshold_measures_again(open_page):
    app = open_page()
    app.slider(key="threshold").set_value(1.0).run()
    assert complaints(app) == []
    assert counted_of(app) == "of 16 counted, 17 relevant"


def test_a_saturated_threshold_is_said_plainly_and_left_with_one_click(open_page):
    app = open_page(threshold=4.0)
    assert complaints(app) == []
    assert any("Saturated" in m.value for m in app.markdown)
    assert app.button(key="fv_coverage_write").disabled
    app.button(key="fv_coverage_unsaturate").click().run()
    assert complaints(app) == []
    assert app.slider(key="threshold").value == 0.0
    assert not any("Saturated" in m.value for m in app.markdown)


def test_a_threshold_above_every_activation_is_a_sentence_beside_the_slider(open_page):
    app = open_page(threshold=5.0)
    assert complaints(app) == []
    assert any("lower δ" in t.value for t in app.text)
    assert app.slider(key="threshold").value == 5.0


def test_chosen_features_go_to_synthesis(open_page):
    app = open_page()
    first, second = (box.key for box in picks_of(app)[:2])
    app.checkbox(key=first).check().run()
    app.checkbox(key=second).check().run()
    assert app.button(key="fv_coverage_write").label == "Write texts for 2 features"
    app.button(key="fv_coverage_none").click().run()
    assert app.button(key="fv_coverage_write").disabled  # every missing feature was tried
    app.button(key="fv_coverage_all").click().run()
    assert app.button(key="fv_coverage_write").label == "Write texts for 12 features"
    app.checkbox(key=first).uncheck().run()
    app.button(key="fv_coverage_write").click().run()
    assert complaints(app) == []
    assert app.title[0].value == "Which new texts close the gap?"
    assert len(app.query_params["features"].split(",")) == 11


def test_explanations_are_shown_as_text(open_page, planted_root):
    [run] = open_workspace(planted_root).coverage().to_pylist()
    nasty = "<script>alert(1)</script> *not bold* $x$"
    for feature_id in range(12, 24):
        event = new_event("ann", explanation_of(run["sae_id"], feature_id), "edit", {"text": nasty})
        append_event(planted_root / "events", event)
    app = open_page()
    assert complaints(app) == []
    assert "<script>" not in html_of(app)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; *not bold* $x$" in html_of(app)


def test_keeping_a_measurement_stores_exactly_what_was_shown(open_page, planted_root, wait_until):
    app = open_page(threshold=2.0)
    app.button(key="fv_coverage_keep").click().run()
    [job] = list_jobs(planted_root)
    assert (job.page, job.arguments[0]) == ("coverage", "coverage")
    done = wait_until(lambda: next((j for j in list_jobs(planted_root) if not j.is_active), None))
    assert done.state is JobState.DONE, done.error
    assert (done.result["n_anchor"], done.result["n_missing"]) == (12, 9)
    app.run()
    assert complaints(app) == []
    assert not [b for b in app.button if b.key == "fv_coverage_keep"]
    assert not app.button(key="fv_coverage_write").disabled or metrics_of(app)["Filled since"] == "9"


def test_an_empty_workspace_says_what_comes_first(open_app, tmp_path):
    app = open_app(Workspace.create(tmp_path / "empty").root, "coverage")
    assert complaints(app) == []
    assert any("No gap to show yet" in m.value for m in app.subheader)


def test_a_narrower_list_starts_where_it_has_pages(open_page, planted_root):
    first, *_ = open_workspace(planted_root).samples().to_pylist()
    append_event(planted_root / "events", new_event("ann", candidate_of(first["candidate_id"]), "reject"))
    app = open_page()
    app.get("pagination")[0].set_value(2).run()
    assert complaints(app) == []
    assert len(picks_of(app)) == 4
    app.toggle(key="fv_coverage_still").set_value(True).run()
    assert complaints(app) == []
    assert [box.key for box in picks_of(app)] == [f"fv_coverage_pick_{first['feature_id']}"]
    append_event(planted_root / "events", new_event("ann", candidate_of(first["candidate_id"]), "approve"))
    app.run()
    assert complaints(app) == []
    assert picks_of(app) == []


def test_the_inputs_of_every_number_can_be_read(open_page):
    app = open_page()
    said = html_of(app)
    for words in ("Anchor set anchor", "sha256", "96 texts, 768 content tokens", "hidden state 1", "1,000 resamples"):
        assert words in said


def test_the_other_sets_are_asked_the_same_at_equal_tokens_and_differ_by_named_features(open_page):
    app = open_page(look="sets")
    assert complaints(app) == []
    said = html_of(app)
    assert "<b>seed</b>" in said
    assert "12 of 12" in said  # the anchor set shows all of the seed's gap
    captions = " ".join(c.value for c in app.caption)
    assert "within 320 content tokens" in captions  # 40 documents of eight words
    assert "Lost: in no text of the second set" in captions
    assert [link for link in app.get("page_link") if "feature" in str(link.proto.page)]
    app.selectbox(key="to").select("anchor").run()
    assert complaints(app) == []
    assert any("two different sets" in c.value for c in app.caption)


def test_a_level_that_changes_nothing_says_so(open_page):
    app = open_page(look="levels")
    assert complaints(app) == []
    assert any("the level changes nothing" in c.value for c in app.caption)


def test_a_weaker_level_names_the_features_that_make_the_difference(open_page, planted_root):
    [run] = open_workspace(planted_root).coverage().to_pylist()
    for feature_id in (12, 13):
        target = relevance_of(run["sae_id"], feature_id, "toxicity")
        append_event(planted_root / "events", new_event("ann", target, "verdict", {"verdict": "maybe"}))
    app = open_page(look="levels")
    assert complaints(app) == []
    assert "33 %" in html_of(app)  # 5 of 15 without the two
    assert any("“maybe” brings in 2 missing features" in c.value for c in app.caption)


def test_themes_can_be_seen_as_areas_too(open_page, monkeypatch):
    from concurrent.futures import Future

    from facviz.ui import measured
    from facviz.views.themes import lay_out

    def at_once(database, sae_id, ids):
        future = Future()
        texts = {i: f"word{i % 3} here" for i in ids}
        future.set_result(lay_out(ids, texts, np.array(ids), np.eye(4)[[i % 3 for i in ids]]))
        return future

    monkeypatch.setattr(measured, "feature_layout", at_once)
    for view in ("areas", "map"):
        app = open_page(view=view)
        assert complaints(app) == []
        assert len(app.get("plotly_chart")) == 3
    assert any("Alike explanations lie close" in c.value for c in app.caption)


def test_a_third_set_can_stand_beside_or_be_joined(open_page, planted_root, tmp_path):
    file = tmp_path / "marked.jsonl"
    file.write_text(json.dumps({"text": " ".join(MARKED)}) + "\n", encoding="utf-8")
    backbone = str(planted_root.parent / "models" / "backbone")
    where = ("--workspace", str(planted_root), "--json", "--quiet")
    for arguments in (
        ("data", "add", str(file), "--name", "marked", "--roles", "user", "--backbone", backbone, "--layer", "1"),
        ("spans", "--dataset", "marked"),
    ):
        with contextlib.redirect_stdout(io.StringIO()):
            assert main([*arguments, *where]) == 0
    app = open_page(look="sets", beside="marked")
    assert complaints(app) == []
    assert "<b>marked</b>" in html_of(app)
    joined = open_page(seeds="marked")
    assert complaints(joined) == []
    assert "seed + marked" in html_of(joined)
    assert metrics_of(joined)["Missing features"] == "0"  # one text with every marked word
    assert not [b for b in joined.button if b.key == "fv_coverage_keep"]
    assert any("one data set" in c.value for c in joined.caption)
    both = open_page(anchors="marked")
    assert complaints(both) == []
    assert "Anchor set marked" in html_of(both)
