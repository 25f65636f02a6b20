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
