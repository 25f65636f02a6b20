"""Lists of features: made, named, noted, narrowed to, deleted, brought back, and there again after a rebuild."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from facviz.errors import InputError
from facviz.store.database import Database, rebuild_database
from facviz.store.events import list_of, listed_of
from facviz.store.feature_table import TableFilter, feature_page
from facviz.views.lists import add_to_list, deleted_lists, lists_of, read_listed, read_lists, rename_list
from facviz.views.scope import look

NOW = datetime.now(UTC)


@pytest.fixture
def sae_id(database):
    return database.rows("saes")[0]["sae_id"]


def names(database, sae_id=None):
    return [item.words for item in read_lists(database, sae_id)]


def test_a_name_that_no_list_has_makes_one_and_the_same_name_finds_it(database, sae_id):
    first = add_to_list(database, "ann", sae_id, 3, "Drums", "loud")
    assert add_to_list(database, "bob", sae_id, 4, " drums ", "") == first
    assert add_to_list(database, "bob", sae_id, 5, first, "by its id") == first
    add_to_list(database, "ann", sae_id, 3, "apples", "")
    assert names(database, sae_id) == ["apples · 1 feature", "Drums · 3 features"]
    assert names(database, "another") == ["apples · 0 features", "Drums · 0 features"]
    assert [(i.name, i.note, i.who) for i in lists_of(database, sae_id, 3, NOW)] == [
        ("apples", "", "ann"),
        ("Drums", "loud", "ann"),
    ]
    items = read_listed(database, first, sae_id, NOW)
    assert [(i.feature_id, i.note) for i in items] == [(3, "loud"), (4, ""), (5, "by its id")]
    assert items[0].explanation == 'fires on "drum"'


def test_the_table_shows_only_what_is_on_the_lists_asked_for(database, sae_id):
    scope = look(database, database.workspace.manifest).table
    one = add_to_list(database, "ann", sae_id, 3, "one", "")
    add_to_list(database, "ann", sae_id, 7, "one", "")
    two = add_to_list(database, "ann", sae_id, 5, "two", "")
    add_to_list(database, "ann", "another sae", 9, "two", "")

    def ids(*lists):
        rows = feature_page(database, scope, TableFilter(lists=lists)).rows
        return [row["feature_id"] for row in rows]

    assert (ids(one), ids(two), ids(one, two), ids("no list")) == ([3, 7], [5], [3, 5, 7], [])
    database.record("ann", listed_of(sae_id, 3, one), "remove")
    assert ids(one) == [7]
    database.record("ann", list_of(one), "delete")
    assert ids(one) == []
    assert len(ids()) == 25  # without the dead and without lists nothing is left out


def test_a_list_is_renamed_but_not_to_the_name_of_another(database, sae_id):
    one = add_to_list(database, "ann", sae_id, 3, "one", "")
    add_to_list(database, "ann", sae_id, 3, "two", "")
    rename_list(database, "bob", one, "zebra")
    assert names(database) == ["two · 1 feature", "zebra · 1 feature"]
    with pytest.raises(InputError, match="There is a list named two already"):
        rename_list(database, "bob", one, " TWO ")
    with pytest.raises(InputError, match="has no name yet"):
        rename_list(database, "bob", one, " ")
    rename_list(database, "bob", one, "Zebra")  # its own name, otherwise written


def test_a_deleted_list_comes_back_with_everything_on_it(database, sae_id):
    one = add_to_list(database, "ann", sae_id, 3, "one", "why")
    database.record("bob", list_of(one), "delete")
    assert (names(database), lists_of(database, sae_id, 3, NOW)) == ([], [])
    [gone] = deleted_lists(database)
    assert (gone.list_id, gone.name) == (one, "one")
    database.undo("ann", list_of(one))
    assert (names(database), deleted_lists(database)) == (["one · 1 feature"], [])
    assert [item.note for item in lists_of(database, sae_id, 3, NOW)] == ["why"]


def test_lists_survive_the_loss_of_the_database(database, sae_id):
    one = add_to_list(database, "ann", sae_id, 3, "one", "why")
    database.record("ann", listed_of(sae_id, 3, one), "note", {"text": "because"})
    workspace = database.workspace
    database.close()
    database.path.unlink()
    rebuild_database(workspace)
    with Database(workspace) as again, workspace.reader() as reader:
        again.sync()
        for queries in (again, reader):
            assert names(queries) == ["one · 1 feature"]
            assert [item.note for item in lists_of(queries, sae_id, 3, NOW)] == ["because"]


def test_nothing_is_listed_where_the_name_is_missing(database, sae_id):
    with pytest.raises(InputError, match="has no name yet"):
        add_to_list(database, "ann", sae_id, 3, "  ", "note")
    assert (names(database), lists_of(database, sae_id, 3, NOW)) == ([], [])


def test_changes_of_lists_are_no_decisions_of_a_review(database, sae_id):
    add_to_list(database, "ann", sae_id, 3, "one", "")
    assert database.rows("recent_decisions_by", actor="ann", n=10) == []
