"""The review page under AppTest: blind, second looks, hidden repeats, many at once, saved queues, whose name counts."""

from __future__ import annotations

import json

import pytest
from page_checks import complaints, shown

from facviz.store.events import explanation_of, read_events
from facviz.ui import resources, state
from facviz.views import review

MACHINE = "fires on &quot;mirror&quot;"  # what the machine wrote of feature 12


def database_of(root):
    return resources.open_database(root)


def sae_of(root):
    return database_of(root).rows("saes")[0]["sae_id"]


def click(app, key):
    app.button(key=key).click().run()
    assert len(app.exception) == 0
    return app


def feature(app):
    value = app.query_params["feature"]  # a list where the page wrote it
    return int(value[0] if isinstance(value, list) else value)


def log(root):
    return [(e["kind"], e["payload"]) for e in read_events(root / "events")]


def decided(root):
    rows = database_of(root).rows("decisions", kind="explanation", sae_id=None)
    return {row["feature_id"]: (row["author"], row["status"], row["text"]) for row in rows}


@pytest.fixture
def as_ann(monkeypatch):
    monkeypatch.setattr(state, "login_name", lambda: "ann")


def test_blind_the_machine_s_words_and_verdict_are_nowhere_until_one_wrote_one_s_own(open_app, planted_root, as_ann):
    app = open_app(planted_root, "review", feature=12, blind=1)
    assert MACHINE not in shown(app)
    assert "by label" not in shown(app)
    assert app.button(key="fv_decide_accept").disabled
    assert app.button(key="fv_decide_reject").disabled
    click(app, "fv_review_verdict_maybe")
    assert "by label" in shown(app)
    assert MACHINE not in shown(app)
    click(app, "fv_decide_edit")
    assert app.text_area[0].value == ""
    app.text_area[0].set_value("shiny things")
    click(app, "fv_decide_save")
    assert feature(app) == 12
    assert MACHINE in shown(app)
    (_, verdict), (_, edit) = log(planted_root)
    assert (verdict["verdict"], verdict["blind"], verdict["saw"]) == ("maybe", True, False)
    assert (edit["text"], edit["blind"], edit["saw"]) == ("shiny things", True, False)
    click(app, "fv_review_take_written")
    assert decided(planted_root)[12] == ("ann", "accepted", None)
    assert log(planted_root)[-1][1]["saw"] is True
    assert complaints(app) == []


def test_blind_the_words_can_be_asked_for_which_is_recorded(open_app, planted_root, as_ann):
    app = open_app(planted_root, "review", feature=12, blind=1)
    click(app, "fv_review_reveal")
    assert MACHINE in shown(app)
    click(app, "fv_decide_accept")
    [(_, payload)] = log(planted_root)
    assert (payload["blind"], payload["saw"]) == (True, True)


def test_a_decision_carries_time_note_and_what_it_replaced(open_app, planted_root, as_ann):
    app = open_app(planted_root, "review", feature=12)
    app.text_input(key="fv_review_note_12").set_value("seen before")
    click(app, "fv_decide_unsure")
    app.query_params["feature"] = "12"
    app.run()
    assert "note: seen before" in shown(app)
    click(app, "fv_decide_edit")
    app.text_area[0].set_value("fires on mirrors")
    click(app, "fv_decide_save")
    (_, first), (_, second) = log(planted_root)
    assert first["note"] == "seen before"
    assert 0 <= first["seconds"] < 60
    assert second["previous"] == {"status": "unsure", "actor": "ann"}
    assert ["-", '"mirror"'] in second["diff"]
    assert "note" not in second


def test_a_finished_item_is_reopened(open_app, planted_root, as_ann):
    app = open_app(planted_root, "review", feature=12)
    assert "fv_decide_reopen" not in {b.key for b in app.button}
    click(app, "fv_decide_accept")
    app.query_params["show"], app.query_params["feature"] = "accepted", "12"
    app.run()
    click(app, "fv_decide_reopen")
    assert decided(planted_root)[12][1] == "unreviewed"
    app.query_params["show"] = "waiting"
    app.run()
    assert "To review 25" in app.segmented_control(key="fv_review_show").options


def test_redo_brings_back_what_undo_took_to_any_depth(open_app, planted_root, as_ann):
    app = open_app(planted_root, "review", feature=12)
    for key in ("accept", "flag", "skip"):
        click(app, f"fv_decide_{key}")
    before = decided(planted_root)
    for _ in range(3):
        click(app, "fv_review_undo")
    assert decided(planted_root) == {}
    for _ in range(3):
        click(app, "fv_review_redo")
    assert decided(planted_root) == before
    assert complaints(app) == []


def test_a_second_reviewer_sees_nothing_of_the_first_and_a_difference_is_settled(open_app, planted_root, as_ann):
    sae_id = sae_of(planted_root)
    database_of(planted_root).record("bob", explanation_of(sae_id, 12), "edit", {"text": "bob's hushed words"})
    app = open_app(planted_root, "review")
    assert "Second look 1" in app.segmented_control(key="fv_review_show").options
    app.segmented_control(key="fv_review_show").set_value("second").run()
    assert "hushed" not in shown(app)
    assert MACHINE in shown(app)
    click(app, "fv_review_verdict_no")
    assert "no by ann" in shown(app)
    click(app, "fv_review_verdict_no")
    assert "no by ann" not in shown(app)
    click(app, "fv_decide_reject")
    click(app, "fv_decide_reason_3")
    assert decided(planted_root)[12] == ("bob", "edited", "bob's hushed words")
    assert log(planted_root)[-1][1]["look"] == "second"
    app.segmented_control(key="fv_review_show").set_value("mixed").run()
    assert "bob" in shown(app)
    assert "your decision settles it" in shown(app)
    click(app, "fv_decide_accept")
    assert decided(planted_root)[12] == ("ann", "accepted", "bob's hushed words")
    assert "To settle 1" not in app.segmented_control(key="fv_review_show").options


def test_what_was_decided_comes_again_unmarked_and_changes_nothing(open_app, planted_root, as_ann, monkeypatch):
    monkeypatch.setattr(review, "REPEAT_EVERY", 1)
    monkeypatch.setattr(review, "REPEAT_FROM", 2)
    monkeypatch.setattr(review, "REPEAT_NOT_LAST", 1)
    app = open_app(planted_root, "review", feature=12)
    click(app, "fv_decide_accept")
    click(app, "fv_decide_accept")
    assert "**Feature 12**" in app.get("page_link")[0].proto.label
    click(app, "fv_decide_unsure")
    assert log(planted_root)[-1][1]["look"] == "repeat"
    assert log(planted_root)[-1][1]["of"] == read_events(planted_root / "events")[0]["event_id"]
    assert {status for _, status, _ in decided(planted_root).values()} == {"accepted"}
    assert "**Feature 12**" not in app.get("page_link")[0].proto.label
    app.run()
    assert "Agreement" in [e.label for e in app.expander]


def test_many_are_accepted_after_a_preview_and_one_undo_takes_all_back(open_app, planted_root, as_ann):
    app = open_app(planted_root, "review", words="fires on")
    app.session_state["fv_review_bulk_score"] = 0.0  # the planted explanations have no score
    click(app, "fv_review_bulk")
    assert "explanation has “fires on”" in shown(app).replace("\\", "")
    n = int(next(b.label for b in app.button if b.key == "fv_review_bulk_go").split()[-1])
    click(app, "fv_review_bulk_go")
    assert len(decided(planted_root)) == n > 20
    [kinds] = {json.dumps(payload["bulk"]["filter"]) for _, payload in log(planted_root)}
    assert "fires on" in kinds
    click(app, "fv_review_undo")
    assert decided(planted_root) == {}


def test_a_queue_is_saved_by_name_found_again_and_removed(open_app, planted_root, as_ann):
    app = open_app(planted_root, "review", state="missing", order="density")
    app.text_input(key="fv_review_queue_name").set_value("gap <b>first</b>")
    click(app, "fv_review_queue_save")
    again = open_app(planted_root, "review")
    key = f"fv_review_queue_{state.key_of('gap <b>first</b>')}"
    click(again, key)
    assert again.selectbox(key="fv_review_state").value == "missing"
    assert again.selectbox(key="fv_review_order").value == "density"
    click(again, f"fv_review_forget_{state.key_of('gap <b>first</b>')}")
    assert key not in {b.key for b in again.button}
    assert complaints(again) == []


def test_the_name_is_asked_once_and_stands_beside_what_follows(open_app, planted_root):
    app = open_app(planted_root, "review", feature=12)
    app.text_input(key="fv_review_name_text").set_value("Zoë")
    click(app, "fv_review_name_save")
    assert "fv_review_name_text" not in {t.key for t in app.text_input}
    assert app.session_state["fv_reviewer"] == "Zoë"
    click(app, "fv_decide_accept")
    assert decided(planted_root)[12][0] == "Zoë"


@pytest.mark.parametrize(
    ("user", "name"), [({"is_logged_in": True, "email": "eve@x.org"}, "eve@x.org"), ({"is_logged_in": False}, "")]
)
def test_a_configured_log_in_gives_the_name(open_app, planted_root, monkeypatch, user, name):
    monkeypatch.setattr("streamlit.user", user)
    app = open_app(planted_root, "review", feature=12)
    assert "fv_review_name_text" not in {t.key for t in app.text_input}
    click(app, "fv_decide_accept")
    if name:
        assert decided(planted_root)[12][0] == name
    else:
        assert decided(planted_root) == {}
        assert "log in" in app.error[0].value


def test_the_first_item_stays_with_what_was_typed_when_somebody_else_is_faster(open_app, planted_root, as_ann):
    app = open_app(planted_root, "review")
    first = feature(app)
    click(app, "fv_decide_edit")
    database_of(planted_root).record("bob", explanation_of(sae_of(planted_root), first), "accept")
    app.text_area[0].set_value("what ann typed")
    click(app, "fv_decide_save")
    assert "bob changed this" in app.error[0].value
    assert app.text_area[0].value == "what ann typed"
    click(app, "fv_decide_save")
    assert decided(planted_root)[first] == ("ann", "edited", "what ann typed")
