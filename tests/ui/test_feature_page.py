"""The feature page under AppTest: evidence, decisions that can be taken back, a text of one's own."""

from __future__ import annotations

import pytest
from page_checks import complaints, shown

from facviz.store.events import candidate_of, explanation_of
from facviz.ui import resources
from facviz.views.lists import add_to_list

HOSTILE = "<script>alert(1)</script> **bold** $x$ :material/bug:"


def explanation(app):
    return next(e.value for e in app.get("html") if "fv-explanation" in e.value)


def database_of(root):
    return resources.open_database(root)


def sae_of(database):
    return database.rows("saes")[0]["sae_id"]


def click(app, name):
    app.button(key=f"fv_decide_{name}").click().run()
    assert len(app.exception) == 0
    return app


def save(app, root, feature_id, text):
    key = f"fv_explanation_{sae_of(database_of(root))}_{feature_id}"
    app.text_area(key=key).set_value(text)
    return click(app, "save")


def test_a_feature_shows_its_words_spans_numbers_and_histogram(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=3)
    assert complaints(app) == []
    assert "fires on &quot;drum&quot;" in explanation(app)
    spans = "".join(e.value for e in app.get("html"))
    assert spans.count('class="fv-row') >= 5
    assert 'title="␣drum · 5.00"' in spans or 'title="drum · 5.00"' in spans
    assert "3.75 to 5.00 · strongest" in spans
    assert "100 % of the texts it fires on · 48 texts" in spans
    assert "held out" in spans
    assert [m.value for m in app.metric] == ["6.2 %", "48", "5.00", "–"]
    assert len(app.get("bidi_component")) == 1


def test_without_a_number_the_first_feature_shows(open_app, planted_root):
    app = open_app(planted_root, "feature")
    assert "fires on &quot;apple&quot;" in explanation(app)


def test_a_feature_that_does_not_exist_is_one_sentence(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=99)
    assert complaints(app) == []
    assert any("has no feature 99" in t.value for t in app.text)


def test_an_edit_is_kept_shown_escaped_and_undone_to_any_depth(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=3)
    save(click(app, "edit"), planted_root, 3, "about drums")
    assert "about drums" in explanation(app)
    save(click(app, "edit"), planted_root, 3, HOSTILE)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in explanation(app)
    assert "<script>" not in shown(app)
    again = open_app(planted_root, "feature", feature=3)
    assert "&lt;script&gt;" in explanation(again)
    click(again, "undo")
    assert "about drums" in explanation(again)
    click(again, "undo")
    assert "fires on &quot;drum&quot;" in explanation(again)
    assert again.button(key="fv_decide_undo").disabled
    click(again, "redo")
    click(again, "redo")
    assert "&lt;script&gt;" in explanation(again)
    assert again.button(key="fv_decide_redo").disabled
    assert complaints(again) == []
    events = database_of(planted_root).rows(
        "events_of", target=explanation_of(sae_of(database_of(planted_root)), 3).key
    )
    assert [e["kind"] for e in events] == ["edit", "edit", "undo", "undo", "undo", "undo"]


def test_an_empty_edit_is_refused_beside_the_field_and_the_field_stays(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=3)
    save(click(app, "edit"), planted_root, 3, "   ")
    assert ["The explanation is empty" in e.value for e in app.error] == [True]
    assert len(app.text_area) == 2
    click(app, "cancel")
    assert len(app.text_area) == 1


def test_somebody_elses_decision_in_between_is_said_and_the_typed_text_stays(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=3)
    click(app, "edit")
    database = database_of(planted_root)
    database.record("bob", explanation_of(sae_of(database), 3), "edit", {"text": "bob was here"})
    save(app, planted_root, 3, "my words")
    assert ["bob changed this" in e.value for e in app.error] == [True]
    assert "bob was here" in explanation(app)
    assert "my words" in [t.value for t in app.text_area]
    click(app, "save")  # having seen it
    assert "my words" in explanation(app)
    assert complaints(app) == []


def test_a_rejection_carries_its_reason(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=3)
    click(app, "reject")
    click(app, "reason_2")
    assert "reason: too narrow" in explanation(app) + shown(app)
    [decision] = database_of(planted_root).rows("decisions", kind="explanation", sae_id=None)
    assert (decision["status"], decision["reason"]) == ("rejected", "too narrow")


def test_a_verdict_is_recorded_and_choosing_it_again_takes_it_back(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=3)
    app.segmented_control(key="fv_verdict_toxicity").set_value("no").run()
    [decision] = database_of(planted_root).rows("decisions", kind="relevance", sae_id=None)
    assert (decision["verdict"], decision["task"], decision["feature_id"]) == ("no", "toxicity", 3)
    app.segmented_control(key="fv_verdict_toxicity").set_value(None).run()
    assert database_of(planted_root).rows("decisions", kind="relevance", sae_id=None) == []
    assert complaints(app) == []


def test_moving_on_changes_the_address(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=3)
    app.button(key="fv_feature_next").click().run()
    assert app.query_params["feature"] == "4"
    app.button(key="fv_feature_previous").click().run()
    assert "fires on &quot;drum&quot;" in explanation(app)
    app.button(key="fv_feature_random").click().run()
    assert 0 <= int(app.query_params["feature"]) < 25
    assert complaints(app) == []


def test_texts_written_for_a_feature_are_shown_escaped(open_app, planted_root):
    accepted = database_of(planted_root).rows("samples")[0]
    app = open_app(planted_root, "feature", feature=accepted["feature_id"], dataset="~generated")
    assert accepted["text"] in shown(app)
    assert complaints(app) == []
    database_of(planted_root).record("ann", candidate_of(accepted["candidate_id"]), "approve")
    assert "approved by ann" in shown(app.run())


@pytest.mark.parametrize("context", ["near", "window", "full", "nonsense"])
def test_every_amount_of_text_shows(open_app, planted_root, context):
    app = open_app(planted_root, "feature", feature=3, context=context, spans=10, dataset="seed")
    assert complaints(app) == []
    assert 'class="fv-peak' in shown(app)


def test_own_text_is_measured_in_the_background_and_stands_in_the_address(
    open_app, planted_root, planted_encoder, monkeypatch, wait_until
):
    monkeypatch.setattr(resources, "_load_encoder", lambda root, sae_id, opened: planted_encoder)
    app = open_app(planted_root, "feature", feature=3)
    app.text_area(key="fv_feature_text").set_value("apple drum <b> tiger").run()
    assert app.query_params["text"] == "apple drum <b> tiger"
    wait_until(lambda: "Its maximum is" in shown(app.run()))
    assert "Its maximum is 5\\.00, above δ 0\\.500\\." in shown(app)
    assert "<b> tiger" not in shown(app)
    links = [link.label for link in app.get("page_link")]
    assert any("tiger" in label for label in links)
    assert complaints(app) == []


@pytest.mark.parametrize("evidence", ["near", "silent", "nonsense"])
def test_every_kind_of_evidence_shows(open_app, planted_root, evidence):
    app = open_app(planted_root, "feature", feature=14, evidence=evidence)
    assert complaints(app) == []
    expected = {
        "near": "No feature with a similar direction is known",  # the planted directions are at right angles
        "silent": "it fires nowhere in 88 of 96 (92 %)",
        "nonsense": "strongest",
    }
    assert expected[evidence] in shown(app).replace("\\", "")


def test_features_on_the_same_texts_are_counted_when_asked_for(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=0, near="texts")
    assert complaints(app) == []
    first = next(link for link in app.get("page_link") if "24" in link.label)
    assert "Jaccard 1" in first.help.replace("\\", "")  # the twin fires wherever feature 0 does


def test_a_feature_is_put_on_a_list_noted_taken_off_and_put_back(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=3)
    database, sae_id = database_of(planted_root), sae_of(database_of(planted_root))
    list_id = add_to_list(database, "ann", sae_id, 3, HOSTILE[:60], "why <b>")
    app.session_state["fv_lists"] = True
    app.run()
    note = app.text_input(key=f"fv_lists_note_{sae_id}_3_{list_id}")
    assert note.value == "why <b>"
    note.set_value("drums of all kinds").run()
    [listed] = database.rows("lists_of_feature", sae_id=sae_id, feature_id=3)
    assert listed["note"] == "drums of all kinds"
    app.button(key=f"fv_lists_remove_{list_id}").click().run()
    assert database.rows("lists_of_feature", sae_id=sae_id, feature_id=3) == []
    app.button(key="fv_lists_back").click().run()
    [listed] = database.rows("lists_of_feature", sae_id=sae_id, feature_id=3)
    assert (listed["note"], listed["name"]) == ("drums of all kinds", HOSTILE[:60])
    assert complaints(app) == []
    assert "<script>" not in shown(app)


def test_the_table_of_features_is_narrowed_to_a_list(open_app, planted_root):
    database, sae_id = database_of(planted_root), sae_of(database_of(planted_root))
    list_id = add_to_list(database, "ann", sae_id, 3, "drums", "")
    app = open_app(planted_root, "features", list=list_id)
    assert complaints(app) == []
    assert "**1 feature**" in shown(app)


def test_what_machines_wrote_is_listed_with_its_author(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=3)
    assert "facviz lexical v1 · by counting words" in shown(app)
    assert "<b>shown above</b>" in shown(app)


def test_the_share_link_holds_feature_and_text(open_app, planted_root, planted_encoder, monkeypatch):
    monkeypatch.setattr(resources, "_load_encoder", lambda root, sae_id, opened: planted_encoder)
    app = open_app(planted_root, "feature", feature=3, text="apple & <b> drum")
    [link] = [c.value for c in app.code]
    assert "feature=3" in link
    assert "text=apple+%26+%3Cb%3E+drum" in link


def test_a_blurred_reader_sees_blurred_spans(open_app, planted_root):
    app = open_app(planted_root, "feature", feature=3)
    assert 'class="fv-spans fv-warn"' not in shown(app)
    app.session_state["fv_blur"] = True
    app.run()
    assert 'class="fv-spans fv-warn"' in shown(app)
