"""dictionary_learning checkpoints of every class against that library's own formulas, and what they may not be."""

import json
import pickle

import pytest
import torch
from torch.nn.functional import linear
from torch.testing import assert_close

from facviz.errors import SaeError
from facviz.sae.formats import FORMATS, load_sae, recognise

D_IN, D_SAE, K = 6, 12, 3
CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)
BUFFER = {"d_submodule": D_IN, "io": "out", "ctx_len": 128}


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = 3 * randn(40, D_IN, seed=9)


def state_of(name, threshold=0.7, dtype=torch.float32):
    """Exactly the keys and shapes of the class; nonzero biases and decoder rows of any length."""
    linears = {"encoder.weight": randn(D_SAE, D_IN, seed=0), "decoder.weight": 2 * randn(D_IN, D_SAE, seed=2)}
    bias = {"encoder.bias": randn(D_SAE, seed=1) - 1}
    matrices = {"W_enc": randn(D_IN, D_SAE, seed=0), "W_dec": 2 * randn(D_SAE, D_IN, seed=2)}
    matrices |= {"b_enc": randn(D_SAE, seed=1) - 1, "b_dec": randn(D_IN, seed=3)}
    numbers = {"k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(threshold)}
    gates = {key: randn(D_SAE, seed=seed) for key, seed in (("r_mag", 5), ("gate_bias", 6), ("mag_bias", 7))}
    state = {
        "AutoEncoder": {"bias": randn(D_IN, seed=3)} | linears | bias,
        "AutoEncoderNew": linears | bias | {"decoder.bias": randn(D_IN, seed=3)},
        "GatedAutoEncoder": {"decoder_bias": randn(D_IN, seed=3)} | linears | gates,
        "JumpReluAutoEncoder": matrices | {"threshold": randn(D_SAE, seed=5).abs()},
        "AutoEncoderTopK": numbers | linears | bias | {"b_dec": randn(D_IN, seed=3)},
        "BatchTopKSAE": numbers | linears | bias | {"b_dec": randn(D_IN, seed=3)},
        "MatryoshkaBatchTopKSAE": matrices | numbers | {"group_sizes": torch.tensor([4, 8])},
    }[name]
    return {
        key: tensor if tensor.ndim == 0 or key == "group_sizes" else tensor.to(dtype) for key, tensor in state.items()
    }


def write(folder, name="AutoEncoderTopK", state=None, config=True, file="ae.pt", **trainer):
    """One trainer's folder; a None in `state` removes a tensor."""
    stored = state_of(name) | (state or {})
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({key: value for key, value in stored.items() if value is not None}, path)
    if config:
        described = {"dict_class": name, "lm_name": "m", "layer": 3, "submodule_name": "resid_post_layer_3"}
        described |= {"activation_dim": D_IN, "dict_size": D_SAE, "k": K} | trainer
        (folder / "config.json").write_text(json.dumps({"trainer": described, "buffer": BUFFER}))
    return folder


def top(values, k):
    best = values.topk(k, dim=-1)
    return torch.zeros_like(values).scatter(-1, best.indices, best.values)


def reference(x, name, state):
    """The default `encode` of the class (features of the ReLU classes × decoder norm), and its reconstruction."""
    w = {key: tensor.float() for key, tensor in state.items()}
    if name in ("AutoEncoder", "AutoEncoderNew"):
        bias = w.get("bias", torch.zeros(D_IN))
        raw = torch.relu(linear(x - bias, w["encoder.weight"], w["encoder.bias"]))
        return raw * w["decoder.weight"].norm(dim=0), linear(raw, w["decoder.weight"], w.get("decoder.bias", bias))
    if name == "GatedAutoEncoder":
        pre = linear(x - w["decoder_bias"], w["encoder.weight"])
        acts = (pre + w["gate_bias"] > 0) * torch.relu(w["r_mag"].exp() * pre + w["mag_bias"])
        return acts, linear(acts, w["decoder.weight"], w["decoder_bias"])
    if name == "JumpReluAutoEncoder":
        pre = x @ w["W_enc"] + w["b_enc"]
        acts = torch.relu(pre * (pre > w["threshold"]))
        return acts, acts @ w["W_dec"] + w["b_dec"]
    matryoshka = name == "MatryoshkaBatchTopKSAE"
    encoder, decoder = (w["W_enc"].T, w["W_dec"]) if matryoshka else (w["encoder.weight"], w["decoder.weight"].T)
    post = torch.relu(linear(x - w["b_dec"], encoder, w["b_enc" if matryoshka else "encoder.bias"]))
    by_threshold = name != "AutoEncoderTopK" and w["threshold"] >= 0
    acts = post * (post > w["threshold"]) if by_threshold else top(post, K)
    return acts, acts @ decoder + w["b_dec"]


def agrees(sae, acts, reconstruction):
    assert_close(sae.encode_dense(X), acts, rtol=1e-5, atol=1e-5)
    assert_close(sae.reconstruct(X), reconstruction, rtol=1e-5, atol=1e-5)
    assert 0 < (acts > 0).float().mean() < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CLASSES)
def test_features_and_reconstructions_are_those_of_the_class(tmp_path, name, dtype):
    state = state_of(name, dtype=dtype)
    sae = load_sae(write(tmp_path, name, state))
    agrees(sae, *reference(X, name, state))
    assert sae.weights.provenance["class"] == name


def test_topk_keeps_k_features_where_batchtopk_with_the_same_tensors_goes_by_the_threshold(tmp_path):
    topk = load_sae(write(tmp_path / "topk", "AutoEncoderTopK"))
    batch = load_sae(write(tmp_path / "batch", "BatchTopKSAE"))
    assert (topk.architecture, batch.architecture) == ("topk", "jumprelu")
    assert not torch.equal(topk.encode_dense(X), batch.encode_dense(X))


@pytest.mark.parametrize("name", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_an_unset_threshold_means_top_k_of_each_token_and_provenance_says_so(tmp_path, name):
    state = state_of(name, threshold=-1.0)
    sae = load_sae(write(tmp_path, name, state))
    agrees(sae, *reference(X, name, state))
    assert any("no threshold has been set" in note for note in sae.weights.provenance["notes"])


def test_an_older_topk_file_takes_its_k_from_the_configuration(tmp_path):
    sae = load_sae(write(tmp_path, "AutoEncoderTopK", {"k": None, "threshold": None}))
    agrees(sae, *reference(X, "AutoEncoderTopK", state_of("AutoEncoderTopK")))
    assert any("k is that of config.json" in note for note in sae.weights.provenance["notes"])


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in ("AutoEncoderTopK", "BatchTopKSAE")])
def test_without_a_configuration_the_class_is_inferred_where_the_tensors_tell_it(tmp_path, name):
    sae = load_sae(write(tmp_path, name, config=False))
    agrees(sae, *reference(X, name, state_of(name)))
    assert any(f"the class {name} is inferred" in note for note in sae.weights.provenance["notes"])


@pytest.mark.parametrize("name", ["AutoEncoderTopK", "BatchTopKSAE"])
def test_without_a_configuration_topk_and_batchtopk_cannot_be_told_apart(tmp_path, name):
    with pytest.raises(SaeError, match=r"ae\.pt do not tell its class; put the run's config\.json beside it\."):
        load_sae(write(tmp_path, name, config=False))


@pytest.mark.parametrize("name", CLASSES)
def test_a_mid_run_backup_gives_what_its_training_saw_in_units_of_the_model(tmp_path, name):
    state, factor = state_of(name), 4.0
    backup = {"step": 700, "ae": state, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}}
    backup |= {"config": {"dict_class": name, "lm_name": "m"}, "norm_factor": factor}
    torch.save(backup, tmp_path / "ae.pt")
    acts, reconstruction = reference(X / factor, name, state)
    sae = load_sae(tmp_path)
    assert_close(sae.encode_dense(X), acts * factor, rtol=1e-5, atol=1e-5)
    assert_close(sae.reconstruct(X), reconstruction * factor, rtol=1e-5, atol=1e-5)
    notes = " ".join(sae.weights.provenance["notes"])
    assert "training step 700" in notes
    assert "norm_factor 4" in notes


def test_a_norm_factor_in_the_configuration_has_been_applied_and_is_not_applied_again(tmp_path):
    sae = load_sae(write(tmp_path, "AutoEncoder", norm_factor=4.0))
    agrees(sae, *reference(X, "AutoEncoder", state_of("AutoEncoder")))


def test_a_backup_with_a_senseless_norm_factor_is_refused(tmp_path):
    backup = {"step": 1, "ae": state_of("AutoEncoder"), "optimizer": {}, "config": {}, "norm_factor": float("nan")}
    torch.save(backup, tmp_path / "ae.pt")
    with pytest.raises(SaeError, match=r"ae\.pt has a norm_factor that is not a positive number"):
        load_sae(tmp_path)


def test_the_format_is_recognised_and_provenance_says_by_what(tmp_path):
    folder = write(tmp_path / "trainer_0")
    assert recognise(folder) == ("dictionary_learning", "ae.pt")
    assert recognise(folder / "ae.pt") == ("dictionary_learning", "a file named ae.pt")
    provenance = load_sae(folder).weights.provenance
    assert (provenance["format"], provenance["recognised_by"]) == ("dictionary_learning", "ae.pt")
    assert FORMATS["dictionary_learning"].sniff(tmp_path) == ""
    assert FORMATS["dictionary_learning"].sniff(folder / "config.json") == ""


def test_a_training_checkpoint_uses_the_configuration_of_its_run(tmp_path):
    file = write(tmp_path, "BatchTopKSAE", file="checkpoints/ae_500.pt") / "checkpoints" / "ae_500.pt"
    expected = reference(X, "BatchTopKSAE", state_of("BatchTopKSAE"))
    for path in (file, tmp_path, tmp_path / "checkpoints"):
        agrees(load_sae(path), *expected)
    write(tmp_path, "BatchTopKSAE", file="checkpoints/ae_900.pt")
    with pytest.raises(SaeError, match=r"2 training checkpoints and no ae\.pt; give one of checkpoints/ae_500\.pt"):
        load_sae(tmp_path)


def test_only_residual_outputs_give_a_layer(tmp_path):
    metadata = {"model_name": "m", "hook_name": "resid_post_layer_3", "context_size": 128, "layer": 4}
    assert load_sae(write(tmp_path)).metadata == metadata
    assert "layer" not in load_sae(write(tmp_path, submodule_name="mlp_layer_3")).metadata
    assert "layer" not in load_sae(write(tmp_path, submodule_name=None)).metadata


@pytest.mark.parametrize(
    ("name", "state", "trainer", "words"),
    [
        ("AutoEncoder", {}, {"dict_class": "CrossCoder"}, "class 'CrossCoder'"),
        ("AutoEncoder", {}, {"dict_class": "AutoEncoderNew"}, r"lacks the tensor decoder\.bias"),
        ("AutoEncoder", {"decoder.weight": None}, {}, r"lacks the tensor decoder\.weight"),
        ("AutoEncoder", {"encoder.weight": None}, {}, r"lacks the tensor encoder\.weight"),
        ("AutoEncoder", {"W_skip": torch.zeros(D_IN, D_IN)}, {}, "W_skip"),
        ("AutoEncoder", {"group_sizes": torch.tensor([1])}, {}, "group_sizes"),
        ("AutoEncoder", {"decoder.weight": torch.zeros(D_SAE, D_IN)}, {}, r"decoder\.weight has shape"),
        ("AutoEncoder", {"encoder.weight": torch.zeros(D_SAE)}, {}, "has shape"),
        ("AutoEncoder", {"bias": torch.full((D_IN,), torch.nan)}, {}, "NaN"),
        ("JumpReluAutoEncoder", {"threshold": None}, {}, "lacks the tensor threshold"),
        ("JumpReluAutoEncoder", {"threshold": torch.tensor(1.0)}, {}, "threshold has shape"),
        ("GatedAutoEncoder", {"r_mag": torch.full((D_SAE,), 1e3)}, {}, "NaN or infinite"),
        ("AutoEncoderTopK", {"k": torch.tensor(0)}, {}, "k between"),
        ("AutoEncoderTopK", {"k": None}, {"k": None}, "k between"),
        ("AutoEncoderTopK", {"encoder.bias": "text"}, {}, "table of tensors"),
    ],
)
def test_what_cannot_be_expressed_is_refused_in_one_sentence_that_names_the_file(tmp_path, name, state, trainer, words):
    folder = write(tmp_path, name, state, **trainer)
    with pytest.raises(SaeError, match=words) as error:
        load_sae(folder)
    message = str(error.value)
    assert str(folder / "ae.pt") in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"trainer": {"dict_class": "AutoEncoderTopK"}, "buffer": {"io": "in_and_out"}}, "is a transcoder"),
        ({"trainer": []}, "no configuration of dictionary_learning"),
        ([1], "holds no JSON object"),
    ],
)
def test_another_configuration_is_refused(tmp_path, config, words):
    (write(tmp_path) / "config.json").write_text(json.dumps(config))
    with pytest.raises(SaeError, match=words):
        load_sae(tmp_path)


class Loud:
    def __reduce__(self):
        return print, ("executed",)


def test_pickles_and_truncated_files_are_refused_and_execute_nothing(tmp_path, capsys):
    weights = write(tmp_path) / "ae.pt"
    whole = weights.read_bytes()
    for content in (pickle.dumps(Loud()), whole[: len(whole) // 2], b""):
        weights.write_bytes(content)
        with pytest.raises(SaeError, match=r"ae\.pt"):
            load_sae(tmp_path)
    torch.save({"ae": state_of("AutoEncoder"), "config": Loud()}, weights)
    with pytest.raises(SaeError, match="could run code when opened"):
        load_sae(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(SaeError, match=r"holds no ae\.pt"):
        load_sae(tmp_path, format="dictionary_learning")
