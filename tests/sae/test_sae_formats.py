"""SAELens folders: round trips, foreign variants against a dense reference, and refusals in words."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import facviz
from facviz.errors import SaeError, WorkspaceError
from facviz.sae.formats import load_sae, saelens
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights

D_IN, D_SAE, K = 6, 10, 3
ACTIVATIONS = {
    "standard": Activation("relu"),
    "topk": Activation("topk", k=K),
    "jumprelu": Activation("jumprelu", threshold=torch.linspace(0.0, 1.0, D_SAE)),
}


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_sae(architecture="topk", *, tied=False, **metadata):
    weights = SaeWeights(
        W_enc=randn(D_IN, D_SAE, seed=0),
        b_enc=randn(D_SAE, seed=1),
        W_dec=None if tied else randn(D_SAE, D_IN, seed=2),
        b_dec=randn(D_IN, seed=3),
        activation=ACTIVATIONS[architecture],
        provenance={"trainer": "facviz", "config": {"architecture": "batchtopk"}},
    )
    return SAE(weights, metadata)


def make_folder(folder, cfg=None, tensors=None, architecture="topk"):
    """A foreign folder: written by hand, then changed; a None removes a key."""
    make_sae(architecture).save(folder)
    config = json.loads((folder / "cfg.json").read_text()) | (cfg or {})
    stored = load_file(folder / "sae_weights.safetensors") | (tensors or {})
    (folder / "cfg.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    save_file({k: v for k, v in stored.items() if v is not None}, folder / "sae_weights.safetensors")
    return folder


X = randn(30, D_IN, seed=4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ACTIVATIONS)
def test_a_saved_sae_loads_with_the_same_codes_and_metadata(tmp_path, architecture, tied):
    sae = make_sae(architecture, tied=tied, model_name="m", layer=15)
    folder = sae.save(tmp_path / "a" / "b")
    loaded = load_sae(folder)
    assert (loaded.d_in, loaded.d_sae, loaded.architecture) == (D_IN, D_SAE, architecture)
    assert torch.equal(loaded.encode_dense(X), sae.encode_dense(X))
    assert torch.equal(loaded.reconstruct(X), sae.reconstruct(X))
    assert loaded.metadata["model_name"] == "m"
    assert loaded.metadata["layer"] == 15
    assert loaded.weights.provenance == sae.weights.provenance


def test_the_written_files_hold_exactly_what_saelens_reads(tmp_path):
    make_sae("jumprelu", layer=15).save(tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    assert {name: tuple(t.shape) for name, t in load_file(tmp_path / "sae_weights.safetensors").items()} == {
        "W_enc": (D_IN, D_SAE),
        "W_dec": (D_SAE, D_IN),
        "b_enc": (D_SAE,),
        "b_dec": (D_IN,),
        "threshold": (D_SAE,),
    }
    assert cfg["architecture"] == "jumprelu"
    assert cfg["apply_b_dec_to_input"] is True
    assert cfg["normalize_activations"] == cfg["reshape_activations"] == "none"
    assert cfg["metadata"]["hook_name"] == "blocks.14.hook_resid_post"
    assert cfg["metadata"]["training_architecture"] == "batchtopk"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cfg.json", "sae_weights.safetensors"]


@pytest.mark.parametrize("architecture", ACTIVATIONS)
def test_exports_open_in_saelens(tmp_path, architecture):
    sae_lens = pytest.importorskip("sae_lens")
    sae = make_sae(architecture)
    theirs = sae_lens.SAE.load_from_disk(str(sae.save(tmp_path)))
    assert_close(theirs.encode(X), sae.encode_dense(X), rtol=1e-5, atol=1e-5)
    assert_close(theirs(X), sae.reconstruct(X), rtol=1e-5, atol=1e-5)


def test_half_precision_files_are_smaller_and_keep_the_threshold_exact(tmp_path):
    sae = make_sae("jumprelu")
    sae.save(tmp_path / "half", half_precision=True)
    loaded = load_sae(tmp_path / "half")
    assert torch.equal(loaded.weights.W_enc, sae.weights.W_enc.half().float())
    assert torch.equal(loaded.weights.activation.threshold, sae.weights.activation.threshold)
    huge = SAE(SaeWeights(torch.full((2, 2), 1e6), torch.zeros(2), None, torch.zeros(2), Activation("relu")))
    with pytest.raises(SaeError, match="float16"):
        huge.save(tmp_path / "huge", half_precision=True)


def test_layers_and_hook_names_name_the_same_hidden_state():
    assert [saelens.hook_name_of(layer) for layer in (0, 1, 16)] == [
        "blocks.0.hook_resid_pre",
        "blocks.0.hook_resid_post",
        "blocks.15.hook_resid_post",
    ]
    assert all(saelens.layer_of(saelens.hook_name_of(layer)) == layer for layer in range(30))
    assert saelens.layer_of("blocks.7.hook_resid_pre") == 7
    assert saelens.layer_of("blocks.7.hook_mlp_out") is None


def test_either_file_or_the_folder_may_be_given(tmp_path):
    make_sae().save(tmp_path)
    for path in (tmp_path, tmp_path / "cfg.json", tmp_path / "sae_weights.safetensors"):
        assert load_sae(path).d_sae == D_SAE


def test_rescaling_by_decoder_norms_is_folded(tmp_path):
    folder = make_folder(tmp_path, {"rescale_acts_by_decoder_norm": True})
    w = make_sae().weights
    norms = w.W_dec.norm(dim=1)
    pre = ((X - w.b_dec) @ w.W_enc + w.b_enc) * norms
    top = pre.topk(K, dim=1)
    acts = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    loaded = load_sae(folder)
    assert_close(loaded.encode_dense(X), acts, rtol=1e-5, atol=1e-5)
    assert_close(loaded.reconstruct(X), (acts / norms) @ w.W_dec + w.b_dec, rtol=1e-5, atol=1e-5)
    assert loaded.weights.provenance


def test_without_pre_bias_the_encoder_sees_the_raw_input(tmp_path):
    folder = make_folder(tmp_path, {"apply_b_dec_to_input": False}, architecture="standard")
    w = make_sae("standard").weights
    assert_close(load_sae(folder).encode_dense(X), (X @ w.W_enc + w.b_enc).relu(), rtol=1e-5, atol=1e-5)


def test_a_flat_configuration_from_before_version_six_loads(tmp_path):
    old = {"architecture": "standard", "k": None, "metadata": None, "activation_fn_str": "topk"}
    old |= {"activation_fn_kwargs": {"k": K}, "hook_point": "blocks.4.hook_resid_post", "normalize_activations": False}
    folder = make_folder(tmp_path, old, {"scaling_factor": torch.ones(D_SAE)})
    loaded = load_sae(folder)
    assert torch.equal(loaded.encode_dense(X), make_sae("topk").encode_dense(X))
    assert loaded.metadata["layer"] == 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_files_load_as_float32(tmp_path, dtype):
    reduced = randn(D_IN, D_SAE, seed=0).to(dtype)
    loaded = load_sae(make_folder(tmp_path, tensors={"W_enc": reduced}))
    assert torch.equal(loaded.weights.W_enc, reduced.float())


@pytest.mark.parametrize(
    ("cfg", "tensors", "words"),
    [
        ({"normalize_activations": "covariance"}, {}, "normalises its input .covariance."),
        ({"normalize_activations": "constant_norm_rescale"}, {}, "constant_norm_rescale"),
        ({"normalize_activations": True}, {}, "expected_average_only_in"),
        ({"reshape_activations": "hook_z"}, {}, "hook_z"),
        ({"architecture": "abstopk"}, {}, "abstopk"),
        ({"architecture": "standard", "activation_fn": "tanh-relu"}, {}, "tanh-relu"),
        ({"architecture": "jumprelu"}, {}, "lacks the tensor threshold"),
        ({"k": None}, {}, "k between"),
        ({"k": D_SAE + 1}, {}, "k between"),
        ({"d_in": None}, {}, "d_in and d_sae"),
        ({"d_sae": "10"}, {}, "d_in and d_sae"),
        ({"d_sae": D_SAE + 1}, {}, "has shape"),
        ({}, {"W_skip": torch.zeros(D_IN, D_IN)}, "W_skip"),
        ({}, {"W_dec": None}, "lacks the tensor W_dec"),
        ({}, {"W_dec": torch.zeros(D_IN, D_SAE)}, "W_dec has shape"),
        ({}, {"b_enc": torch.full((D_SAE,), torch.nan)}, "NaN"),
        ({}, {"scaling_factor": torch.full((D_SAE,), 2.0)}, "scaling factors"),
    ],
)
def test_what_cannot_be_expressed_is_refused_in_one_sentence(tmp_path, cfg, tensors, words):
    folder = make_folder(tmp_path, cfg, tensors)
    with pytest.raises(SaeError, match=words) as error:
        load_sae(folder)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"])
def test_damaged_weights_are_refused(tmp_path, content):
    folder = make_folder(tmp_path)
    (folder / "sae_weights.safetensors").write_bytes(content)
    with pytest.raises(SaeError, match=r"safetensors|lacks"):
        load_sae(folder)


def test_a_truncated_file_is_refused(tmp_path):
    weights = make_folder(tmp_path) / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SaeError, match="whole safetensors"):
        load_sae(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\ufeff{}"])
def test_a_damaged_configuration_is_refused(tmp_path, text):
    (make_folder(tmp_path) / "cfg.json").write_text(text, encoding="utf-8")
    with pytest.raises(SaeError, match=r"cfg\.json"):
        load_sae(tmp_path)


def test_missing_paths_files_and_formats_are_named(tmp_path):
    with pytest.raises(SaeError, match="no SAE at"):
        load_sae(tmp_path / "nowhere")
    with pytest.raises(SaeError, match=r"no known SAE format; known: .*saelens"):
        load_sae(tmp_path)
    with pytest.raises(SaeError, match="format 'pickle' is unknown"):
        load_sae(tmp_path, format="pickle")
    with pytest.raises(SaeError, match=r"no cfg\.json"):
        load_sae(tmp_path, format="saelens")
    make_folder(tmp_path)
    (tmp_path / "sae_weights.safetensors").unlink()
    with pytest.raises(SaeError, match="no sae_weights"):
        load_sae(tmp_path, format="saelens")


def test_a_failed_save_keeps_the_old_sae(tmp_path, monkeypatch):
    make_sae("topk").save(tmp_path)

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saelens, "write_tensors", full_disk)
    with pytest.raises(WorkspaceError, match="No space left"):
        make_sae("standard").save(tmp_path)
    assert load_sae(tmp_path).architecture == "topk"
    assert not list(tmp_path.glob("*.tmp"))


def test_a_save_killed_between_its_files_leaves_no_mixture(tmp_path, monkeypatch):
    make_sae("topk").save(tmp_path)
    replace = type(tmp_path).replace

    def die_at_the_configuration(self, target):
        if target.name == "cfg.json":
            raise OSError("killed")
        return replace(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", die_at_the_configuration)
    with pytest.raises(WorkspaceError, match="killed"):
        make_sae("standard").save(tmp_path)
    with pytest.raises(SaeError, match="no known SAE format"):
        load_sae(tmp_path)


def test_the_front_door_offers_loading():
    assert facviz.load_sae is load_sae
    assert facviz.SAE is SAE
