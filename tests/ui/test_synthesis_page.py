"""The synthesis page on the planted run: counts, reading, deciding, the file, and a job watched to its end."""

from __future__ import annotations

import re
from html import escape

import pytest
from page_checks import complaints

from facviz.jobs import JobState, list_jobs
from facviz.pipeline.export_samples import FORMATS, NEED_ANSWER
from facviz.store.events import append_event, candidate_of, explanation_of, new_event, read_events
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.workspace import Workspace, open_workspace
from facviz.ui.components.address import plain_markdown as literal
from facviz.views.plan import STRATEGIES


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


def test_the_page_opens_with_the_closed_gap_and_the_first_text_to_review(open_page):
    app = open_page()
    assert complaints(app) == []
    assert metrics_of(app) == {
        "FAC": "100 %",
        "Features filled": "12",
        "Verified texts": "12",
        "Reviewed by people": "0",
    }
    assert len(app.get("plotly_chart")) == 1
    assert app.segmented_control(key="fv_synthesis_view").value == "read"
    assert {b.label for b in app.button if str(b.key).startswith("fv_sample_")} >= {"Approve", "Edit", "Reject"}
    assert "Read alone" in html_of(app)
    assert "more than" in html_of(app)
    assert len(app.get("download_button")) == 2


def test_approving_goes_on_to_the_next_and_undo_comes_back(open_page, planted_root):
    app = open_page()
    app.button(key="fv_sample_approve").click().run()
    assert complaints(app) == []
    assert metrics_of(app)["Reviewed by people"] == "1"
    [sample] = [s for s in open_workspace(planted_root).samples().to_pylist() if s["review"] == "approved"]
    assert app.query_params["candidate"] != sample["candidate_id"]
    assert not any("not in this list" in link.label for link in app.get("page_link"))
    app.button(key="fv_sample_undo").click().run()
    assert metrics_of(app)["Reviewed by people"] == "0"
    assert app.query_params["candidate"] == sample["candidate_id"]
    app.button(key="fv_sample_redo").click().run()
    assert metrics_of(app)["Reviewed by people"] == "1"
    assert [e["kind"] for e in read_events(planted_root / "events")] == ["approve", "undo", "undo"]


def test_next_and_previous_walk_the_list_without_deciding(open_page, planted_root):
    app = open_page()
    assert app.button(key="fv_sample_left").disabled
    first = app.button(key="fv_sample_right").click().run().query_params["candidate"]
    second = app.button(key="fv_sample_right").click().run().query_params["candidate"]
    assert first != second
    assert app.button(key="fv_sample_left").click().run().query_params["candidate"] == first
    assert complaints(app) == []
    assert read_events(planted_root / "events") == []


def test_a_rejected_text_is_neither_counted_nor_exported(open_page, planted_root):
    target = open_workspace(planted_root).samples().to_pylist()[0]["candidate_id"]
    app = open_page(candidate=target)
    app.button(key="fv_sample_reject").click().run()
    app.text_input(key="fv_sample_why").input("not <b>fluent</b>").run()
    assert complaints(app) == []
    assert metrics_of(app)["FAC"] == "94 %"
    assert target not in {s["candidate_id"] for s in open_workspace(planted_root).samples().to_pylist()}
    app = open_page(show="rejected")
    assert "not &lt;b&gt;fluent&lt;/b&gt;" in html_of(app)
    app.button(key="fv_sample_reopen").click().run()
    assert metrics_of(app)["FAC"] == "100 %"


def test_a_reason_of_the_list_rejects_at_once(open_page, planted_root):
    app = open_page()
    app.button(key="fv_sample_reject").click().run()
    app.button(key="fv_sample_reason_2").click().run()
    [event] = read_events(planted_root / "events")
    assert (event["kind"], event["payload"]["reason"]) == ("reject", "not fluent")


def test_many_are_decided_on_in_one_step_that_one_undo_takes_back(open_page, planted_root):
    app = open_page()
    app.button(key="fv_synthesis_bulk").click().run()
    app.button(key="fv_synthesis_approve_all").click().run()
    assert complaints(app) == []
    assert metrics_of(app)["Reviewed by people"] == "12"
    assert {s["review"] for s in open_workspace(planted_root).samples().to_pylist()} == {"approved"}
    assert len((planted_root / "events" / "review.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    app.button(key="fv_sample_undo").click().run()
    assert metrics_of(app)["Reviewed by people"] == "0"


def test_a_decision_made_elsewhere_meanwhile_is_not_overwritten(open_page, planted_root):
    candidate_id = open_workspace(planted_root).samples().to_pylist()[0]["candidate_id"]
    app = open_page(candidate=candidate_id)
    append_event(planted_root / "events", new_event("bea", candidate_of(candidate_id), "reject"))
    app.button(key="fv_sample_approve").click().run()
    assert any("bea changed this" in e.value for e in app.error)
    assert [e["kind"] for e in read_events(planted_root / "events")] == ["reject"]


def test_turned_down_texts_are_shown_with_their_reason_and_can_only_be_edited(open_page):
    app = open_page(show="no_step_one")
    assert complaints(app) == []
    assert "Step 1, for the pair" in html_of(app)
    assert [b.label for b in buttons_of(app, "approve")] == []
    assert not any(b.key == "fv_sample_approve" for b in app.button)
    assert any(b.key == "fv_sample_edit" for b in app.button)


def test_one_feature_can_be_read_alone(open_page):
    app = open_page(of="14")
    assert complaints(app) == []
    assert any("Feature 14" in link.label for link in app.get("page_link"))
    assert "To review 1" in app.pills(key="fv_synthesis_show").options


def edit(app, text, wait_until):
    """Put a text in place of the one that is shown, and wait for its verdict."""
    app.button(key="fv_sample_edit").click().run()
    field = next(t for t in app.text_area if str(t.key).startswith("fv_sample_text_"))
    field.input(text)
    app.button(key="fv_sample_save").click().run()
    wait_until(lambda: app.run() and not any("reads your text" in c.value for c in app.caption))
    return app


def test_an_edited_text_takes_the_place_of_the_first_once_it_verified(open_page, planted_root, wait_until):
    before = next(s for s in open_workspace(planted_root).samples().to_pylist() if s["feature_id"] == 12)
    app = open_page(candidate=before["candidate_id"])
    text = f"{before['text']} once more today"
    edit(app, text, wait_until)
    assert complaints(app) == []
    [event] = read_events(planted_root / "events")
    measured = event["payload"]["measured"]
    assert (event["kind"], event["payload"]["was"], event["payload"]["text"]) == ("edit", before["text"], text)
    assert measured["accepted"]
    assert measured["act"] > 1.05 * measured["act_threshold"]
    after = next(s for s in open_workspace(planted_root).samples().to_pylist() if s["feature_id"] == 12)
    assert (after["text"], after["review"], after["act"]) == (text, "edited", pytest.approx(measured["act"]))
    assert after["messages"][-1]["content"] == text
    assert after["written_text"] == before["text"]
    assert metrics_of(app)["Reviewed by people"] == "1"
    app.button(key="fv_sample_undo").click().run()
    after = next(s for s in open_workspace(planted_root).samples().to_pylist() if s["feature_id"] == 12)
    assert (after["text"], after["review"]) == (before["text"], "unreviewed")


def test_an_edit_that_does_not_verify_is_kept_in_the_log_and_changes_nothing(open_page, planted_root, wait_until):
    before = next(s for s in open_workspace(planted_root).samples().to_pylist() if s["feature_id"] == 12)
    app = open_page(candidate=before["candidate_id"])
    edit(app, "nothing of the kind stands here any more", wait_until)
    assert complaints(app) == []
    [event] = read_events(planted_root / "events")
    assert not event["payload"]["measured"]["accepted"]
    after = next(s for s in open_workspace(planted_root).samples().to_pylist() if s["feature_id"] == 12)
    assert (after["text"], after["review"]) == (before["text"], "unreviewed")
    assert any("did not verify" in c.value for c in app.caption)
    field = next(t for t in app.text_area if str(t.key).startswith("fv_sample_text_"))
    assert field.value == "nothing of the kind stands here any more"
    app.button(key="fv_sample_cancel").click().run()
    app.button(key="fv_sample_approve").click().run()
    assert complaints(app) == []
    assert metrics_of(app)["Reviewed by people"] == "1"


def test_missing_features_are_searched_narrowed_and_chosen_all_in_the_address(open_page):
    app = open_page(view="write", state="all")
    assert complaints(app) == []
    picks = [c for c in app.checkbox if str(c.key).startswith("fv_synthesis_pick_")]
    assert len(picks) == 8  # a page of the list
    picks[0].check().run()
    assert app.query_params["features"] == picks[0].key.rpartition("_")[2]
    app.button(key="fv_synthesis_choose_all").click().run()
    assert len(app.query_params["features"].split(",")) == 12
    app.text_input(key="fv_synthesis_find").input("14").run()
    assert app.query_params["find"] == "14"
    assert [c.key for c in app.checkbox if "pick" in c.key] == ["fv_synthesis_pick_14"]
    app.button(key="fv_synthesis_choose_none").click().run()
    assert complaints(app) == []
    assert app.button(key="fv_synthesis_start").disabled


def test_features_in_the_address_are_chosen_and_unknown_ones_passed_over(open_page):
    app = open_page(features="14,12,9999,x", state="all")
    assert complaints(app) == []
    assert app.segmented_control(key="fv_synthesis_view").value == "write"
    assert app.checkbox(key="fv_synthesis_pick_14").value
    assert not app.checkbox(key="fv_synthesis_pick_13").value
    assert any("At most 224 candidates for 2 features" in c.value for c in app.caption)


def test_the_plan_says_each_strategy_in_a_sentence_and_keeps_baselines_apart(open_page):
    app = open_page(features="12")
    for name in ("paper", "one-step", "steered", "paper+steered"):
        app.selectbox(key="fv_synthesis_strategy").set_value(name).run()
        assert complaints(app) == []
        assert any(literal(STRATEGIES[name].sentence) == c.value for c in app.caption), name
    app.toggle(key="fv_synthesis_baseline_False").set_value(True).run()
    assert complaints(app) == []
    assert app.query_params["strategy"] == "plain"
    assert any(literal(STRATEGIES["plain"].sentence) == c.value for c in app.caption)


def test_nothing_paid_starts_before_its_cost_is_shown(open_page, planted_root, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not-a-key")
    app = open_page(features="12")
    app.selectbox(key="fv_synthesis_provider").set_value("anthropic").run()
    assert complaints(app) == []
    assert not buttons_of(app, "start")
    app.button(key="fv_synthesis_dry_run").click().run()
    assert complaints(app) == []
    assert re.search(r"Cost, at most</span><span[^>]*>\$\d", html_of(app))
    assert buttons_of(app, "start")
    app.number_input(key="fv_synthesis_per_feature").set_value(2).run()
    assert not buttons_of(app, "start")  # something else is asked for now
    assert list_jobs(planted_root) == []


def test_steering_is_not_started_with_a_paid_writer(open_page, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not-a-key")
    app = open_page(features="12", strategy="steered")
    app.selectbox(key="fv_synthesis_provider").set_value("anthropic").run()
    assert any("Only the local model can write in this way" in c.value.replace("\\", "") for c in app.caption)
    assert app.button(key="fv_synthesis_start").disabled


def test_what_remains_says_why_and_what_to_try(open_page, planted_root):
    app = open_page(view="left")
    assert complaints(app) == []
    assert any("tried in vain" in c.value for c in app.caption)
    sample = open_workspace(planted_root).samples().to_pylist()[0]
    append_event(planted_root / "events", new_event("bea", candidate_of(sample["candidate_id"]), "reject"))
    app = open_page(view="left")
    assert complaints(app) == []
    assert any("A person turned down" in m.value for m in app.markdown)
    app.button(key=f"fv_synthesis_retry_{sample['feature_id']}").click().run()
    assert complaints(app) == []
    assert app.query_params["features"] == str(sample["feature_id"])
    assert app.segmented_control(key="fv_synthesis_view").value == "write"


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
    app = open_page(candidate="0" * 16)
    assert complaints(app) == []
    assert "<img" not in html_of(app)
    assert "&lt;img src=x onerror=alert(1)&gt; **bold**" in html_of(app)  # the explanation in one piece
    assert html_of(app).count("&lt;img") >= 2  # and the text word by word
    for view in ("write", "left"):
        app = open_page(view=view, find=nasty, theme=nasty, state=nasty, show=nasty, candidate=nasty, strategy=nasty)
        assert complaints(app) == []
        assert "<img" not in html_of(app)


def test_texts_are_blurred_for_a_reader_who_asked_for_it_wherever_they_stand(open_app, planted_root):
    sample = open_workspace(planted_root).samples().to_pylist()[0]
    append_event(planted_root / "events", new_event("bea", candidate_of(sample["candidate_id"]), "reject"))
    for query in ({"view": "read", "show": "rejected"}, {"view": "left"}):
        app = open_app(planted_root, "synthesis", **query)
        app.session_state["fv_blur"] = True
        app.run()
        app.button(key="fv_synthesis_bulk").click().run()
        assert complaints(app) == []
        holding = [e.value for e in app.get("html") if 'class="fv-span"' in e.value]
        assert holding
        assert all("fv-warn" in html for html in holding)
    previewed = open_workspace(planted_root).samples().to_pylist()[0]["text"]
    [dialog] = [e.value for e in app.get("html") if escape(previewed)[:40] in e.value]
    assert "fv-warn" in dialog


def test_a_saturated_measurement_is_refused_with_a_way_out(open_page, planted_root):
    workspace = open_workspace(planted_root)
    [run] = workspace.coverage().to_pylist()
    row = run | {"coverage_id": "f" * 12, "saturated": True, "n_missing": 3, "n_anchor": 4, "act_threshold": 4.0}
    scope = Scope("coverage", "f" * 12, "f" * 16)
    workspace.manifest.write_shard(scope, "coverage_run", "0", rows_to_arrow("coverage_run", [row]))
    workspace.manifest.mark_done(scope, {"coverage_id": "f" * 12})
    app = open_page(view="write")
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
    assert any("1 of 1 feature filled" in c.value for c in app.caption)
    app.button(key="fv_synthesis_read_new").click().run()
    assert complaints(app) == []
    assert app.segmented_control(key="fv_synthesis_view").value == "read"
    assert app.query_params["of"] == "12"


def test_asking_where_texts_fire_marks_the_token(open_page, planted_root, wait_until):
    [sample] = [s for s in open_workspace(planted_root).samples().to_pylist() if s["feature_id"] == 12]
    app = open_page(candidate=sample["candidate_id"])
    assert "fv-peak" not in html_of(app).replace(".fv-peak", "")
    app.toggle(key="fv_synthesis_heat").set_value(True).run()
    assert complaints(app) == []
    peak = r'class="fv-peak" style="[^"]*" title="(␣?)(mirror) · 2.00"'
    wait_until(lambda: re.search(peak, html_of(app.run())))  # texts are read one after another
    assert complaints(app) == []
    assert "mirror" in sample["text"]
    assert {token for _, token in re.findall(peak, html_of(app))} == {"mirror"}


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
