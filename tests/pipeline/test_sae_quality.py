"""Measuring SAEs in a workspace: health on load, evaluation, fidelity, probing, matching, and very large SAEs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import shutil

import pytest
import torch
from tiny_llama import chats, model_acts, pca_sae, renderer_of, tiny_backbone

from facviz.activations import is_held_out
from facviz.backbone.quiet import quiet
from facviz.cli import main
from facviz.config import BackboneConfig
from facviz.errors import InputError, SaeError
from facviz.fidelity import Fidelity, measure_fidelity
from facviz.pipeline import sae as stage
from facviz.pipeline import sae_measures, sae_quality
from facviz.pipeline.features import promoted_tokens
from facviz.pipeline.sae_features import feature_rows
from facviz.pipeline.sae_measures import DENSITY_EDGES, eval_measures, fidelity_measures
from facviz.pipeline.session import Session, load_documents, sae_row
from facviz.sae.metrics import SaeEvaluator
from facviz.sae.model import SAE
from facviz.sae.probing import probe_labels
from facviz.sae.weights import Activation, SaeWeights
from facviz.store.manifest import Scope
from facviz.store.workspace import Workspace
from facviz.testing.fakes import SilentProgress
from facviz.testing.planted import D_SAE, planted_sae

LAYER = 3


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """A folder with a six-layer Llama, an SAE made for its layer 3, and a workspace with one corpus; read only."""
    folder = tmp_path_factory.mktemp("tiny")
    backbone = tiny_backbone(LAYER)
    with quiet():
        backbone.model.save_pretrained(folder / "backbone")
        backbone.tokenizer.save_pretrained(folder / "backbone")
    pca_sae(backbone, chats(60, seed=1)).save(folder / "sae")
    rows = [{"text": d.text, "label": "with" if "apple" in d.text else "without"} for d in chats(40, seed=2)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    add_data(folder, "corpus")
    return folder


@pytest.fixture
def folder(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


def session_on(folder, layer=LAYER, workspace="w") -> Session:
    config = BackboneConfig(name=str(folder / "backbone"), layer=layer, dtype="float32")
    return Session(Workspace.create(folder / workspace), config, SilentProgress())


def run_quietly(*arguments):
    """A command that must succeed, in this process; the object it prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main([*map(str, arguments), "--json", "--quiet"]) == 0
    return json.loads(output.getvalue())


def add_data(folder, name, *more, path="corpus.jsonl"):
    where = ["--backbone", folder / "backbone", "--layer", LAYER, "--workspace", folder / "w"]
    run_quietly("data", "add", folder / path, "--name", name, "--roles", "user", *more, *where)


def rows_of(session, sae_id=None):
    with session.workspace.reader() as reader:
        return reader.rows("sae_evaluations", sae_id=sae_id)


def documents_of(session, name="corpus"):
    with session.workspace.reader() as reader:
        return load_documents(reader, reader.dataset(name)["dataset_id"])


def made_for_layer(layer, **metadata):
    sae = pca_sae(tiny_backbone(layer), chats(60, seed=1))
    sae.metadata |= metadata
    return sae


def test_an_sae_at_its_layer_is_plausible_and_fits_once_its_record_agrees(folder):
    shutil.copytree(folder / "w", folder / "bare")
    session = session_on(folder)
    plain = sae_quality.load_and_check(session, folder / "sae")
    health, [row] = plain["health"], rows_of(session, plain["sae_id"])
    assert (health["verdict"], health["recorded_fvu"], plain["health_note"]) == ("plausible", None, None)
    assert (row["kind"], row["dataset"], json.loads(row["measures"])) == ("health", "corpus", health)
    assert (health["given"]["layer"], health["given"]["template"], health["best"]["layer"]) == (LAYER, True, LAYER)
    assert {(c["layer"], c["template"]) for c in health["table"]} == {
        (n, t) for n in range(1, 6) for t in (True, False)
    }
    assert all(c["low"] <= c["fvu"] <= c["high"] for c in health["table"] if c["layer"] == LAYER and c["template"])
    assert health["n_tokens"] > 500

    recorded = made_for_layer(LAYER, heldout_metrics={"fvu": health["given"]["fvu"]}).save(folder / "recorded")
    fits = sae_quality.load_and_check(session_on(folder, workspace="bare"), recorded)
    assert (fits["health"]["verdict"], fits["health"]["recorded_fvu"]) == ("fits", health["given"]["fvu"])


def test_an_sae_moved_by_two_layers_does_not_fit_is_named_its_layer_and_stored_all_the_same(folder):
    session = session_on(folder, layer=LAYER - 2)
    found = sae_quality.load_and_check(session, folder / "sae")
    assert found["health"]["verdict"] == "does not fit"
    assert f"fits better at layer {LAYER}" in found["health"]["sentence"]
    assert stage.open_sae(session, found["sae_id"]).d_sae == found["d_sae"]
    assert [row["kind"] for row in rows_of(session)] == ["health"]


def test_health_of_a_second_load_is_the_first_ones(folder, monkeypatch):
    first = sae_quality.load_and_check(session_on(folder), folder / "sae")
    monkeypatch.setattr("facviz.fidelity.check_health", lambda *_, **__: pytest.fail("measured again"))
    assert sae_quality.load_and_check(session_on(folder), folder / "sae") == first


def test_without_a_dataset_or_when_told_not_to_nothing_is_checked_and_it_says_so(folder):
    session = session_on(folder, workspace="empty")
    found = sae_quality.load_and_check(session, folder / "sae")
    assert found["health"] is None
    assert "no dataset to check the SAE on" in found["health_note"]
    skipped = sae_quality.load_and_check(session_on(folder), folder / "sae", check=False)
    assert (skipped["health"], skipped["health_note"]) == (None, "The health check was left out.")
    assert rows_of(session) == []


def test_the_first_anchor_set_is_checked_on_unless_another_is_asked_for(folder):
    for name, role in (("later", "seed"), ("reference", "anchor")):
        add_data(folder, name, "--role", role)
    session = session_on(folder)
    sae_id = sae_quality.load_and_check(session, folder / "sae")["sae_id"]
    assert [row["dataset"] for row in rows_of(session, sae_id)] == ["reference"]
    sae_quality.load_and_check(session, folder / "sae", dataset="later")
    assert {row["dataset"] for row in rows_of(session, sae_id)} == {"reference", "later"}


def test_a_dataset_that_is_not_there_is_refused_before_anything_is_stored(folder):
    session = session_on(folder)
    with pytest.raises(InputError, match="no dataset 'nowhere'"):
        sae_quality.load_and_check(session, folder / "sae", dataset="nowhere")
    with session.workspace.reader() as reader:
        assert reader.rows("saes") == []


def test_a_chosen_dataset_that_cannot_be_used_leaves_a_note_and_one_asked_for_is_an_error(folder):
    (folder / "one.jsonl").write_text('{"text": "apple bread"}\n', encoding="utf-8")
    add_data(folder, "alone", "--role", "anchor", path="one.jsonl")
    session = session_on(folder)
    found = sae_quality.load_and_check(session, folder / "sae")
    assert found["health"] is None
    assert found["health_note"].startswith("The SAE could not be checked on alone: ")
    with pytest.raises(SaeError, match="two documents"):
        sae_quality.load_and_check(session, folder / "sae", dataset="alone")


def test_what_a_format_inferred_is_told_in_short_printable_notes(folder, monkeypatch):
    long = made_for_layer(LAYER)
    said = {"format": "fac", "recognised_by": "x", "notes": ["folded"], "k": "\x1b[31mred" + "9" * 500, "n": 3}
    weights = dataclasses.replace(long.weights, provenance=said)
    monkeypatch.setattr("facviz.sae.formats.load_sae", lambda *_: SAE(weights, {}))
    notes = sae_quality.load_and_check(session_on(folder), folder / "sae", check=False)["notes"]
    assert notes[0] == "folded"
    assert notes[1].startswith("k: [31mred999")
    assert (len(notes), len(notes[1])) == (2, 200)


def test_evaluation_equals_measuring_all_content_tokens_and_is_not_made_twice(folder, monkeypatch):
    session = session_on(folder)
    sae_id = stage.load(session, folder / "sae")["sae_id"]
    found = sae_quality.evaluate(session, sae_id, "corpus")
    evaluator = SaeEvaluator(stage.open_sae(session, sae_id))
    evaluator.update(model_acts(session.backbone, documents_of(session)))
    expected = evaluator.result()
    assert found["fvu"] == pytest.approx(expected.fvu, abs=1e-4)
    assert (found["n_eval_tokens"], found["dead"]) == (expected.n_tokens, expected.n_dead)
    assert found["explained_variance"] == pytest.approx(1 - found["fvu"], abs=1e-4)
    assert found["l2_ratio"] == pytest.approx(expected.l2_ratio, abs=1e-3)
    assert found["duplicates"] == 0
    histogram = found["density_counts"]
    assert sum(histogram["counts"]) + histogram["n_dead"] == 16
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1
    [row] = rows_of(session, sae_id)
    assert {"sae_id": sae_id, "dataset": row["dataset"], **json.loads(row["measures"])} == found
    assert row["kind"] == "eval"
    monkeypatch.setattr(SaeEvaluator, "update", lambda *_: pytest.fail("measured again"))
    assert sae_quality.evaluate(session_on(folder), sae_id, "corpus") == found


def test_densities_lie_in_the_histogram_bin_that_holds_them():
    sae = planted_sae()
    evaluator = SaeEvaluator(sae)
    acts = torch.zeros(1000, sae.d_in)
    acts[:100, 0] = acts[:1, 1] = 2.0
    evaluator.update(acts)
    counts = eval_measures(evaluator.result(), sae)["density_counts"]
    held = {round(DENSITY_EDGES[i], 2): n for i, n in enumerate(counts["counts"]) if n}
    assert held == {-1.0: 2, -3.0: 1}  # feature 0 and its twin on a tenth of the tokens, feature 1 on a thousandth
    assert counts["n_dead"] == D_SAE - 3


def test_fidelity_is_that_of_the_spliced_model_on_documents_no_training_saw_first(folder):
    session = session_on(folder)
    sae_id = stage.load(session, folder / "sae")["sae_id"]
    found = sae_quality.evaluate(session, sae_id, "corpus", fidelity=True)["fidelity"]
    expected = measure_fidelity(
        session.backbone, stage.open_sae(session, sae_id), documents_of(session), renderer_of(session.backbone)
    )
    assert found == pytest.approx(fidelity_measures(expected), abs=1e-4)
    assert 0 < found["kl_sae"] < found["kl_zero"]
    assert {row["kind"] for row in rows_of(session, sae_id)} == {"eval", "fidelity"}
    order = [is_held_out(d.doc_id) for d in sae_quality._Subject(session, sae_id, "corpus")._unseen_first]
    assert order == sorted(order, reverse=True)


def test_only_so_many_tokens_are_run_through_the_whole_model(folder, monkeypatch):
    monkeypatch.setattr(sae_quality, "FIDELITY_TOKENS", 100)
    session = session_on(folder)
    sae_id = stage.load(session, folder / "sae")["sae_id"]
    found = sae_quality.evaluate(session, sae_id, "corpus", fidelity=True)
    assert 100 <= found["fidelity"]["n_tokens"] < 140 < found["n_eval_tokens"]


def test_what_json_cannot_say_is_null():
    nan = Fidelity(3, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    assert math.isnan(nan.ce_score_zero)
    found = fidelity_measures(nan)
    assert (found["ce_score_zero"], found["kl_score_mean"], found["ce_sae"]) == (None, None, 1.0)
    assert "NaN" not in json.dumps(found)


def test_probing_reads_what_the_spans_stage_stored_or_encodes_and_finds_the_same(loop_copy):
    row = sae_row(Workspace.create(loop_copy / "workspace"), None)
    config = BackboneConfig(name=str(loop_copy / "models" / "backbone"), layer=1, dtype="bfloat16")
    session = Session(Workspace.create(loop_copy / "workspace"), config, SilentProgress())
    stored = sae_quality.evaluate(session, row["sae_id"], "anchor", probe=True)["probing"]
    new = Session(Workspace.create(loop_copy / "new"), config, SilentProgress())
    add = ["data", "add", loop_copy / "anchor.jsonl", "--name", "anchor", "--roles", "user", "--layer", 1]
    run_quietly(*add, "--backbone", config.name, "--workspace", loop_copy / "new")
    sae_id = stage.load(new, loop_copy / "models" / "sae")["sae_id"]
    assert sae_quality.evaluate(new, sae_id, "anchor", probe=True)["probing"] == stored
    documents = documents_of(new, "anchor")
    encoded = new.encoder(stage.open_sae(new, sae_id), ("user",)).encode(documents)
    labels, ids = [d.label for d in documents], [d.doc_id for d in documents]
    expected = probe_labels(encoded.max_acts, labels, encoded.n_content_tokens, ids)["1"]
    one = stored["labels"]["1"]
    assert one["k"]["5"]["auroc"] == pytest.approx(expected.probes[2].auroc, abs=1e-6)
    assert one["k"]["5"]["auroc"] > 0.7
    assert one["k"]["1"]["feature_ids"] == list(expected.probes[0].feature_ids)
    assert one["n_train"] + one["n_heldout"] == 96
    assert set(one) == {"k", "majority", "length", "n_train", "n_heldout"}
    assert set(stored["labels"]) == {"0", "1"}


def test_probing_without_labels_is_refused_before_anything_is_measured(folder):
    (folder / "plain.jsonl").write_text('{"text": "apple"}\n{"text": "bread cloud"}\n', encoding="utf-8")
    add_data(folder, "plain", path="plain.jsonl")
    session = session_on(folder)
    sae_id = stage.load(session, folder / "sae")["sae_id"]
    with pytest.raises(InputError, match=r"'plain' has 0 different labels; .* leave --probe out"):
        sae_quality.evaluate(session, sae_id, "plain", probe=True)
    assert rows_of(session) == []


def test_the_newest_of_several_measurements_counts(folder):
    session = session_on(folder)
    manifest = session.workspace.manifest
    for fvu, mark in ((0.5, "a"), (0.4, "b")):
        scope = Scope("sae-eval", "s/eval/corpus", mark * 16)
        sae_measures.write_evaluation(manifest, scope, sae_id="s", kind="eval", dataset="corpus", measures={"fvu": fvu})
        manifest.mark_done(scope, {})
    assert [json.loads(row["measures"]) for row in rows_of(session, "s")] == [{"fvu": 0.4}]
    assert rows_of(session, "another") == []


def test_matching_an_sae_with_its_shuffled_copy_finds_the_shuffle(folder):
    made = made_for_layer(LAYER)
    order = torch.randperm(made.d_sae, generator=torch.Generator().manual_seed(1))
    w = made.weights
    shuffled = SAE(dataclasses.replace(w, W_enc=w.W_enc[:, order].contiguous(), W_dec=w.W_dec[order].contiguous()))
    session = session_on(folder)
    a = stage.load(session, folder / "sae")["sae_id"]
    b = stage.load(session, shuffled.save(folder / "shuffled"))["sae_id"]
    found = sae_quality.match(session.workspace, a, b)
    assert (found["method"], found["mean_max_cosine"], found["share_matched"]) == ("optimal assignment", 1.0, 1.0)
    assert found["n"] == made.d_sae == len(found["best"]) == len(found["worst"])
    assert {pair["b"]: pair["a"] for pair in found["best"]} == dict(enumerate(order.tolist()))


def test_the_best_and_worst_pairs_are_at_most_twenty_each_in_order(folder, monkeypatch):
    monkeypatch.setattr(sae_quality, "N_PAIRS", 3)
    session = session_on(folder)
    ids = [stage.load(session, folder / "sae")["sae_id"]]
    ids.append(stage.load(session, made_for_layer(LAYER + 1).save(folder / "next"))["sae_id"])
    found = sae_quality.match(session.workspace, *ids)
    best, worst = ([pair["cosine"] for pair in found[side]] for side in ("best", "worst"))
    assert len(best) == len(worst) == 3
    assert best == sorted(best, reverse=True)
    assert worst == sorted(worst)
    assert best[-1] >= worst[-1]
    assert found["mean_max_cosine"] < 1


def test_saes_of_different_models_are_not_matched(folder, planted_folder):
    session = session_on(folder)
    ids = [stage.load(session, folder / "sae")["sae_id"]]
    config = BackboneConfig(name=str(planted_folder[0]), dtype="float32")
    ids.append(stage.load(Session(session.workspace, config, SilentProgress()), planted_folder[1])["sae_id"])
    with pytest.raises(InputError, match="read different models"):
        sae_quality.match(session.workspace, *ids)


@pytest.mark.parametrize("tied", [True, False])
def test_the_id_of_loaded_weights_is_the_digest_of_their_bytes_in_any_slices(monkeypatch, tied):
    W_enc = torch.randn(5, 7)
    weights = SaeWeights(W_enc, torch.randn(7), None if tied else torch.randn(7, 5), torch.randn(5), Activation("relu"))
    tensors = (weights.W_enc, weights.b_enc, weights.decoder, weights.b_dec)
    expected = hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()
    for n_values in (1, 12, 2**20):
        monkeypatch.setattr(stage, "DIGEST_VALUES", n_values)
        assert stage._weights_digest(SAE(weights)) == expected


def test_of_a_very_large_sae_only_what_is_quick_is_computed_for_all_features(planted_backbone, monkeypatch):
    sae = planted_sae()
    full = feature_rows(planted_backbone, sae, "s").to_pylist()
    assert all(len(row["top_tokens"]) == len(row["neighbours"]) == 10 for row in full)
    monkeypatch.setattr(sae_measures, "LARGE_D_SAE", D_SAE - 1)
    assert feature_rows(planted_backbone, sae, "s").to_pylist() == full
    assert eval_measures(_measured(sae), sae)["duplicates"] is not None
    monkeypatch.setattr(sae_measures, "MAX_FLOPS", 100)
    empty = feature_rows(planted_backbone, sae, "s").to_pylist()
    assert [row["feature_id"] for row in empty] == list(range(D_SAE))
    lists = ("top_tokens", "top_logits", "neighbours", "neighbour_cosines")
    assert all(row[name] == [] for row in empty for name in lists)
    assert {row["logit_mean"] for row in empty} == {None}
    assert promoted_tokens(empty[0]) == []
    assert eval_measures(_measured(sae), sae)["duplicates"] is None


def test_of_a_very_large_sae_fewer_tokens_are_checked_but_never_too_few():
    assert sae_measures.affordable_tokens(65_536, 1.0, 2000) == 2000
    assert sae_measures.affordable_tokens(16_384, 1e12, 2000) == 2000
    assert sae_measures.affordable_tokens(65_536, sae_measures.MAX_FLOPS / 750, 2000) == 750
    assert sae_measures.affordable_tokens(65_536, 1e12, 2000) == sae_measures.FEWEST_TOKENS


def _measured(sae):
    evaluator = SaeEvaluator(sae)
    evaluator.update(torch.randn(50, sae.d_in))
    return evaluator.result()


def test_a_trained_sae_has_its_heldout_figures_as_an_evaluation_and_as_its_record(folder):
    trained = run_quietly(
        "sae", "train", "--dataset", "corpus", "--d-sae", 24, "--k", 4, "--batch-tokens", 64, "--layer", LAYER,
        "--workspace", folder / "w",
    )  # fmt: skip
    session = session_on(folder)
    [row] = rows_of(session, trained["sae_id"])
    measures = json.loads(row["measures"])
    assert (row["kind"], row["dataset"], measures["fvu"]) == ("heldout", "corpus", trained["fvu"])
    assert sum(measures["density_counts"]["counts"]) + trained["dead"] == 24
    health = sae_quality.evaluate(session, trained["sae_id"], "corpus", health=True)["health"]
    assert health["recorded_fvu"] == trained["fvu"]
