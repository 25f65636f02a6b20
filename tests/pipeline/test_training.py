"""The training stage: many SAEs on one pass, straight from the model, stopped, resumed, further, and the best kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from facviz.activations import shards
from facviz.backbone.quiet import quiet
from facviz.config import BackboneConfig, CaptureConfig, DatasetConfig, SaeConfig
from facviz.errors import InputError
from facviz.pipeline import data, training
from facviz.pipeline.session import Session
from facviz.sae.formats import load_sae
from facviz.store.workspace import Workspace
from facviz.testing.fakes import SilentProgress
from facviz.testing.families import random_model
from facviz.testing.planted import planted_tokenizer
from facviz.testing.workspaces import anchor_rows

CAPTURE = CaptureConfig(dataset="c", shard_docs=8)
SAE = SaeConfig(d_sae=24, k=4, batch_tokens=32, epochs=2)


class Stopped(Exception):  # noqa: N818
    """What a kill is to a test."""


class StoppingProgress(SilentProgress):
    """Stops the run at one training step."""

    def __init__(self, step):
        self.step = step

    def update(self, stage, done, total, note=""):
        if stage == "sae" and done == self.step:
            raise Stopped


@pytest.fixture(scope="module")
def backbone_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    with quiet():
        random_model("llama").save_pretrained(folder)
        planted_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def open_session(tmp_path, backbone_folder):
    """A session on a workspace with the anchor corpus as dataset `c`; the same name opens the same workspace."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in anchor_rows()), encoding="utf-8")

    def run(name="w", progress=None):
        config = BackboneConfig(name=str(backbone_folder), layer=2, dtype="float32")
        session = Session(Workspace.create(tmp_path / name), config, progress or SilentProgress())
        data.add_dataset(session, DatasetConfig("c", str(corpus), roles=("user",)))
        return session

    return run


@pytest.fixture
def passes(monkeypatch):
    """Documents run through the model for training, one number a shard, with how many places were read."""
    counted = []
    forward = shards.content_activations

    def count(places, documents, batch_tokens):
        counted.append((len(documents), len(places)))
        return forward(places, documents, batch_tokens)

    monkeypatch.setattr(shards, "content_activations", count)
    return counted


def weights_of(session, sae_id):
    found = load_sae(session.workspace.sae_folder(sae_id) / "weights").weights
    return [found.W_enc, found.b_enc, found.W_dec, found.b_dec]


def assert_same(first, second):
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_layers_and_sizes_share_one_pass_and_end_as_each_would_alone(open_session, passes):
    session = open_session()
    configs = training.vary(SAE, [24, 32], [4])
    made = training.train_several(session, CAPTURE, configs, [1, 3])
    n_documents, n_places = (sum(n for n, _ in passes), {places for _, places in passes})
    assert [(s["layer"], s["d_sae"]) for s in made] == [(1, 24), (1, 32), (3, 24), (3, 32)]
    assert (n_documents, n_places) == (len(anchor_rows()), {2})
    again = training.train_several(session, CAPTURE, configs, [1, 3])
    assert again == made
    assert sum(n for n, _ in passes) == n_documents
    alone = open_session("alone")
    alone.move_to_layer(3)
    [lonely] = training.train_several(alone, CAPTURE, configs[:1], [3])
    assert lonely["sae_id"] == made[2]["sae_id"]
    assert_same(weights_of(session, lonely["sae_id"]), weights_of(alone, lonely["sae_id"]))
    with session.workspace.reader() as reader:
        assert sorted(r["layer"] for r in reader.rows("saes")) == [1, 1, 3, 3]


def test_the_same_sae_twice_is_refused(open_session):
    with pytest.raises(InputError, match="Two of the SAEs to train are the same"):
        training.train_several(open_session(), CAPTURE, training.vary(SAE, [24, 24], []), [2])


def test_straight_from_the_model_gives_the_same_weights_and_keeps_no_activations(open_session):
    kept, live = open_session("kept"), open_session("live")
    first = training.train(kept, CAPTURE, SAE)
    second = training.train(live, replace(CAPTURE, keep=False), SAE)
    assert first == second
    assert_same(weights_of(kept, first["sae_id"]), weights_of(live, second["sae_id"]))
    assert list((live.workspace.root / "activations").glob("*/*.safetensors")) == []


def test_a_capture_that_was_killed_is_not_taken_for_one_that_was_kept(open_session, monkeypatch):
    def kill(*_):
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr("facviz.activations.shards.append_line", kill)
        with pytest.raises(Stopped):
            training.train(open_session(), CAPTURE, SAE)
    live = training.train(open_session(), replace(CAPTURE, keep=False), SAE)
    assert live == training.train(open_session("whole"), CAPTURE, SAE)


@pytest.mark.parametrize("keep", [True, False], ids=["from disk", "from the model"])
@pytest.mark.parametrize("steps", [(3, 17, 30)])
def test_a_run_stopped_three_times_ends_bitwise_where_an_unbroken_one_does(
    open_session, monkeypatch, passes, keep, steps
):
    monkeypatch.setattr(training, "CHECKPOINT_STEPS", 5)
    monkeypatch.setattr(training, "BUFFER_BATCHES", 4)
    capture = replace(CAPTURE, keep=keep)
    whole = training.train(open_session("whole"), capture, SAE)
    n_whole = sum(n for n, _ in passes)
    for step in steps:
        with pytest.raises(Stopped):
            training.train(open_session("broken", StoppingProgress(step)), capture, SAE)
    passes.clear()
    session = open_session("broken")
    broken = training.train(session, capture, SAE)
    assert broken == whole
    assert_same(weights_of(open_session("whole"), whole["sae_id"]), weights_of(session, broken["sae_id"]))
    assert sum(n for n, _ in passes) < (n_whole if not keep else 1)  # what was learnt from is not run again


def test_training_further_begins_with_the_weights_of_the_named_sae(open_session):
    session = open_session()
    first = training.train(session, CAPTURE, SAE)
    further = replace(SAE, continue_from=first["sae_id"], epochs=1, learning_rate=1e-9)
    second = training.train(session, CAPTURE, further)
    assert second["sae_id"] != first["sae_id"]
    for a, b in zip(weights_of(session, first["sae_id"]), weights_of(session, second["sae_id"])):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_best_weights_stay_beside_the_last_only_when_they_are_others(open_session, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_STEPS", 10)
    session = open_session()
    plain = training.train(session, CAPTURE, replace(SAE, architecture="topk", learning_rate=1e-3))
    folder = session.workspace.sae_folder(plain["sae_id"])
    assert plain["best_step"] == plain["n_steps"]
    assert list((folder / "best").glob("*")) == []

    ruined = open_session("ruined")
    worse = training.train(ruined, CAPTURE, replace(SAE, learning_rate=100))
    best = ruined.workspace.sae_folder(worse["sae_id"]) / "best"
    assert worse["best_step"] < worse["n_steps"]
    assert load_sae(best).d_sae == 24
    assert not torch.equal(load_sae(best).weights.b_dec, weights_of(ruined, worse["sae_id"])[3])
