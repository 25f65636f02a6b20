"""SAELens architectures and training checkpoints beyond facviz's own exports, against that library's formulas."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from facviz.errors import SaeError
from facviz.sae.formats import load_sae, recognise
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, LayerNorm, SaeWeights

D_IN, D_SAE, K, SCALE = 6, 12, 3, 0.25
ARCHITECTURES = ("standard", "topk", "jumprelu", "gated", "batchtopk", "matryoshka_batchtopk")
TRAINED = ("batchtopk", "matryoshka_batchtopk")


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = 5 * randn(40, D_IN, seed=9) + 1


def tensors_of(architecture, dtype=torch.float32):
    """Exactly what the library stores, with nonzero biases and decoder rows of any length."""
    tensors = {
        "W_enc": randn(D_IN, D_SAE, seed=0),
        "W_dec": 2 * randn(D_SAE, D_IN, seed=2),
        "b_dec": randn(D_IN, seed=3),
    }
    if architecture == "gated":
        tensors |= {key: randn(D_SAE, seed=seed) for key, seed in (("r_mag", 5), ("b_gate", 6), ("b_mag", 7))}
    else:
        tensors["b_enc"] = randn(D_SAE, seed=1) - 1
    if architecture == "jumprelu":
        tensors["threshold"] = randn(D_SAE, seed=5).abs()
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    return tensors | ({"topk_threshold": torch.tensor(0.7, dtype=torch.float64)} if architecture in TRAINED else {})


def write(folder, architecture="standard", cfg=None, tensors=None, dtype=torch.float32):
    """One v6 folder; a None removes a key."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architecture": architecture, "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu"}
    config |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    config |= {"k": K} if architecture == "topk" else {}
    config |= {"metadata": {"model_name": "m", "hook_name": "blocks.4.hook_resid_post", "context_size": 64}}
    config |= cfg or {}
    stored = tensors_of(architecture, dtype) | (tensors or {})
    (folder / "cfg.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    save_file({k: v for k, v in stored.items() if v is not None}, folder / "sae_weights.safetensors")
    return folder


def reference(x, architecture, stored, *, norm="none", rescale=False, scale=SCALE, pre_bias=True):
    """Their process_sae_in, encode and decode; a scaled input is what their trainer feeds and undoes outside."""
    w = {name: tensor.float() for name, tensor in stored.items()}
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    given = {"none": x, "layer_norm": (x - mean) / (std + 1e-5), "expected_average_only_in": x * scale}[norm]
    given = given - w["b_dec"] if pre_bias else given
    norms = w["W_dec"].norm(dim=1) if rescale else torch.ones(D_SAE)
    if architecture == "gated":
        pre = given @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]
        acts = (given @ w["W_enc"] + w["b_gate"] > 0) * torch.relu(pre)
    else:
        pre = (given @ w["W_enc"] + w["b_enc"]) * norms
        acts = torch.relu(pre)
    if architecture == "topk":
        top = pre.topk(K, dim=-1)
        acts = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
    elif architecture in ("jumprelu", *TRAINED):
        acts = acts * (pre > w.get("threshold", w.get("topk_threshold")))
    out = (acts / norms) @ w["W_dec"] + w["b_dec"]
    return acts, {"none": out, "layer_norm": out * std + mean, "expected_average_only_in": out / scale}[norm]


def agrees(sae, acts, reconstruction):
    assert_close(sae.encode_dense(X), acts, rtol=1e-5, atol=1e-5)
    assert_close(sae.reconstruct(X), reconstruction, rtol=1e-5, atol=1e-5)
    assert 0 < (acts > 0).float().mean() < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_and_reconstructions_are_those_of_saelens(tmp_path, architecture, dtype):
    sae = load_sae(write(tmp_path, architecture, dtype=dtype))
    agrees(sae, *reference(X, architecture, tensors_of(architecture, dtype)))


@pytest.mark.parametrize("pre_bias", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layer_normalised_tokens_are_normalised_and_restored(tmp_path, architecture, pre_bias):
    cfg = {"normalize_activations": "layer_norm", "apply_b_dec_to_input": pre_bias}
    sae = load_sae(write(tmp_path, architecture, cfg))
    agrees(sae, *reference(X, architecture, tensors_of(architecture), norm="layer_norm", pre_bias=pre_bias))
    copy = load_sae(sae.save(tmp_path / "export"))
    assert torch.equal(copy.reconstruct(X), sae.reconstruct(X))


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "batchtopk"])
def test_activations_rescaled_by_decoder_norms_are_folded(tmp_path, architecture):
    sae = load_sae(write(tmp_path, architecture, {"rescale_acts_by_decoder_norm": True}))
    agrees(sae, *reference(X, architecture, tensors_of(architecture), rescale=True))
    assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE))
    assert any("norms of their decoder rows" in note for note in sae.weights.provenance["notes"])


@pytest.mark.parametrize("where", ["activation_scaler.json", "norm_scaling_factor", "scaling_factor"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stored_scale_of_the_input_is_folded(tmp_path, architecture, where):
    norm = "expected_average_only_in"
    cfg = {"normalize_activations": norm} | ({} if where.endswith(".json") else {where: SCALE})
    folder = write(tmp_path, architecture, cfg)
    if where.endswith(".json"):
        (folder / where).write_text(json.dumps({"scaling_factor": SCALE}))
    sae = load_sae(folder)
    agrees(sae, *reference(X, architecture, tensors_of(architecture), norm=norm))
    assert any("scale 0.25 of the input" in note for note in sae.weights.provenance["notes"])


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "batchtopk"])
def test_a_scale_folded_together_with_decoder_norms_scales_features_and_threshold_alike(tmp_path, architecture):
    norm = "expected_average_only_in"
    cfg = {"normalize_activations": norm, "rescale_acts_by_decoder_norm": True, "norm_scaling_factor": SCALE}
    sae = load_sae(write(tmp_path, architecture, cfg))
    acts, reconstruction = reference(X, architecture, tensors_of(architecture), norm=norm, rescale=True)
    agrees(sae, acts / SCALE, reconstruction)
    assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE))


@pytest.mark.parametrize(
    "scaler", [None, {}, {"scaling_factor": None}, {"scaling_factor": -1}, {"scaling_factor": "2"}]
)
def test_a_scale_of_the_input_that_is_stored_nowhere_is_refused(tmp_path, scaler):
    folder = write(tmp_path, "topk", {"normalize_activations": "expected_average_only_in"})
    if scaler is not None:
        (folder / "activation_scaler.json").write_text(json.dumps(scaler))
    with pytest.raises(SaeError, match=r"scales its input .* by a factor that it does not state"):
        load_sae(folder)


def test_a_training_checkpoint_with_logarithmic_thresholds_is_read(tmp_path):
    stored = tensors_of("jumprelu")
    logarithm = {"log_threshold": stored["threshold"].log(), "threshold": None}
    sae = load_sae(write(tmp_path, "jumprelu", tensors=logarithm))
    agrees(sae, *reference(X, "jumprelu", stored))
    assert any("logarithm" in note for note in sae.weights.provenance["notes"])


@pytest.mark.parametrize("architecture", ["gated", "jumprelu"])
def test_a_flat_configuration_from_before_version_six_loads(tmp_path, architecture):
    flat = {"metadata": None, "hook_point": "blocks.4.hook_resid_pre", "activation_fn_str": "relu"}
    flat |= {"normalize_activations": False, "activation_fn_kwargs": {}, "model_name": "m", "context_size": 64}
    sae = load_sae(write(tmp_path, architecture, flat))
    agrees(sae, *reference(X, architecture, tensors_of(architecture)))
    assert sae.metadata == {"model_name": "m", "hook_name": "blocks.4.hook_resid_pre", "context_size": 64, "layer": 4}


def test_the_sparsity_beside_the_weights_is_ignored(tmp_path):
    folder = write(tmp_path)
    save_file({"sparsity": torch.zeros(D_SAE)}, folder / "sparsity.safetensors")
    agrees(load_sae(folder), *reference(X, "standard", tensors_of("standard")))


def test_the_format_is_recognised_and_provenance_says_by_what(tmp_path):
    folder = write(tmp_path, "gated")
    assert recognise(folder) == ("saelens", "cfg.json beside sae_weights.safetensors")
    provenance = load_sae(folder).weights.provenance
    assert (provenance["format"], provenance["recognised_by"]) == recognise(folder)
    assert provenance["notes"] == ["the gate is folded into a threshold per feature"]


def test_a_gated_sae_is_exported_as_a_jumprelu_one_that_does_the_same(tmp_path):
    sae = load_sae(write(tmp_path / "gated", "gated"))
    copy = load_sae(sae.save(tmp_path / "export"))
    assert copy.architecture == "jumprelu"
    agrees(copy, *reference(X, "gated", tensors_of("gated")))


def test_what_saelens_cannot_hold_is_not_exported(tmp_path):
    group = SaeWeights(torch.ones(2, 4), torch.zeros(4), None, torch.zeros(2), Activation("groupmax", k=2))
    norm = LayerNorm(unbiased=False)
    other = SaeWeights(torch.ones(2, 4), torch.zeros(4), None, torch.zeros(2), Activation("relu"), input_norm=norm)
    for weights, words in ((group, "groupmax"), (other, "normalises tokens in another way")):
        with pytest.raises(SaeError, match=words):
            SAE(weights).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_provenance_of_an_odd_shape_in_a_file_does_no_harm(tmp_path):
    metadata = {"hook_name": "blocks.4.hook_resid_post", "layer": "many", "facviz": {"provenance": {"config": 5}}}
    sae = load_sae(write(tmp_path, cfg={"metadata": metadata}))
    assert sae.metadata["layer"] == 5
    assert load_sae(sae.save(tmp_path / "export")).metadata["layer"] == 5
    metadata["facviz"] = {"provenance": [1]}
    assert load_sae(write(tmp_path, cfg={"metadata": metadata})).weights.provenance["format"] == "saelens"


@pytest.mark.parametrize(
    ("architecture", "cfg", "tensors", "words"),
    [
        ("temporal", {}, {}, "architecture 'temporal'"),
        ("abstopk", {}, {}, "abstopk"),
        ("transcoder", {}, {}, "architecture 'transcoder'"),
        ("skip_transcoder", {}, {"W_skip": torch.zeros(D_IN, D_IN)}, "skip_transcoder"),
        ("standard", {"d_out": D_IN + 1}, {}, "is a transcoder"),
        ("standard", {"is_transcoder": True}, {}, "is a transcoder"),
        ("standard", {"normalize_activations": "constant_norm_rescale"}, {}, "constant_norm_rescale"),
        ("standard", {"normalize_activations": {"kind": 1}}, {}, "normalises its input"),
        ("standard", {"reshape_activations": "hook_z"}, {}, "hook_z"),
        ("jumprelu", {"activation_fn": "tanh-relu"}, {}, "tanh-relu"),
        ("gated", {"rescale_acts_by_decoder_norm": True}, {}, "rescales gated activations"),
        ("gated", {}, {"b_enc": torch.zeros(D_SAE)}, "b_enc"),
        ("gated", {}, {"r_mag": None}, "lacks the tensor r_mag"),
        ("gated", {}, {"r_mag": torch.full((D_SAE,), 1e3)}, "NaN or infinite"),
        ("jumprelu", {}, {"threshold": None}, "lacks the tensor threshold"),
        ("jumprelu", {}, {"log_threshold": torch.zeros(D_SAE)}, "threshold"),
        ("batchtopk", {}, {"topk_threshold": torch.zeros(D_SAE)}, "topk_threshold has shape"),
        ("batchtopk", {}, {"topk_threshold": None}, "lacks the tensor topk_threshold"),
        ("standard", {}, {"W_dec": torch.zeros(D_IN, D_SAE)}, "W_dec has shape"),
        ("standard", {}, {"b_dec": torch.full((D_IN,), torch.nan)}, "NaN"),
    ],
)
def test_what_cannot_be_expressed_is_refused_in_one_sentence_that_names_the_file(
    tmp_path, architecture, cfg, tensors, words
):
    folder = write(tmp_path, architecture, cfg, tensors)
    with pytest.raises(SaeError, match=words) as error:
        load_sae(folder)
    message = str(error.value)
    assert str(folder) in message
    assert message.endswith(".")
    assert "\n" not in message


def test_pickled_and_truncated_weights_are_refused(tmp_path):
    weights = write(tmp_path) / "sae_weights.safetensors"
    whole = weights.read_bytes()
    huge = (2**60).to_bytes(8, "little") + whole[8:]
    for content in (pickle.dumps({"W_enc": [1.0]}), whole[:-40], huge, b""):
        weights.write_bytes(content)
        with pytest.raises(SaeError, match=r"sae_weights\.safetensors is (no|not a) whole safetensors file"):
            load_sae(tmp_path)


def pursuit_cfg(**settings):
    """As SAELens 6.54 writes a MatchingPursuitSAE."""
    cfg = {"architecture": "matching_pursuit", "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu"}
    cfg |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    return cfg | {"residual_threshold": 0.0, "max_iterations": 3, "stop_on_duplicate_support": False} | settings


def write_pursuit(folder, **settings):
    rows = torch.nn.functional.normalize(randn(D_SAE, D_IN, seed=0), dim=1)
    folder.mkdir()
    save_file({"W_dec": rows, "b_dec": randn(D_IN, seed=1)}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(pursuit_cfg(**settings)))
    return rows, randn(D_IN, seed=1)


def test_a_pursuit_loads_as_saelens_stores_it_and_is_saved_alike(tmp_path):
    rows, b_dec = write_pursuit(tmp_path / "in")
    sae = load_sae(tmp_path / "in")
    assert sae.architecture == "matching_pursuit"
    left, acts = X - b_dec, torch.zeros(len(X), D_SAE)
    for _ in range(3):
        best = (left @ rows.T).argmax(1, keepdim=True)
        value = (left * rows[best[:, 0]]).sum(1, keepdim=True).relu()
        acts.scatter_add_(1, best, value)
        left = left - value * rows[best[:, 0]]
    assert_close(sae.encode_dense(X), acts, rtol=1e-5, atol=1e-5)
    assert_close(sae.reconstruct(X), X - left, rtol=1e-5, atol=1e-5)
    saved = sae.save(tmp_path / "out")
    assert set(load_file(saved / "sae_weights.safetensors")) == {"W_dec", "b_dec"}
    cfg = json.loads((saved / "cfg.json").read_text())
    assert {key: cfg[key] for key in pursuit_cfg()} == pursuit_cfg()


@pytest.mark.parametrize("settings", [{"residual_threshold": 0.01}, {"stop_on_duplicate_support": True}])
def test_a_pursuit_that_ends_by_itself_is_refused(tmp_path, settings):
    write_pursuit(tmp_path / "in", **settings)
    with pytest.raises(SaeError, match="fixed number of steps"):
        load_sae(tmp_path / "in")
