"""The features page under AppTest: the address is the question, the table the answer, a click the way on."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from page_checks import complaints, shown

from facviz.errors import FacvizError
from facviz.store.database import Database
from facviz.store.events import explanation_of
from facviz.store.workspace import open_workspace
from facviz.ui import resources

HOSTILE = '<img src=x onerror=alert(1)> **bold** :red[x] "drum"'


def column(app, name):
    return [c for [c] in app.dataframe[0].value[name]] if name == "coverage" else list(app.dataframe[0].value[name])


def explain(root, feature_id, text):
    with Database(open_workspace(root)) as database:
        database.sync()
        [sae] = database.rows("saes")
        database.record("ann", explanation_of(sae["sae_id"], feature_id), "edit", {"text": text})


def test_the_table_shows_what_fires_most_frequent_first(open_app, planted_root):
    app = open_app(planted_root, "features")
    assert complaints(app) == []
    assert [m.value for m in app.metric][:2] == ["25", "100 %"]
    assert len(app.dataframe[0].value) == 25
    densities = [float(d.removesuffix(" %")) for d in column(app, "density")]
    assert densities == sorted(densities, reverse=True)


def test_the_address_is_the_whole_question(open_app, planted_root):
    address = {"relevance": "yes", "sort": "-feature", "search": "fires", "dataset": "anchor"}
    app = open_app(planted_root, "features", **address)
    assert column(app, "feature") == [str(i) for i in (24, *range(23, 11, -1), 3, 2, 1, 0)]
    assert app.text_input(key="fv_features_search").value == "fires"


def test_nonsense_in_the_address_is_as_if_it_were_absent(open_app, planted_root):
    address = {"sort": "'; DROP", "coverage": "x", "density": "a,b", "by": "z", "sae": "?", "task": "<b>"}
    app = open_app(planted_root, "features", **address)
    assert complaints(app) == []
    assert len(app.dataframe[0].value) == 25


def test_search_filters_and_order_are_written_to_the_address(open_app, planted_root):
    app = open_app(planted_root, "features")
    app.query_params["page"] = "3"
    app.text_input(key="fv_features_search").set_value("bread").run()
    assert app.query_params["search"] == "bread"
    assert "page" not in app.query_params
    assert column(app, "feature") == ["1"]
    app.segmented_control(key="fv_features_by").set_value("word").run()
    assert (app.query_params["by"], column(app, "match")) == ("word", ["6 spans"])
    app.text_input(key="fv_features_search").set_value("").run()
    app.button_group(key="fv_features_coverage").set_value(["covered"]).run()
    assert app.query_params["coverage"] == "covered"
    assert sorted(column(app, "feature"), key=int) == ["0", "1", "2", "3", "24"]
    app.button(key="fv_features_turn").click().run()
    assert app.query_params["sort"] == "density"
    app.selectbox(key="fv_features_sort").set_value("max").run()
    assert app.query_params["sort"] == "-max"
    assert column(app, "feature") == ["3", "2", "1", "0", "24"]
    app.select_slider[0].set_value((0.01, 0.1)).run()
    assert app.query_params["density"] == "0.01,0.1"
    assert column(app, "feature") == ["3", "2", "1", "0", "24"]
    app.button(key="fv_features_clear").click().run()
    assert len(app.dataframe[0].value) == 25
    assert complaints(app) == []


def test_dead_features_show_when_asked_for(open_app, planted_root):
    app = open_app(planted_root, "features", dead=1, sort="-feature")
    assert column(app, "feature")[0] == "25"
    assert app.dataframe[0].value["coverage"][0] == ["dead"]


def selected(**chosen):
    return {"selection": {"rows": [], "columns": [], "cells": []} | chosen}


def test_a_click_on_a_row_opens_the_feature(open_app, planted_root):
    app = open_app(planted_root, "features", sort="feature")
    app.session_state["fv_features_table_0"] = selected(cells=[(7, "explanation")])
    app.run()
    assert complaints(app) == []
    assert app.title[0].value == "What does this feature respond to?"
    assert app.query_params["feature"] == "7"
    assert app.query_params["dataset"] == "anchor"


def test_a_click_on_a_heading_sorts_by_it_and_a_second_turns_it_around(open_app, planted_root):
    app = open_app(planted_root, "features")
    app.session_state["fv_features_table_0"] = selected(columns=["max"])
    app.run()
    assert app.query_params["sort"] == "-max"
    app.session_state["fv_features_table_1"] = selected(columns=["max"])
    app.run()
    assert app.query_params["sort"] == "max"
    assert column(app, "feature")[0] == "24"
    assert complaints(app) == []


def test_hostile_words_are_cells_of_text(open_app, planted_root):
    explain(planted_root, 3, HOSTILE)
    app = open_app(planted_root, "features", search="onerror")
    assert column(app, "explanation") == [HOSTILE]
    assert "onerror" not in shown(app)


class Embedder:
    """Texts with the same first letter of their last word are alike; remembers what it embedded."""

    def __init__(self):
        self.texts = []
        self.may_answer = threading.Event()

    def embed(self, texts):
        assert self.may_answer.wait(30)
        self.texts += texts
        letters = [text.split()[-1].strip('"')[0] for text in texts]
        return np.eye(26, dtype=np.float32)[[ord(letter) - ord("a") for letter in letters]]


@pytest.fixture
def embedder(monkeypatch):
    fake = Embedder()
    monkeypatch.setattr(resources, "_load_embedder", lambda: fake)
    yield fake
    fake.may_answer.set()


def test_a_search_by_meaning_warms_up_without_waiting_and_then_ranks(open_app, planted_root, embedder, wait_until):
    app = open_app(planted_root, "features", by="meaning", search="a tiger")
    assert any("Warming up" in c.value for c in app.caption)
    assert len(app.dataframe) == 0
    embedder.may_answer.set()
    wait_until(lambda: len(app.run().dataframe) == 1)
    assert column(app, "feature")[0] == "19"
    assert column(app, "match")[:2] == ["1.00", "0"]
    assert complaints(app) == []


def test_after_an_edit_only_the_new_words_are_embedded(open_app, planted_root, embedder, wait_until):
    embedder.may_answer.set()
    app = open_app(planted_root, "features", by="meaning", search="a tiger")
    wait_until(lambda: len(app.run().dataframe) == 1)
    before = len(embedder.texts)
    database = resources.open_database(planted_root)
    [sae] = database.rows("saes")
    database.record("ann", explanation_of(sae["sae_id"], 5), "edit", {"text": "about toads"})
    wait_until(lambda: len(app.run().dataframe) == 1 and "5" in column(app, "feature")[:2])
    assert embedder.texts[before:] == ["about toads"]


def test_an_embedder_that_cannot_be_had_is_one_sentence(open_app, planted_root, monkeypatch, wait_until):
    def fail():
        raise FacvizError("The packaged embedding model is not installed; run `pip install it`.")

    monkeypatch.setattr(resources, "_load_embedder", fail)
    app = open_app(planted_root, "features", by="meaning", search="a tiger")
    wait_until(lambda: len(app.run().error) == 1)
    assert "is not installed" in app.error[0].value
    assert len(app.exception) == 0


def test_pages_of_a_long_table_follow_the_address(open_app, planted_root, monkeypatch):
    monkeypatch.setattr("facviz.views.features.PAGE_ROWS", 10)
    monkeypatch.setattr(
        "facviz.views.features.feature_page.__kwdefaults__",
        {"sort": "feature", "descending": False, "offset": 0, "limit": 10},
    )
    app = open_app(planted_root, "features", sort="feature")
    app.query_params["page"] = "2"
    app.run()
    assert column(app, "feature") == [str(i) for i in range(10, 20)]
    assert app.pagination[0].value == 2
    app.pagination[0].set_value(3).run()
    assert app.query_params["page"] == "3"
    assert column(app, "feature") == [str(i) for i in range(20, 25)]
    assert complaints(app) == []


class Codes:
    """What `encode_text` makes of a text, by hand: feature 1 on the first word, 2 and 1 on the second."""

    def __call__(self, encoder, text, role="user"):
        from facviz.views.text import EncodedText

        words = tuple(f" {word}" for word in text.split())
        offsets = [0, 1, 3] + [3] * (len(words) - 2)
        return EncodedText(words, np.array(offsets), np.array([1, 1, 2]), np.array([0.25, 0.5, 9.0], np.float32))


@pytest.fixture
def reads_texts(monkeypatch):
    monkeypatch.setattr(resources, "_load_encoder", lambda root, sae_id, opened: None)
    monkeypatch.setattr("facviz.views.text.encode_text", Codes())


def test_a_text_from_a_link_lists_what_fires_on_it_and_a_token_narrows_it(
    open_app, planted_root, reads_texts, wait_until
):
    app = open_app(planted_root, "features", view="text", text="bread tiger <b>")
    wait_until(lambda: len(app.run().dataframe) == 1)
    assert column(app, "feature") == ["2", "1"]
    assert column(app, "match")[0].endswith("on “tiger”")
    app.query_params["token"] = "0"
    app.run()
    assert column(app, "feature") == ["1"]
    assert any("1 feature on “bread”" in c.value for c in app.caption)
    app.button(key="fv_features_whole").click().run()
    assert "token" not in app.query_params
    assert len(app.dataframe[0].value) == 2
    app.text_area(key="fv_features_text").set_value("another text here").run()
    assert (app.query_params["text"], "token" in app.query_params) == ("another text here", False)
    assert complaints(app) == []


def test_a_feature_opened_from_a_text_takes_the_text_along(open_app, planted_root, reads_texts, wait_until):
    app = open_app(planted_root, "features", view="text", text="bread tiger")
    wait_until(lambda: len(app.run().dataframe) == 1)
    app.session_state["fv_features_table_0"] = selected(cells=[(0, "explanation")])
    app.run()
    assert (app.query_params["feature"], app.query_params["text"]) == ("2", "bread tiger")


def test_no_text_yet_and_one_that_cannot_be_read_are_one_sentence(open_app, planted_root, monkeypatch, wait_until):
    app = open_app(planted_root, "features", view="text")
    assert any("Nothing is tried yet" in c.value for c in app.caption)
    assert len(app.dataframe) == 0

    def fail(root, sae_id, opened):
        raise FacvizError("The backbone is not in the cache; run `facviz doctor`.")

    monkeypatch.setattr(resources, "_load_encoder", fail)
    app.text_area(key="fv_features_text").set_value("some words").run()
    wait_until(lambda: len(app.run().error) == 1)
    assert "not in the cache" in app.error[0].value
    assert len(app.exception) == 0


def place_on_map(root):
    from facviz.store.manifest import Scope
    from facviz.store.schema import rows_to_arrow

    workspace = open_workspace(root)
    with workspace.reader() as reader:
        [sae] = reader.rows("saes")
    for stage, table, rows in (
        ("map", "feature_map", [{"feature_id": i, "umap_x": i, "umap_y": 1.0, "cluster": i // 10} for i in range(26)]),
        ("map-names", "feature_cluster", [{"cluster": c, "name": HOSTILE, "n_features": 10} for c in range(3)]),
    ):
        scope = Scope(stage, sae["sae_id"], "a" * 16)
        whole = [row | {"sae_id": sae["sae_id"]} for row in rows]
        workspace.manifest.write_shard(scope, table, "0", rows_to_arrow(table, whole))
        workspace.manifest.mark_done(scope, {})


def test_before_there_is_a_map_the_page_says_what_it_costs_and_offers_to_make_it(open_app, planted_root, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "facviz.ui.components.feature_map.start", lambda root, *, title, page, arguments: asked.append(arguments)
    )
    app = open_app(planted_root, "features", view="map")
    assert any("one to two minutes for 65,536" in c.value for c in app.caption)
    app.button(key="fv_features_map_make").click().run()
    assert asked[0][:2] == ["map", "--sae"]
    assert complaints(app) == []


def test_an_area_of_the_map_is_the_table_and_can_be_cleared(open_app, planted_root):
    place_on_map(planted_root)
    app = open_app(planted_root, "features", view="map", sort="feature")
    assert len(app.dataframe[0].value) == 25
    app.query_params["area"] = "3.5,0;7.5,0;7.5,2;3.5,2"
    app.run()
    assert column(app, "feature") == ["4", "5", "6", "7"]
    assert "match" not in app.dataframe[0].value
    app.selectbox(key="fv_features_colour").set_value("density").run()
    assert app.query_params["colour"] == "density"
    app.button(key="fv_features_area_clear").click().run()
    assert "area" not in app.query_params
    app.multiselect(key="fv_features_cluster").set_value([1]).run()
    assert column(app, "feature") == [str(i) for i in range(10, 20)]
    assert complaints(app) == []
    assert "onerror" not in shown(app)


def test_what_was_drawn_goes_to_the_address_and_an_empty_event_changes_nothing(monkeypatch):
    from facviz.ui.components import feature_map

    written = {}
    monkeypatch.setattr(feature_map.state, "set_query", lambda **values: written.update(values))
    for event, area in (
        ({"lasso": [{"x": [1, 2, 2], "y": [1, 1, 2]}], "box": []}, "1.00,1.00;2.00,1.00;2.00,2.00"),
        ({"lasso": [], "box": [{"x": [0, 1], "y": [0, 1]}]}, "0.00,0.00;1.00,0.00;1.00,1.00;0.00,1.00"),
        ({"lasso": [], "box": [], "points": []}, None),
    ):
        written.clear()
        monkeypatch.setattr(feature_map.st, "session_state", {"fv_features_map": {"selection": event}})
        feature_map._select()
        assert written.get("area") == area
        assert (written == {}) is (area is None)


def test_two_data_sets_are_compared_in_the_background(open_app, planted_root, wait_until):
    app = open_app(planted_root, "features", view="compare")
    wait_until(lambda: len(app.run().dataframe) == 1)
    assert set(column(app, "feature")) >= {str(i) for i in range(12, 24)}
    assert {"match", "share_a", "share_b", "q"} <= set(app.dataframe[0].value)
    assert any("in both sets counted for seed only" in c.value for c in app.caption)
    app.selectbox(key="fv_features_sort").set_value("q").run()
    assert app.query_params["sort"] == "q"
    app.selectbox(key="fv_features_first").set_value("seed").run()
    wait_until(lambda: len(app.run().dataframe) == 1)
    assert app.selectbox(key="fv_features_second").value == "anchor"
    assert complaints(app) == []


def test_new_filters_follow_the_address(open_app, planted_root):
    app = open_app(planted_root, "features", sort="feature", only="dead")
    assert column(app, "feature") == ["25"]
    app.button(key="fv_features_clear").click().run()
    app.number_input(key="fv_features_max_least").set_value(1.5).run()
    assert app.query_params["max"] == "1.5,"
    n = len(app.dataframe[0].value)
    assert 0 < n < 25
    app.query_params["max"] = "2,1"
    app.run()
    assert len(app.dataframe[0].value) == 25
    app.query_params["score"] = "0.99,"
    app.run()
    assert len(app.dataframe[0].value) == 0
    assert complaints(app) == []


def test_a_view_is_saved_opened_and_removed(open_app, planted_root):
    app = open_app(planted_root, "features", coverage="filled,exhausted", sort="feature", search="fires")
    app.text_input(key="fv_features_view_name").set_value("<b>gap</b> *mine*").run()
    app.button(key="fv_features_view_save").click().run()
    assert complaints(app) == []
    for name in ("coverage", "sort", "search"):
        del app.query_params[name]
    app.query_params["dead"] = "1"
    app.run()
    assert len(app.dataframe[0].value) == 26
    [open_it] = [b for b in app.button if str(b.key).startswith("fv_features_view_open_")]
    open_it.click().run()
    assert (app.query_params["coverage"], app.query_params["sort"]) == ("filled,exhausted", "feature")
    assert "dead" not in app.query_params
    assert len(app.dataframe[0].value) == 12
    [remove] = [b for b in app.button if str(b.key).startswith("fv_features_view_remove_")]
    remove.click().run()
    assert not [b for b in app.button if str(b.key).startswith("fv_features_view_open_")]


def test_a_view_without_a_name_is_refused_in_a_sentence(open_app, planted_root):
    app = open_app(planted_root, "features")
    app.button(key="fv_features_view_save").click().run()
    assert [e.value for e in app.error] == ["The view has no name; write a few words that say what it shows."]


def test_all_that_the_table_shows_is_accepted_at_once_and_taken_back_at_once(open_app, planted_root):
    database = Database(open_workspace(planted_root))
    with database:
        database.sync()
        [sae] = database.rows("saes")
        database.record("bob", explanation_of(sae["sae_id"], 12), "reject", {"reason": "wrong"})
    app = open_app(planted_root, "features", coverage="filled,exhausted", sort="feature")
    app.button(key="fv_features_bulk").click().run()
    text = shown(app)
    assert "11 explanations will be accepted" in text.replace("\\", "")
    assert "1 feature that somebody decided on already" in text.replace("\\", "")
    app.button(key="fv_features_bulk_go").click().run()
    assert column(app, "status") == ["rejected", *["accepted"] * 11]
    assert "Accepted 11 explanations" in shown(app).replace("\\", "")
    app.button(key="fv_features_bulk_undo").click().run()
    assert column(app, "status") == ["rejected", *["not reviewed"] * 11]
    assert complaints(app) == []


def test_all_are_judged_for_the_task(open_app, planted_root):
    app = open_app(planted_root, "features", coverage="filled,exhausted", sort="feature")
    app.button(key="fv_features_bulk").click().run()
    app.button_group(key="fv_features_bulk_kind").set_value("verdict").run()
    assert app.button(key="fv_features_bulk_go").disabled
    app.button_group(key="fv_features_bulk_verdict").set_value("maybe").run()
    app.button(key="fv_features_bulk_go").click().run()
    assert column(app, "relevance") == ["maybe ✎"] * 12
    assert complaints(app) == []
