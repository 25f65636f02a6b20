"""The features page's view on the planted loop, whose every number is on paper."""

from __future__ import annotations

import csv
from io import StringIO

import numpy as np
import pytest

from facviz.store.database import Database
from facviz.store.events import explanation_of, relevance_of
from facviz.store.feature_table import TableFilter
from facviz.store.workspace import Workspace, open_workspace
from facviz.views.features import Lens, closest, read_features, read_totals, table_csv
from facviz.views.scope import look


@pytest.fixture
def planted(loop_copy):
    """Database of the planted loop, open."""
    with Database(open_workspace(loop_copy / "workspace")) as database:
        database.sync()
        yield database


def looked_at(database, **wishes):
    return look(database, database.workspace.manifest, **wishes)


def page_of(database, looked, chosen=None, *, sort="feature", descending=False, page=1):
    return read_features(database, looked, chosen or TableFilter(), sort=sort, descending=descending, page=page)


def test_nothing_to_look_at_before_an_sae_has_read_a_dataset(tmp_path):
    with Database(Workspace.create(tmp_path / "empty")) as database:
        database.sync()
        assert looked_at(database) is None


def test_the_newest_run_says_what_is_looked_at_and_wishes_that_do_not_exist_fall_back(planted):
    looked = looked_at(planted)
    assert (looked.dataset.name, looked.task, looked.source) == ("anchor", "toxicity", "label")
    assert looked.run["n_missing"] == 12
    assert [d.name for d in looked.datasets] == ["anchor", "seed"]
    assert looked_at(planted, dataset="seed").dataset.name == "seed"
    assert looked_at(planted, sae="x", dataset="<b>", task="nothing") == looked


def test_the_threshold_of_an_absolute_run_is_its_own_and_of_a_relative_one_a_share_of_p95(planted):
    looked = looked_at(planted)
    assert looked.act_threshold(3.0) == 0.5
    relative = looked_at(planted)
    relative.run["threshold_kind"] = "relative"
    assert relative.act_threshold(3.0) == 1.5
    assert relative.act_threshold(float("nan")) is None
    assert relative.act_threshold(None) is None


def test_totals_are_those_of_the_planted_table(planted):
    looked = looked_at(planted)
    totals = read_totals(planted, looked)
    assert (totals.live, totals.reviewed, totals.explained) == ("25", "0", "100 %")
    assert totals.live_note == "of 26; 1 dead, 0 always on"
    tried = [r["state"] for s in planted.rows("syntheses") for r in planted.rows("synthesis_features", **s)]
    n_left = 12 - tried.count("filled")
    assert totals.missing == str(n_left - tried.count("exhausted"))


def test_rows_say_in_words_what_the_numbers_are(planted):
    looked = looked_at(planted)
    lines = page_of(planted, looked).lines
    assert [line.feature_id for line in lines] == list(range(25))
    first, marked = lines[0].cells, lines[13].cells
    assert first["explanation"] == 'fires on "apple"'
    assert (first["coverage"], first["relevance"], first["status"]) == ("covered", "yes", "not reviewed")
    assert (first["density"], first["documents"], first["max"], first["score"]) == ("6.2 %", "48", "2.00", "–")
    assert (marked["coverage"] != "covered", marked["documents"], marked["max"]) == (True, "8", "3.00")
    assert lines[5].cells["coverage"] == "–"
    assert lines[5].cells["relevance"] == "no"


def test_a_persons_decisions_show_at_once(planted):
    looked = looked_at(planted)
    planted.record("ann", explanation_of(looked.sae_id, 4), "edit", {"text": "<script>mine\nown</script>"})
    planted.record("ann", relevance_of(looked.sae_id, 4, "toxicity"), "verdict", {"verdict": "maybe"})
    cells = page_of(planted, looked).lines[4].cells
    assert cells["explanation"] == "<script>mine↵own</script>"
    assert (cells["status"], cells["relevance"], cells["coverage"]) == ("edited", "maybe ✎", "covered")


def test_columns_fit_the_question(planted):
    looked = looked_at(planted)
    plain = page_of(planted, looked)
    assert "match" not in plain.columns
    assert "theme" not in plain.columns  # nothing has one here
    found = page_of(planted, looked, TableFilter(word="bread"), sort="match", descending=True)
    assert "match" in found.columns
    assert [(line.feature_id, line.cells["match"]) for line in found.lines] == [(1, "6 spans")]
    assert found.found == "1 feature"
    near = page_of(planted, looked, TableFilter(closeness={2: 0.25}), sort="match")
    assert near.lines[0].cells["match"] == "0.250"


def test_without_rows_there_is_one_empty_page(planted):
    view = page_of(planted, looked_at(planted), TableFilter(text="no such words"), page=7)
    assert (view.n_found, view.n_pages, view.first, view.found) == (0, 1, "", "0 features")


def test_closest_ranks_by_cosine():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    near = closest([10, 11, 12], vectors, np.array([[0, 1]], np.float32), n=2)
    assert list(near) == [11, 12]
    assert near[12] == pytest.approx(0.8)
    assert closest([], np.empty((0, 1), np.float32), np.ones((1, 2), np.float32)) == {}


def test_the_file_holds_every_page_in_the_tables_order_with_plain_numbers_and_no_formulas(planted):
    looked = looked_at(planted)
    planted.record("ann", explanation_of(looked.sae_id, 7), "edit", {"text": '=HYPERLINK("x"), "quoted"'})
    made = table_csv(planted, looked, TableFilter(with_dead=True), sort="feature", descending=True)
    rows = list(csv.DictReader(StringIO(made.decode())))
    assert [int(row["feature"]) for row in rows] == list(range(25, -1, -1))
    by_id = {int(row["feature"]): row for row in rows}
    assert by_id[7]["explanation"] == "'" + '=HYPERLINK("x"), "quoted"'
    assert (by_id[25]["dead"], by_id[7]["dead"]) == ("True", "False")
    assert float(by_id[7]["density"]) > 0
    assert by_id[12]["coverage"] == "filled"
    assert "match" not in rows[0]


def test_a_lens_says_what_it_found_in_the_file_too(planted):
    looked = looked_at(planted)
    lens = Lens({3: 0.25, 2: 0.5}, aside={"q": np.array([0.01, 0.02])})
    made = table_csv(planted, looked, TableFilter(), sort="match", descending=True, lens=lens)
    rows = list(csv.DictReader(StringIO(made.decode())))
    assert [(row["feature"], row["match"], row["q"]) for row in rows] == [("2", "0.5", "0.02"), ("3", "0.25", "0.01")]


def test_a_lens_that_only_chooses_takes_no_column(planted):
    looked = looked_at(planted)
    options = {"sort": "feature", "descending": False, "page": 1}
    chosen = read_features(planted, looked, TableFilter(), **options, lens=Lens({3: 0.0, 2: 0.0}, says=False))
    assert [line.feature_id for line in chosen.lines] == [2, 3]
    assert "match" not in chosen.columns
    said = read_features(planted, looked, TableFilter(), **options, lens=Lens({3: 0.5}, {3: "words"}))
    assert said.lines[0].cells["match"] == "words"
    assert "match" in said.columns
