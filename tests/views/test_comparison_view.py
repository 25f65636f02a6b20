"""Two data sets of the planted loop compared: the marked words, and nothing else, tell them apart."""

from __future__ import annotations

import pytest

from facviz.errors import InputError
from facviz.store.database import Database
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.workspace import open_workspace
from facviz.views.comparison import choices_of, compare_datasets
from facviz.views.scope import look

MARKED = set(range(12, 24))


@pytest.fixture
def planted(loop_copy):
    with Database(open_workspace(loop_copy / "workspace")) as database:
        database.sync()
        yield database


def choices(database):
    looked = look(database, database.workspace.manifest)
    return looked.sae_id, {d.name: d for d in looked.datasets}


def test_features_of_the_marked_words_fire_more_in_the_anchor_set_whichever_comes_first(planted):
    sae_id, of = choices(planted)
    forth = compare_datasets(planted, sae_id, of["anchor"], of["seed"])
    more = {f for f, auroc in forth.found.items() if auroc > 0.5}
    assert more >= MARKED
    back = compare_datasets(planted, sae_id, of["seed"], of["anchor"])
    assert set(back.found) == set(forth.found)
    assert all(abs(back.found[f] - (1 - auroc)) < 1e-6 for f, auroc in forth.found.items())
    place = list(forth.found).index(12)
    assert forth.aside["share_b"][place] == 0 < forth.aside["share_a"][place]
    assert max(forth.aside["q"]) <= 0.05
    assert forth.words[12].endswith(" first")
    assert back.words[12].endswith(" second")


def test_texts_in_both_sets_are_counted_once_and_that_is_said(planted):
    sae_id, of = choices(planted)
    found = compare_datasets(planted, sae_id, of["anchor"], of["seed"])
    assert found.basis.startswith("56 texts of anchor against 40 texts of seed, 10,000 permutations")
    assert found.basis.endswith("40 texts in both sets counted for seed only.")


def test_of_a_large_set_texts_are_drawn_and_that_is_said(planted):
    sae_id, of = choices(planted)
    found = compare_datasets(planted, sae_id, of["anchor"], of["seed"], max_docs=30)
    assert found.basis.startswith("30 texts drawn of 56 of anchor against 30 texts drawn of 40 of seed")
    again = compare_datasets(planted, sae_id, of["anchor"], of["seed"], max_docs=30)
    assert again.found == found.found


def test_one_data_set_twice_is_one_sentence(planted):
    sae_id, of = choices(planted)
    with pytest.raises(InputError, match="same data set"):
        compare_datasets(planted, sae_id, of["seed"], of["seed"])


def test_a_set_whose_every_text_is_in_the_other_of_equal_size_cannot_be_compared(planted):
    sae_id, of = choices(planted)
    rows = planted.rows("documents", dataset_id=of["anchor"].dataset_id)
    copied = [row | {"dataset_id": of["seed"].dataset_id} for row in rows]
    scope = Scope("data", "seed", "e" * 16)
    planted.workspace.manifest.write_shard(scope, "document", "0", rows_to_arrow("document", copied))
    planted.workspace.manifest.mark_done(scope, {})
    planted.sync()
    with pytest.raises(InputError, match="Every text of anchor stands in the other set"):
        compare_datasets(planted, sae_id, of["anchor"], of["seed"])


def test_names_choose_the_pair_and_one_data_set_is_no_pair(planted):
    _, of = choices(planted)
    both = list(of.values())
    assert choices_of(both, "seed", "anchor") == (of["seed"], of["anchor"])
    assert choices_of(both, "seed", "seed") == (of["seed"], of["anchor"])
    assert choices_of(both, "<b>", "") == tuple(both)
    with pytest.raises(InputError, match="one data set only"):
        choices_of(both[:1], "", "")
