"""SAEs on the planted loop: what is known, what is honestly unknown, and estimates from a training seen before."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.store.training import SERIES, TrainingCurve
from facviz.store.workspace import Workspace, open_workspace
from facviz.views.sae import (
    TrainedBefore,
    backbone_flags,
    course_words,
    densities,
    estimate_seconds,
    finished_course,
    headline,
    list_encodings,
    list_saes,
    running_courses,
)

TRAINED = {
    "backbone": {"name": "default", "layer": 15, "max_tokens": 512},
    "identity": "abc",
    "hook_name": "blocks.14.hook_resid_post",
    "weights": {
        "trainer": "facviz",
        "config": {"batch_tokens": 1024, "rng_seed": 0},
        "recipe": {"n_steps": 367, "learning_rate": 0.000636},
        "n_training_tokens": 375_808,
        "offset_ratio": 2.345,
    },
}


@pytest.fixture(scope="module")
def planted(planted_loop):
    workspace = open_workspace(planted_loop / "workspace")
    with workspace.reader() as reader:
        yield reader, workspace


@pytest.fixture
def trained(tmp_path):
    """A workspace with one SAE as a training leaves its row."""
    workspace = Workspace.create(tmp_path / "w")
    metrics = {"fvu": 0.237, "l0": 16.58, "dead": 1, "n_always_on": 1}
    row = {"sae_id": "s1", "backbone": "default", "layer": 15, "architecture": "batchtopk", "d_in": 576, "d_sae": 1024}
    row |= {"k": 16, "metrics": json.dumps(metrics), "provenance": json.dumps(TRAINED)}
    workspace.manifest.write_shard(Scope("sae", "s1", "f" * 16), "sae", "0", rows_to_arrow("sae", [row]))
    return workspace


def test_a_loaded_sae_has_unknown_quality_and_dead_features_from_the_data_it_read(planted):
    reader, _ = planted
    [row] = list_saes(reader)
    encodings = list_encodings(reader, row.sae_id)
    assert [(e.dataset, e.n_features, e.n_active, e.n_always_on) for e in encodings] == [
        ("anchor", 26, 25, 0),
        ("seed", 26, 13, 8),
    ]
    shown = {label: value for label, value, _ in headline(row, encodings)}
    assert shown == {"FVU": "–", "L0": "–", "Dead features": "1 of 26", "Always-on features": "0"}
    assert "Not measured yet" in headline(row, encodings)[0][2]
    assert [value for _, value, _ in headline(row, [])] == ["–", "–", "–", "–"]
    assert dict(row.provenance)["Loaded from the format"] == "saelens"
    assert not row.is_trained_here


def test_what_a_measuring_job_found_fills_the_unknown_and_never_replaces_a_training_s_own(planted, trained):
    measured = {"fvu": 0.5, "l0": 3.0, "dead": 2, "n_always_on": 0}
    reader, _ = planted
    sae_id = list_saes(reader)[0].sae_id
    [row] = list_saes(reader, {sae_id: measured})
    assert [value for _, value, _ in headline(row, [])] == ["0.500", "3.00", "2 of 26", "0"]
    with trained.reader() as own:
        assert list_saes(own, {"s1": measured})[0].fvu == 0.237


def test_a_trained_sae_shows_its_numbers_and_where_it_is_from(trained):
    with trained.reader() as reader:
        [row] = list_saes(reader)
    assert [value for _, value, _ in headline(row, [])] == ["0.237", "16.6", "1 of 1,024", "1"]
    facts = dict(row.provenance)
    assert facts["Layer"] == "15, read at blocks.14.hook_resid_post"
    assert (facts["Tokens seen in training"], facts["Batch"], facts["Steps"]) == ("375,808", "1,024 tokens", "367")
    assert (facts["Seed of randomness"], facts["Offset ratio γ"]) == ("0", "2.35")
    assert (row.site, row.offset_ratio, row.notes) == ("resid", 2.345, ())
    assert row.name == "s1 · batchtopk · 1,024 · k 16"
    assert (row.n_tokens, row.is_trained_here) == (375_808, True)


def test_densities_of_the_planted_words_are_their_share_of_all_words(planted):
    reader, _ = planted
    row = list_saes(reader)[0]
    anchor = list_encodings(reader, row.sae_id)[0]
    found = densities(reader, row.sae_id, anchor.dataset_id)
    # Companions stand in 36 + 12 of 96 documents of eight words, neutrals in 18 + 42, marked words in 8.
    expected = np.array([48] * 4 + [60] * 8 + [8] * 12 + [48, 0]) / 768
    counted = np.bincount([round(d * 768) for d in found], minlength=100)
    assert found.shape == (26,)
    np.testing.assert_array_equal(counted[[0, 48, 60]], [1, 5, 8])
    np.testing.assert_allclose(np.sort(found)[-13:], np.sort(expected)[-13:])


def test_the_courses_of_a_running_training_are_the_files_written_since_it_began(tmp_path):
    for name, age in (("old", 1000.0), ("new", 10.0), ("newer", 5.0)):
        folder = tmp_path / "sae" / name
        folder.mkdir(parents=True)
        curve = TrainingCurve(folder, 2)
        for step in (1, 2):
            curve.add(step, **dict.fromkeys(SERIES, age))
        os.utime(folder / "training.jsonl", (10_000 - age, 10_000 - age))
    found = running_courses(tmp_path, since=9_500)
    assert {name: course.series["loss"] for name, course in found.items()} == {"new": (10.0,) * 2, "newer": (5.0,) * 2}
    assert course_words(found["new"]) == "step 2 of 2: loss 10.0, FVU 10.0, L0 10.0, 10.0 dead features"
    assert running_courses(tmp_path, since=9_999) == {}
    assert running_courses(tmp_path / "nothing", since=0) == {}


def test_what_a_format_inferred_or_folded_is_kept_as_notes_and_what_identifies_it_is_not(tmp_path):
    workspace = Workspace.create(tmp_path / "w")
    weights = {"format": "gemma_scope", "recognised_by": "an .npz archive", "generation": 1, "layer": "from the folder"}
    weights |= {"notes": ["the gate is folded", "x" * 1000], "context_size": "as published"}
    row = {"sae_id": "s", "backbone": "b", "layer": 1, "architecture": "jumprelu", "d_in": 8, "d_sae": 8, "k": 0}
    provenance = {"weights": weights, "backbone": {"site": "mlp"}}
    row |= {"metrics": "{}", "provenance": json.dumps(provenance)}
    workspace.manifest.write_shard(Scope("sae", "s", "f" * 16), "sae", "0", rows_to_arrow("sae", [row]))
    with workspace.reader() as reader:
        [found] = list_saes(reader)
    assert found.notes[0] == "the gate is folded"
    assert len(found.notes[1]) == 200
    assert found.notes[2:] == ("layer: from the folder", "context size: as published")
    assert (found.site, found.offset_ratio, found.name) == ("mlp", None, "s · jumprelu · 8")
    assert dict(found.provenance)["Recognised by"] == "an .npz archive"


def test_an_sae_without_a_recorded_course_has_none(planted):
    reader, workspace = planted
    assert finished_course(workspace, list_saes(reader)[0].sae_id) is None


def test_time_is_estimated_in_proportion_to_tokens_epochs_and_features():
    before = TrainedBefore(tokens=100_000, epochs=2, d_sae=1000, seconds=60)
    assert estimate_seconds(100_000, 2, 1000, before) == 60
    assert estimate_seconds(200_000, 4, 4000, before) == 60 * 16
    assert estimate_seconds(1, 1, 1, None) is None
    assert estimate_seconds(1, 1, 1, replace(before, tokens=0)) is None


def test_new_stages_stay_on_the_model_of_the_newest_sae_until_the_workspace_remembers_one(planted, trained, tmp_path):
    with trained.reader() as reader:
        assert backbone_flags(trained, reader) == ("--backbone=default", "--layer=15", "--max-tokens-per-doc=512")
        trained.remember(backbone={"name": "default"})
        assert backbone_flags(trained, reader) == ()
    empty = Workspace.create(tmp_path / "empty")
    with empty.reader() as reader:
        assert backbone_flags(empty, reader) == ()
