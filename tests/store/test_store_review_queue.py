"""The order of review: the documented formula part by part, and that no person's decision moves anything."""

from __future__ import annotations

import json

import numpy as np
import pytest

from facviz.store.database import Database
from facviz.store.events import explanation_of, relevance_of
from facviz.store.feature_table import TableScope
from facviz.store.manifest import Scope
from facviz.store.review_queue import STATES, STATUSES, found_by_text, read_review_queue, repeatable
from facviz.store.schema import MODE, rows_to_arrow

SCOPE = TableScope("sae", "anchor-id", "topic", "label", "cov")

# feature: anchor max, seed max (δ = 1), AUROC and verdict by label, by llm, score, detection, what it is there for
FEATURES = {
    0: (5.0, 0.1, 0.55, "yes", "yes", 0.5, None),  # missing, chance score, AUROC on the level
    1: (5.0, 0.1, 0.75, "yes", "no", 1.0, None),  # missing, filled by samples, sources disagree
    2: (5.0, 5.0, 0.75, "yes", "yes", 0.9, 0.6),  # covered; the judge's accuracy is the worse score
    3: (5.0, 1.1, 0.75, "yes", None, None, None),  # covered, its seed maximum near δ, not scored
    4: (5.0, 5.0, 0.50, "no", None, 0.9, None),  # one step below relevant
    5: (0.5, 0.5, 0.40, "no", None, 0.9, None),  # below δ everywhere
    6: (5.0, 0.1, 0.75, "yes", None, 0.9, None),  # missing, synthesis gave up; two explainers share no word
}


def write(workspace):
    manifest = workspace.manifest

    def put(table, rows, stage="made"):
        manifest.write_shard(Scope(stage, table, "f" * 16), table, "0", rows_to_arrow(table, rows))

    put("dataset", [{"dataset_id": f"{name}-id", "name": name} for name in ("anchor", "seed")])
    stats = {"sae_id": "sae", "mode": MODE, "is_dead": False, "is_always_on": False}
    dead = stats | {"feature_id": 9, "dataset_id": "anchor-id", "density": 0.0, "max_act": 0.0, "is_dead": True}
    put(
        "feature_stats",
        [
            stats | {"feature_id": i, "dataset_id": f"{name}-id", "density": 0.1 - i / 100, "max_act": act}
            for i, (anchor, seed, *_) in FEATURES.items()
            for name, act in (("anchor", anchor), ("seed", seed))
        ]
        + [dead],
    )
    said = {"sae_id": "sae", "version": 1, "outcome": "explained", "author_kind": "lexical", "author": "lexical"}
    rows = []
    for i, (*_, score, detection) in FEATURES.items():
        scores = {"embedding_auroc": score, "detection_accuracy": detection}
        scores = {name: value for name, value in scores.items() if value is not None}
        rows.append(said | {"feature_id": i, "text": f"fires on word{i}", "scores": json.dumps(scores)})
    rows.append(
        said | {"feature_id": 6, "text": "Birds of prey", "author": "model", "author_kind": "llm", "scores": "{}"}
    )
    other = {"author": "model", "author_kind": "llm", "scores": "{}"}
    rows.append(said | {"feature_id": 5, "text": "It fires at dawn"} | other)
    put("explanation", rows)
    judged = {"task": "topic", "sae_id": "sae", "score": 0.0}
    put(
        "relevance",
        [
            judged | {"feature_id": i, "source": source, "verdict": verdict, "score": auroc}
            for i, (_, _, auroc, label, llm, *_) in FEATURES.items()
            for source, verdict in (("label", label), ("llm", llm))
            if verdict
        ],
    )
    run = {"coverage_id": "cov", "sae_id": "sae", "task": "topic", "anchor": "anchor", "seed": "seed", "level": "maybe"}
    put("coverage_run", [run | {"threshold_kind": "absolute", "act_threshold": 1.0}])
    put("missing_feature", [{"coverage_id": "cov", "feature_id": i} for i in (0, 1, 6)])
    tried = {"synth_id": "s", "coverage_id": "cov"}
    put(
        "synthesis_feature",
        [tried | {"feature_id": 1, "state": "filled"}, tried | {"feature_id": 6, "state": "exhausted"}],
    )


@pytest.fixture
def database(workspace):
    write(workspace)
    with Database(workspace) as opened:
        opened.sync()
        yield opened


def by_feature(database, me="ann"):
    queue = read_review_queue(database, SCOPE, me)
    names = ("value", "effect", "uncertainty", "weak", "disagreement", "near_level")
    return {
        int(i): {name: round(float(getattr(queue, name)[k]), 4) for name in names} | {"state": STATES[queue.state[k]]}
        for k, i in enumerate(queue.feature_id)
    }


def test_every_part_of_the_formula_is_what_paper_says(database):
    found = by_feature(database)
    assert {i: row["state"] for i, row in found.items()} == {
        0: "missing",
        1: "filled",
        2: "covered",
        3: "covered",
        4: "none",
        5: "none",
        6: "exhausted",
    }
    effects = {i: row["effect"] for i, row in found.items()}
    assert effects == {0: 1.0, 1: 0.7, 2: 0.5, 3: 0.7, 4: 0.3, 5: 0.1, 6: 1.0}
    assert {i: row["weak"] for i, row in found.items()} == {0: 1.0, 1: 0.0, 2: 0.8, 3: 0.5, 4: 0.2, 5: 0.2, 6: 0.2}
    assert {i: row["disagreement"] for i, row in found.items()} == {0: 0, 1: 1, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0.5}
    assert {i: row["near_level"] for i, row in found.items()} == {0: 1.0, 1: 0, 2: 0, 3: 0, 4: 0.5, 5: 0, 6: 0}
    assert found[0]["uncertainty"] == 0.5 * 1 + 0.2 * 1
    assert found[1]["uncertainty"] == 0.3
    assert found[6]["uncertainty"] == 0.5 * 0.2 + 0.3 * 0.5
    assert found[5]["uncertainty"] == 0.1  # nothing is certain
    assert all(row["value"] == pytest.approx(row["effect"] * row["uncertainty"], abs=1e-4) for row in found.values())
    assert list(found) == sorted(found, key=lambda i: -found[i]["value"])
    assert next(iter(found)) == 0


def test_deciding_and_judging_move_nothing(database):
    before = by_feature(database)
    for feature in FEATURES:
        database.record("ann", explanation_of("sae", feature), "edit", {"text": "other words"})
        database.record("ann", relevance_of("sae", feature, "topic"), "verdict", {"verdict": "no"})
    assert by_feature(database) == before
    queue = read_review_queue(database, SCOPE, "ann")
    assert {STATUSES[s] for s in queue.status} == {"edited"}


def flags(database, me, name):
    queue = read_review_queue(database, SCOPE, me)
    return set(queue.feature_id[getattr(queue, name)].tolist())


def test_a_second_look_is_for_others_and_a_difference_is_to_be_settled(database):
    for feature in (0, 1, 2):
        database.record("ann", explanation_of("sae", feature), "accept")
    database.record("ann", explanation_of("sae", 3), "skip")
    assert flags(database, "ann", "is_second") == set()
    assert flags(database, "bob", "is_second") == {0, 1, 2}
    database.record("bob", explanation_of("sae", 0), "accept", {"look": "second"})
    database.record("bob", explanation_of("sae", 1), "reject", {"look": "second"})
    assert flags(database, "bob", "is_second") == {2}
    assert flags(database, "eve", "is_mixed") == {1}
    database.record("eve", explanation_of("sae", 1), "reject", {"reason": "wrong"})
    assert flags(database, "eve", "is_mixed") == set()
    database.undo_mine("eve")
    assert flags(database, "eve", "is_mixed") == {1}


def test_what_comes_again_was_decided_by_oneself_long_enough_ago_and_once(database):
    events = [database.record("ann", explanation_of("sae", i), "accept") for i in range(5)]
    database.record("bob", explanation_of("sae", 6), "accept")
    found = repeatable(database, "sae", "ann", 2)
    assert [(row["feature_id"], row["event_id"]) for row in found] == [(i, events[i]["event_id"]) for i in range(3)]
    database.record("ann", explanation_of("sae", 1), "accept", {"look": "repeat", "of": events[1]["event_id"]})
    assert [row["feature_id"] for row in repeatable(database, "sae", "ann", 2)] == [0, 2, 3]


def test_words_are_found_in_what_holds(database):
    database.record("ann", explanation_of("sae", 2), "edit", {"text": "Sailing SHIPS"})
    assert found_by_text(database, "sae", "ships").tolist() == [2]
    assert len(found_by_text(database, "sae", "fires ON")) == len(FEATURES) - 1
    assert found_by_text(database, "sae", "%").tolist() == []


def test_without_a_coverage_run_the_queue_still_stands(database):
    queue = read_review_queue(database, TableScope("sae", "anchor-id"), "ann")
    assert sorted(queue.feature_id.tolist()) == list(FEATURES)
    assert np.isin(queue.state, 0).all()
    assert len(read_review_queue(database, TableScope("nobody", "x"), "ann").feature_id) == 0
