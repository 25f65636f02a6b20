"""A reader's own text: the numbers of a hand-made encoding on the planted loop, token by token."""

from __future__ import annotations

import numpy as np
import pytest

from facviz.store.database import Database
from facviz.store.events import explanation_of
from facviz.store.schema import MODE
from facviz.store.workspace import open_workspace
from facviz.views.scope import look
from facviz.views.text import EncodedText
from facviz.views.tried import read_tried

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def planted(loop_copy):
    with Database(open_workspace(loop_copy / "workspace")) as database:
        database.sync()
        yield database


def looked_at(database):
    return look(database, database.workspace.manifest)


def own_maximum(database, looked, feature_id):
    rows = database.rows("feature_stats_of", sae_id=looked.sae_id, mode=MODE, feature_id=feature_id)
    return max(row["max_act"] for row in rows)


def encoded(tokens, *fires):
    """Tokens, and (token, feature, activation) of each thing that fires."""
    offsets = [0]
    ordered = sorted(fires)
    for place in range(len(tokens)):
        offsets.append(offsets[-1] + sum(at == place for at, _, _ in ordered))
    ids = np.array([f for _, f, _ in ordered], np.int64)
    acts = np.array([a for _, _, a in ordered], np.float32)
    return EncodedText(tuple(tokens), np.array(offsets, np.int64), ids, acts)


def test_each_feature_stands_in_proportion_to_its_own_maximum(planted):
    looked = looked_at(planted)
    highest = {f: own_maximum(planted, looked, f) for f in (1, 2)}
    text = encoded([" one", " two"], (0, 1, highest[1] / 4), (1, 1, highest[1] / 2), (1, 2, highest[2]))
    tried = read_tried(planted, looked, text)
    assert {f: round(share, 4) for f, share in tried.found.items()} == {2: 1.0, 1: 0.5}
    assert list(tried.found) == [2, 1]
    assert tried.words[1] == "50 % on “two”"
    assert [token.heat for token in tried.tokens] == [0.0, 1.0]
    assert tried.summary == "2 features on 2 tokens"


def test_a_chosen_token_leaves_what_fires_there_and_one_that_does_not_exist_is_as_if_none_were(planted):
    looked = looked_at(planted)
    top = own_maximum(planted, looked, 1)
    text = encoded([" one", " two"], (0, 1, top / 4), (1, 2, 0.5))
    first = read_tried(planted, looked, text, token=0)
    assert (list(first.found), first.words[1], first.summary) == ([1], "25 %", "1 feature on “one”")
    for beyond in (2, -1, 999):
        assert read_tried(planted, looked, text, token=beyond).chosen is None


def test_heat_asks_how_rare_a_feature_is_and_is_stretched_over_the_text(planted):
    looked = looked_at(planted)
    with planted._connection.cursor() as cursor:
        for feature_id, density in ((1, 0.1), (2, 0.01), (3, 1e-6)):
            cursor.execute(
                "UPDATE shard_feature_stats SET density = ?, max_act = 1 WHERE feature_id = ?", [density, feature_id]
            )
    text = encoded(["a", "b", "c", "d"], (0, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0), (3, 3, 0.5))
    heat = [token.heat for token in read_tried(planted, looked, text).tokens]
    assert heat == pytest.approx([0, 1 / 3, 1, 1 / 3])  # of 1/4, 1/2, 1 and 1/2
    even = encoded(["a", "b"], (0, 1, 1.0), (1, 1, 1.0))
    assert [token.heat for token in read_tried(planted, looked, even).tokens] == [1, 1]
    assert read_tried(planted, looked, encoded(["a"])).tokens[0].heat == 0


def test_above_its_maximum_and_never_seen_are_said_in_words(planted):
    looked = looked_at(planted)
    top = own_maximum(planted, looked, 1)
    assert own_maximum(planted, looked, 25) == 0
    tried = read_tried(planted, looked, encoded(["a"], (0, 1, 3 * top), (0, 25, 0.5)), token=0)
    assert tried.words == {1: "300 %", 25: "never seen before"}


def test_features_that_are_always_on_are_left_out_unless_asked_for(planted):
    looked = looked_at(planted)
    with planted._connection.cursor() as cursor:
        cursor.execute("UPDATE shard_feature_stats SET is_always_on = true WHERE feature_id = 3")
    text = encoded(["a", "b"], (0, 3, 1.0), (1, 1, 0.5))
    assert list(read_tried(planted, looked, text).found) == [1]
    assert read_tried(planted, looked, text).tokens[0].heat == 0
    assert set(read_tried(planted, looked, text, with_always_on=True).found) == {1, 3}


def test_a_tip_names_the_strongest_features_and_blanks_and_line_ends_are_visible(planted):
    looked = looked_at(planted)
    planted.record("ann", explanation_of(looked.sae_id, 1), "edit", {"text": HOSTILE})
    text = encoded(["  ", "\n", "", "end"], (0, 1, 0.5))
    tokens = read_tried(planted, looked, text).tokens
    assert tokens[0].tip.splitlines()[0] == "“␣␣” · 1 feature"
    assert HOSTILE in tokens[0].tip
    assert [t.ends_line for t in tokens] == [False, True, False, False]
    assert tokens[1].text == "↵"
    assert tokens[2].text == "▪"
    assert tokens[3].tip == "“end” · 0 features"


def test_a_text_on_which_nothing_fires_finds_nothing(planted):
    tried = read_tried(planted, looked_at(planted), encoded(["a", "b"]))
    assert (dict(tried.found), tried.summary) == ({}, "0 features on 2 tokens")
