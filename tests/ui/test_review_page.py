"""The review page under AppTest: decide, go on, take back, and see what others did in between."""

from __future__ import annotations

from page_checks import complaints, shown

from facviz.store.events import explanation_of
from facviz.store.workspace import Workspace
from facviz.ui import resources


def database_of(root):
    return resources.open_database(root)


def decided(root):
    rows = database_of(root).rows("decisions", kind="explanation", sae_id=None)
    return {row["feature_id"]: row["status"] for row in rows}


def click(app, key):
    app.button(key=key).click().run()
    assert len(app.exception) == 0
    return app


def feature(app):
    return int(app.query_params["feature"])


def test_the_first_item_is_a_missing_feature_with_its_evidence_beside_it(open_app, planted_root):
    app = open_app(planted_root, "review")
    assert complaints(app) == []
    assert 'class="fv-peak' in shown(app)
    assert [c.key for c in app.get("bidi_component")].count("fv_keys") == 1
    assert "To review 25" in app.segmented_control(key="fv_review_show").options


def test_every_decision_shows_the_next_item_at_once(open_app, planted_root):
    app = open_app(planted_root, "review", feature=12)
    click(app, "fv_decide_accept")
    second = feature(app)
    click(app, "fv_decide_skip")
    third = feature(app)
    click(app, "fv_decide_flag")
    assert len({12, second, third, feature(app)}) == 4
    assert decided(planted_root) == {12: "accepted", second: "skipped", third: "flagged"}
    assert complaints(app) == []


def test_an_edit_and_a_rejection_go_on_too(open_app, planted_root):
    app = open_app(planted_root, "review", feature=12)
    click(app, "fv_decide_edit")
    app.text_area[0].set_value("about mirrors")
    click(app, "fv_decide_save")
    second = feature(app)
    click(app, "fv_decide_reject")
    assert feature(app) == second
    click(app, "fv_decide_reason_6")
    assert decided(planted_root) == {12: "edited", second: "rejected"}


def test_undo_takes_back_my_last_decision_and_returns_to_it(open_app, planted_root):
    app = open_app(planted_root, "review", feature=12)
    click(app, "fv_decide_accept")
    click(app, "fv_decide_accept")
    click(app, "fv_review_undo")
    click(app, "fv_review_undo")
    assert feature(app) == 12
    assert decided(planted_root) == {}
    click(app, "fv_review_undo")
    assert [e.value for e in app.error] == ["There is nothing of yours left to undo."]


def test_a_verdict_stays_on_the_item_and_is_taken_back_by_the_same_key(open_app, planted_root):
    app = open_app(planted_root, "review", feature=12)
    click(app, "fv_review_verdict_maybe")
    [row] = database_of(planted_root).rows("decisions", kind="relevance", sae_id=None)
    assert (row["feature_id"], row["verdict"], feature(app)) == (12, "maybe", 12)
    click(app, "fv_review_verdict_maybe")
    assert database_of(planted_root).rows("decisions", kind="relevance", sae_id=None) == []
    assert complaints(app) == []


def test_somebody_elses_decision_in_between_is_said_and_what_was_typed_stays(open_app, planted_root):
    app = open_app(planted_root, "review", feature=12)
    click(app, "fv_decide_edit")
    database = database_of(planted_root)
    sae_id = database.rows("saes")[0]["sae_id"]
    database.record("bob", explanation_of(sae_id, 12), "reject", {"reason": "wrong"})
    app.text_area[0].set_value("my words")
    click(app, "fv_decide_save")
    assert ["bob changed this" in e.value for e in app.error] == [True]
    assert (feature(app), app.text_area[0].value) == (12, "my words")
    click(app, "fv_decide_save")
    assert decided(planted_root)[12] == "edited"


def test_arrows_move_without_deciding(open_app, planted_root):
    app = open_app(planted_root, "review", feature=12)
    click(app, "fv_review_right")
    moved = feature(app)
    click(app, "fv_review_left")
    assert (moved != 12, feature(app), decided(planted_root)) == (True, 12, {})


def test_lists_and_orders_are_in_the_address(open_app, planted_root):
    app = open_app(planted_root, "review", feature=12)
    click(app, "fv_decide_accept")
    app.segmented_control(key="fv_review_show").set_value("accepted").run()
    assert app.query_params["show"] == "accepted"
    assert "fires on &quot;mirror&quot;" in shown(app)
    app.selectbox(key="fv_review_order").set_value("density").run()
    assert app.query_params["order"] == "density"
    click(app, "fv_review_undo")
    app.segmented_control(key="fv_review_show").set_value("accepted").run()
    assert complaints(app) == []


def test_my_decisions_can_be_undone_one_by_one(open_app, planted_root):
    app = open_app(planted_root, "review", feature=12)
    click(app, "fv_decide_accept")
    second = feature(app)
    click(app, "fv_decide_accept")
    undos = [b.key for b in app.button if str(b.key).startswith("fv_review_undo_")]
    assert len(undos) == 2
    click(app, undos[1])
    assert decided(planted_root) == {second: "accepted"}
    assert "taken back" in shown(app)


def test_keys_decide(open_app, planted_root):
    app = open_app(planted_root, "review")
    keys = {b.key: b.proto.shortcut for b in app.button if b.proto.shortcut}
    names = ("accept", "edit", "reject", "unsure", "skip", "flag")
    assert [keys[f"fv_decide_{n}"] for n in names] == ["a", "e", "x", "t", "s", "f"]
    assert [keys[f"fv_review_verdict_{v}"] for v in ("yes", "probably", "maybe", "no")] == ["1", "2", "3", "4"]
    assert [keys[f"fv_review_{n}"] for n in ("undo", "redo", "left", "right", "help")] == [
        "u",
        "y",
        "left",
        "right",
        "h",
    ]
    assert "backspace" not in keys.values()


def test_nothing_to_review_says_what_to_do(open_app, tmp_path):
    app = open_app(Workspace.create(tmp_path / "empty").root, "review")
    assert complaints(app) == []
    assert "There are no explanations yet" in shown(app)
