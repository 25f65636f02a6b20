"""Sites through the stages: an SAE is trained at, loaded for, and run on what an MLP or attention adds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from facviz.backbone import Site
from facviz.backbone.quiet import quiet
from facviz.cli import main
from facviz.config import BackboneConfig
from facviz.errors import BackboneError, SaeError
from facviz.pipeline import sae as stage
from facviz.pipeline.session import Session, sae_row
from facviz.sae.formats import load_sae
from facviz.store.workspace import Workspace
from facviz.testing.fakes import SilentProgress
from facviz.testing.families import random_model
from facviz.testing.planted import planted_sae, planted_tokenizer
from facviz.testing.workspaces import anchor_rows


@pytest.fixture
def facviz(capsys):
    """Run a command that must succeed, in this process; the object it prints."""

    def run(*arguments: object):
        capsys.readouterr()
        code = main([*map(str, arguments), "--json", "--quiet"])
        output, errors = capsys.readouterr()
        assert (code, errors) == (0, "")
        return json.loads(output)

    return run


def session_on(folder, planted_folder, **settings) -> Session:
    config = BackboneConfig(name=str(planted_folder[0]), dtype="float32", **settings)
    return Session(Workspace.create(folder), config, SilentProgress())


def save_sae(folder, hook_name: object):
    sae = planted_sae()
    sae.metadata.clear()
    sae.metadata["hook_name"] = hook_name
    sae.save(folder)
    return folder


@pytest.mark.parametrize(
    ("hook_name", "place"),
    [
        ("blocks.1.hook_mlp_out", Site("mlp", 2)),
        ("blocks.0.hook_attn_out", Site("attn", 1)),
        ("model.layers.1.self_attn", Site("attn", 2)),
        ("layers.0.mlp", Site("mlp", 1)),
        ("layers.0", Site("resid", 1)),
        ("blocks.0.hook_resid_pre", Site("resid", 0)),
    ],
)
def test_a_loaded_sae_is_run_where_its_hook_name_says(tmp_path, planted_folder, hook_name, place):
    session = session_on(tmp_path / "w", planted_folder)
    loaded = stage.load(session, save_sae(tmp_path / "sae", hook_name))
    assert (session.backbone.place, loaded["layer"]) == (place, place.layer)
    provenance = json.loads(sae_row(session.workspace, None)["provenance"])
    assert provenance["hook_name"] == session.backbone.hook_name
    assert provenance["backbone"]["site"] == place.kind
    encoder = stage.open_encoder(session.workspace)
    assert encoder.backbone.place == place
    fires = bool(encoder.encode(["apple drum"]).max_acts.nnz)  # the planted blocks add nothing to the residual stream
    assert fires == (place.kind == "resid")
    saved = load_sae(session.workspace.sae_folder(loaded["sae_id"]) / "weights")
    assert saved.metadata["hook_name"] == session.backbone.hook_name
    assert saved.metadata.get("layer") == (place.layer if place.kind == "resid" else None)


def test_a_format_that_knows_the_hidden_state_is_believed_whatever_it_calls_it(tmp_path, planted_folder, monkeypatch):
    sae = planted_sae()
    sae.metadata |= {"hook_name": "resid_post_layer_1", "layer": 2}
    monkeypatch.setattr("facviz.sae.formats.load_sae", lambda *_: sae)
    session = session_on(tmp_path / "w", planted_folder, site="mlp")
    assert stage.load(session, tmp_path)["layer"] == 2
    assert session.backbone.place == Site("resid", 2)


def test_an_sae_that_says_nothing_of_its_place_is_run_at_the_site_asked_for(tmp_path, planted_folder):
    session = session_on(tmp_path / "w", planted_folder, site="attn")
    sae = planted_sae()
    sae.metadata.clear()
    sae.save(tmp_path / "sae")
    stage.load(session, tmp_path / "sae")
    assert session.backbone.place == Site("attn", 1)


def test_the_same_weights_at_two_sites_are_two_saes_and_the_residual_one_keeps_its_id(tmp_path, planted_folder):
    def sae_id(name, hook_name):
        session = session_on(tmp_path / name, planted_folder)
        return stage.load(session, save_sae(tmp_path / f"{name}-sae", hook_name))["sae_id"]

    residual, mlp = sae_id("a", "blocks.0.hook_resid_post"), sae_id("b", "blocks.0.hook_mlp_out")
    unnamed = stage.load(session_on(tmp_path / "c", planted_folder), planted_folder[1])["sae_id"]
    assert residual == unnamed != mlp


def test_a_layer_that_was_asked_for_wins_and_the_site_stays_the_saes(tmp_path, planted_folder):
    session = session_on(tmp_path / "w", planted_folder, layer=1)
    stage.load(session, save_sae(tmp_path / "sae", "blocks.1.hook_mlp_out"))
    assert session.backbone.place == Site("mlp", 1)


@pytest.mark.parametrize(
    "hook_name", ["blocks.1.attn.hook_z", "layers.0.input_layernorm", "<b>" * 100, ["x"], {"a": 1}]
)
def test_an_sae_of_a_place_that_cannot_be_read_is_refused_until_one_is_named(tmp_path, planted_folder, hook_name):
    saved = save_sae(tmp_path / "sae", hook_name)
    with pytest.raises(SaeError, match=r"which facviz cannot read in .*; .* say so with --layer and --site") as raised:
        stage.load(session_on(tmp_path / "w", planted_folder), saved)
    assert len(str(raised.value)) < 320 + len(str(planted_folder[0]))
    named = session_on(tmp_path / "w", planted_folder, layer=2, site="attn")
    stage.load(named, saved)
    assert named.backbone.place == Site("attn", 2)


def test_a_hook_name_beyond_the_model_names_the_layers_there_are(tmp_path, planted_folder):
    with pytest.raises(BackboneError, match=r"Layer 8 does not exist in .* at site mlp; choose 1 to 2"):
        stage.load(session_on(tmp_path / "w", planted_folder), save_sae(tmp_path / "sae", "layers.7.mlp"))


def test_capture_and_training_at_a_site_are_told_apart_remembered_and_saved_under_its_hook_name(tmp_path, facviz):
    backbone, workspace, corpus = tmp_path / "backbone", tmp_path / "w", tmp_path / "corpus.jsonl"
    with quiet():
        random_model("llama").save_pretrained(backbone)
        planted_tokenizer().save_pretrained(backbone)
    corpus.write_text("".join(json.dumps(row) + "\n" for row in anchor_rows()), encoding="utf-8")
    where = ["--workspace", workspace]
    facviz("data", "add", corpus, "--name", "c", "--roles", "user", "--backbone", backbone, "--layer", 2, *where)
    residual = facviz("capture", "--dataset", "c", *where)
    mlp = facviz("capture", "--dataset", "c", "--site", "mlp", *where)
    assert facviz("capture", "--dataset", "c", *where) == mlp  # remembered
    assert facviz("capture", "--dataset", "c", "--site", "resid", *where) == residual
    facviz("capture", "--dataset", "c", "--site", "mlp", *where)
    sizes = ["--d-sae", 24, "--k", 4, "--batch-tokens", 64, "--epochs", 1]
    trained = facviz("sae", "train", "--dataset", "c", *sizes, *where)

    opened = Workspace.create(workspace)
    saved = load_sae(opened.sae_folder(trained["sae_id"]) / "weights")
    provenance = json.loads(sae_row(opened, None)["provenance"])
    assert saved.metadata["hook_name"] == provenance["hook_name"] == "blocks.1.hook_mlp_out"
    encoder = stage.open_encoder(opened)
    assert encoder.backbone.place == Site("mlp", 2)
    captured = [torch.cat(_shards(opened, c["capture_id"])) for c in (residual, mlp)]
    assert captured[0].shape == captured[1].shape
    assert not np.allclose(captured[0].float(), captured[1].float(), atol=0.1)


def _shards(workspace: Workspace, capture_id: str) -> list[torch.Tensor]:
    from facviz.activations import ActivationShards, CapturePlan

    plan = json.loads((workspace.activations_folder(capture_id) / "plan.json").read_text(encoding="utf-8"))
    shards = tuple((name, tuple(members)) for name, members in plan["shards"])
    opened = ActivationShards(
        workspace.activations_folder(capture_id), CapturePlan(shards, plan["n_tokens"], plan["n_heldout_tokens"])
    )
    return list(opened.heldout_chunks())
