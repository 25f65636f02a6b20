"""The synthesis page on the planted run: counts, reading, deciding, the file, and a job watched to its end."""

from __future__ import annotations

import re

import pytest
from page_checks import complaints

from facviz.jobs import JobState, list_jobs
from facviz.pipeline.export_samples import FORMATS, NEED_ANSWER
from facviz.store.events import append_event, candidate_of, explanation_of, new_event, read_events
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.workspace import Workspace, open_workspace


@pytest.fixture
def open_page(open_app, planted_root):
    def run(**query):
        return open_app(planted_root, "synthesis", **query)

    return run


def metrics_of(app):
    return {metric.label: metric.value for metric in app.metric}


def html_of(app):
    return "\n".join(element.value for element in app.get("html"))


def buttons_of(app, start):
    return [b for b in app.button if str(b.key).startswith(f"fv_synthesis_{start}")]


def test_the_page_opens_with_the_closed_gap(open_page):
    app = open_page()
    assert complaints(app) == []
    assert metrics_of(app) == {
        "FAC": "100 %",
        "Features filled": "12",
        "Verified texts": "12",
        "Reviewed by people": "0",
    }
    assert len(app.get("plotly_chart")) == 1
    assert len(buttons_of(app, "approve_")) == 5 + 1  # a page of cards, and all at once
    assert len(app.get("download_button")) == 2


def test_approving_moves_the_counts_and_undo_takes_it_back(open_page, planted_root):
    app = open_page()
    first = buttons_of(app, "approve_")[1].key
    app.button(key=first).click().run()
    assert complaints(app) == []
    assert metrics_of(app)["Reviewed by people"] == "1"
    [sample] = [s for s in open_workspace(planted_root).samples().to_pylist() if s["review"] == "approved"]
    app.button(key=f"fv_synthesis_undo_{sample['candidate_id']}").click().run()
    assert metrics_of(app)["Reviewed by people"] == "0"
    assert len(read_events(planted_root / "events")) == 2


def test_a_rejected_text_is_neither_counted_nor_exported(open_page, planted_root):
    app = open_page()
    before = open_workspace(planted_root).samples().to_pylist()
    target = before[0]["candidate_id"]
    app.text_input(key=f"fv_synthesis_why_{target}").input("not <b>fluent</b>")
    app.button(key=f"fv_synthesis_reject_{target}").click().run()
    assert complaints(app) == []
    assert metrics_of(app)["FAC"] == "94 %"
    assert "not &lt;b&gt;fluent&lt;/b&gt;" in html_of(app)
    assert target not in {s["candidate_id"] for s in open_workspace(planted_root).samples().to_pylist()}


def test_all_texts_can_be_decided_on_at_once(open_page, planted_root):
    app = open_page()
    app.button(key="fv_synthesis_approve_all").click().run()
    assert complaints(app) == []
    assert metrics_of(app)["Reviewed by people"] == "12"
    assert {s["review"] for s in open_workspace(planted_root).samples().to_pylist()} == {"approved"}
    assert not buttons_of(app, "approve_")


def test_a_decision_made_elsewhere_meanwhile_is_not_overwritten(open_page, planted_root):
    app = open_page()
    key = buttons_of(app, "approve_")[1].key
    candidate_id = key.removeprefix("fv_synthesis_approve_")
    append_event(planted_root / "events", new_event("bea", candidate_of(candidate_id), "reject"))
    app.button(key=key).click().run()
    assert any("bea changed this" in e.value for e in app.error)
    assert [e["kind"] for e in read_events(planted_root / "events")] == ["reject"]


def test_turned_down_texts_are_shown_with_their_reason_and_no_decision(open_page):
    app = open_page(show="no_step_one")
    assert complaints(app) == []
    assert "Step 1, for the pair" in html_of(app)
    assert not [b for b in buttons_of(app, "approve_") if not b.key.endswith("_all")]


def test_features_in_the_address_are_chosen_and_unknown_ones_passed_over(open_page):
    app = open_page(features="14,12,9999,x")
    assert complaints(app) == []
    assert app.multiselect(key="fv_synthesis_features").value == [14, 12]
    assert any("At most 224 candidates for 2 features" in c.value for c in app.caption)


def test_texts_and_explanations_are_shown_as_text(open_page, planted_root):
    workspace = open_workspace(planted_root)
    [run] = workspace.coverage().to_pylist()
    nasty = "<img src=x onerror=alert(1)> **bold**"
    event = new_event("ann", explanation_of(run["sae_id"], 12), "edit", {"text": nasty})
    append_event(planted_root / "events", event)
    [row] = [s for s in workspace.samples().to_pylist() if s["feature_id"] == 12]
    names = rows_to_arrow("candidate", []).column_names
    changed = {name: row[name] for name in names} | {"text": nasty, "candidate_id": "0" * 16, "generator": "<i>x</i>"}
    key = workspace.manifest.entries()[-1]["scope"].split("/")[1]
    scope = Scope("synthesize", key, workspace.manifest.latest_fingerprint(f"synthesize/{key}"))
    workspace.manifest.write_shard(scope, "candidate", "12", rows_to_arrow("candidate", [changed]))
    app = open_page()
    assert complaints(app) == []
    assert "<img" not in html_of(app)
    assert "&lt;img src=x onerror=alert(1)&gt; **bold**" in html_of(app)  # the explanation in one piece
    assert html_of(app).count("&lt;img") >= 2  # and the text word by word


def test_a_saturated_measurement_is_refused_with_a_way_out(open_page, planted_root):
    workspace = open_workspace(planted_root)
    [run] = workspace.coverage().to_pylist()
    row = run | {"coverage_id": "f" * 12, "saturated": True, "n_missing": 3, "n_anchor": 4, "act_threshold": 4.0}
    scope = Scope("coverage", "f" * 12, "f" * 16)
    workspace.manifest.write_shard(scope, "coverage_run", "0", rows_to_arrow("coverage_run", [row]))
    workspace.manifest.mark_done(scope, {"coverage_id": "f" * 12})
    app = open_page()
    assert complaints(app) == []
    assert any("saturated" in t.value for t in app.text)
    assert not buttons_of(app, "start")
    app = open_page(coverage=run["coverage_id"])
    assert metrics_of(app)["Features filled"] == "12"


def test_a_job_is_started_watched_and_its_texts_can_be_approved(open_page, planted_root, wait_until):
    app = open_page(features="12")
    app.number_input(key="fv_synthesis_per_feature").set_value(2).run()
    app.button(key="fv_synthesis_start").click().run()
    assert complaints(app) == []
    [job] = list_jobs(planted_root)
    assert (job.page, job.arguments[0]) == ("synthesis", "synthesize")
    app.run()
    assert complaints(app) == []
    done = wait_until(lambda: next((j for j in list_jobs(planted_root) if not j.is_active), None))
    assert done.state is JobState.DONE, done.error
    [kept] = open_workspace(planted_root).coverage().to_pylist()
    assert done.result["coverage_id"] == kept["coverage_id"]  # the very measurement that the page showed
    app.run()
    assert complaints(app) == []
    assert int(metrics_of(app)["Verified texts"]) == 12 + done.result["n_accepted"]


def test_asking_where_texts_fire_marks_the_token(open_page, planted_root, wait_until):
    app = open_page()
    assert "fv-peak" not in html_of(app).replace(".fv-peak", "")
    app.toggle(key="fv_synthesis_heat").set_value(True).run()
    assert complaints(app) == []
    peak = r'class="fv-peak" style="[^"]*" title="(␣?)(mirror) · 2.00"'
    wait_until(lambda: re.search(peak, html_of(app.run())))  # texts are read one after another
    assert complaints(app) == []
    [sample] = [s for s in open_workspace(planted_root).samples().to_pylist() if s["feature_id"] == 12]
    assert "mirror" in sample["text"]
    [(_, token)] = re.findall(peak, html_of(app))
    assert token == "mirror"


def test_the_texts_can_be_taken_in_every_format_that_they_fit(open_page):
    app = open_page()
    for name in FORMATS:
        app.selectbox(key="fv_synthesis_format").set_value(name).run()
        assert complaints(app) == []
        fits = name not in NEED_ANSWER
        assert app.get("download_button")[0].proto.disabled is not fits, name
        assert any("No sample fits the format" in c.value for c in app.caption) is not fits


def test_an_empty_workspace_says_what_comes_first(open_app, tmp_path):
    app = open_app(Workspace.create(tmp_path / "empty").root, "synthesis")
    assert complaints(app) == []
    assert any("No texts yet" in m.value for m in app.subheader)
