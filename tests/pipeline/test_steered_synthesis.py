"""Pushed synthesis on the planted loop: the push comes from the SAE's decoder, and samples are verified without it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from facviz import open_workspace
from facviz.activations import SaeEncoder
from facviz.config import BackboneConfig, CoverageConfig, SynthesisConfig, load_run_config
from facviz.llm.local import LocalChat
from facviz.pipeline import synthesis as stage
from facviz.pipeline.sae import open_encoder
from facviz.pipeline.session import Session
from facviz.pipeline.steering import FeatureSteerer
from facviz.records import Document, LLMRequest, Message
from facviz.sae.model import SAE
from facviz.sae.weights import LayerNorm
from facviz.synthesis.steered import PER_STRENGTH, STRENGTHS
from facviz.testing.fakes import SilentProgress
from facviz.testing.planted import WORDS, planted_tokenizer

COVERAGE = CoverageConfig(anchor="anchor", seed="seed", kind="absolute", threshold=0.5, n_bootstrap=200)
ASK = (Message("user", "apple bread"),)


@pytest.fixture
def session(loop_copy):
    """The planted loop's session; its model likes to write the word whose axis it finds, a little."""
    config = load_run_config(loop_copy / "planted.toml")
    session = Session(open_workspace(loop_copy / "workspace"), config.backbone, SilentProgress())
    tokenizer = planted_tokenizer()
    for backbone in {id(b): b for b in (session.backbone, session.fast)}.values():
        with torch.no_grad():
            for i, word in enumerate(WORDS):
                backbone.model.lm_head.weight[tokenizer.convert_tokens_to_ids(word), i] = 0.8
    return session


@pytest.fixture
def synthesize(session):
    [measured] = session.workspace.manifest.latest_done("coverage").values()

    def run(run=stage.synthesize, **settings):
        plan = {"max_features": 3, "pair_candidates": 4, "max_candidates": 8, "batch": 8, "max_tokens": 8}
        plan |= {"max_kl": 10.0, "temperature": 1.0, "top_p": 1.0} | settings
        return run(session, measured, COVERAGE, SynthesisConfig(**plan))

    return run


def candidates_of(session, told):
    with session.workspace.reader() as reader:
        rows = reader.rows("candidates", synth_id=told["synth_id"])
    return [row | {"gates": json.loads(row["gates"])} for row in rows]


def test_one_strength_is_the_decoder_row_times_the_usual_activation(planted_backbone, planted_encoder):
    usual = np.arange(planted_encoder.d_sae, dtype=np.float32)
    steerer = FeatureSteerer(LocalChat(planted_backbone), planted_encoder, usual)
    push = steerer.push(12, 1.5, 0.525)
    expected = np.zeros(planted_backbone.d_model, np.float32)
    expected[12] = 1.5 * 12
    np.testing.assert_array_equal(push.vector, expected)
    assert (push.layer, push.strength) == (planted_backbone.layer, 1.5)
    weights = planted_encoder.sae.weights
    states = torch.randn(50, planted_backbone.d_model)
    fires = (states - weights.b_dec) @ weights.W_enc[:, 12] + weights.b_enc[12] > 0.525
    assert ((states @ torch.from_numpy(push.reads) > push.ends_above) == fires).all()
    assert 0 < fires.sum() < 50


def test_an_sae_that_normalises_tokens_pushes_by_as_much_as_a_token_is_wide(planted_backbone, planted_sae):
    weights = dataclasses.replace(planted_sae.weights, input_norm=LayerNorm(unbiased=False))
    encoder = SaeEncoder(planted_backbone, SAE(weights), config=BackboneConfig(batch_tokens=64))
    usual = np.ones(encoder.d_sae, np.float32)
    chat, texts = LocalChat(planted_backbone), [Document.from_text("apple mirror"), Document.from_text("mirror")]
    states, _ = encoder.pool(texts)
    spread = float(np.std(states.last[0]))
    push = FeatureSteerer(chat, encoder, usual, texts).push(12, 2.0, 0.525)
    assert 0 < spread < 1
    assert push.vector[12] == pytest.approx(2.0 * spread)
    assert push.reads is None  # what a token is worth there depends on the whole of it
    assert FeatureSteerer(chat, encoder, usual).push(12, 2.0, 0.525).vector[12] == pytest.approx(2.0)


def test_pushed_samples_fire_when_measured_alone_and_unpushed(session, synthesize):
    told = synthesize(strategy="steered", max_candidates=48)
    assert told["n_filled"] == told["n_attempted"] == 3
    rows = candidates_of(session, told)
    encoder = open_encoder(session.workspace)
    accepted = [row for row in rows if row["accepted"]]
    assert len(accepted) == 3
    for row in accepted:
        alone = encoder.encode_alone(Document.from_text(row["text"])).max_acts
        assert alone[0, row["feature_id"]] == pytest.approx(row["act"])
        assert row["act"] > 1.05 * row["act_threshold"]
        assert WORDS[row["feature_id"]] in row["text"]
        assert row["gates"]["strength"] in STRENGTHS
        assert len(row["gates"]["tuning"]) == len(STRENGTHS)
    tuned = [row for row in rows if row["step"] == "tune"]
    assert len(tuned) == 3 * len(STRENGTHS) * PER_STRENGTH
    assert not any(row["accepted"] for row in tuned)


def test_a_push_finds_the_word_more_often_than_the_same_request_without(session, synthesize):
    def share(strategy):
        rows = candidates_of(session, synthesize(strategy=strategy, max_features=12, max_candidates=16, per_feature=16))
        counted = [row for row in rows if row["step"] == "one-step"]
        return np.mean([WORDS[row["feature_id"]] in row["text"] for row in counted])

    assert share("steered") > 1.5 * share("one-step") > 0


def test_the_divergence_grows_with_the_strength_and_is_that_of_the_local_model(session):
    chat, encoder = LocalChat(session.fast), open_encoder(session.workspace)
    steerer = FeatureSteerer(chat, encoder, np.full(encoder.d_sae, 2.0, np.float32))
    pushes = [steerer.push(12, strength, 0.525) for strength in STRENGTHS]
    found = [steerer.divergence(ASK, push, ["river tiger", "mirror"]) for push in pushes]
    assert found == sorted(found)
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[-1] > found[1] > 0
    request = LLMRequest(ASK, steering=pushes[-1])
    assert found[-1] == chat.divergence(request, ["river tiger", "mirror"])


def test_a_tight_limit_takes_the_gentlest_push(session, synthesize):
    rows = candidates_of(session, synthesize(strategy="steered", max_kl=1e-9))
    counted = [row["gates"] for row in rows if row["step"] == "one-step"]
    assert counted
    for gates in counted:
        gentlest = min(gates["tuning"], key=lambda trial: trial["kl"])
        assert (gates["strength"], gates["kl"]) == (gentlest["strength"], gentlest["kl"])


def test_the_pair_of_paper_steered_is_written_without_a_push(session, synthesize):
    told = synthesize(strategy="paper+steered")
    rows = candidates_of(session, told)
    assert {row["step"] for row in rows} == {"pairs", "tune", "guided"}
    for row in rows:
        assert ("strength" in row["gates"]) == (row["step"] != "pairs")
    assert told["strategy"] == "paper+steered"
    assert sum(told["pair_states"].values()) == 3


def test_what_a_pushed_run_would_ask_is_told_without_loading_the_model(session, synthesize, monkeypatch):
    monkeypatch.delattr("facviz.llm.local.LocalChat")
    told = synthesize(stage.estimate, strategy="paper+steered")
    assert told["n_calls"] == 3 * (4 + len(STRENGTHS) * PER_STRENGTH + 8)
    assert told["usd"] == 0.0
