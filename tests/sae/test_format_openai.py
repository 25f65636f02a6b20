"""OpenAI's `.pt` files, written by the public module's own structure, against its formulas."""

import pytest
import torch

from facviz.sae.formats import load_sae
from tests.sae.format_helpers import D, F, K, X, assert_recognised, assert_refused, assert_same, keep_top, rand


def state(kind="TopK", **change):
    """What Autoencoder.state_dict() holds: parameters, statistics, and the activation by its class's name."""
    found = {
        "pre_bias": rand(D, seed=0),
        "latent_bias": rand(F, seed=1),
        "stats_last_nonzero": torch.zeros(F, dtype=torch.int64),
        "latents_activation_frequency": torch.ones(F),
        "latents_mean_square": torch.zeros(F),
        "encoder.weight": rand(F, D, seed=2),
        "decoder.weight": rand(D, F, seed=3),
        "activation": kind,
        "activation_state_dict": {"k": K, "postact_fn": "ReLU"} if kind == "TopK" else {},
    }
    if kind == "TopK":
        found |= {"activation.k": K, "activation.postact_fn": "ReLU"}
    return {name: value for name, value in (found | change).items() if value is not None}


def write(path, stored):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(stored, path)
    return path


def autoencoder(x, k=None):
    """Layer norm, encode, decode and its reverse for TopK; neither for ReLU."""
    w = state()
    centre = x.mean(1, keepdim=True)
    spread = (x - centre).std(1, keepdim=True)
    inputs = x if k is None else (x - centre) / (spread + 1e-5)
    pre = (inputs - w["pre_bias"]) @ w["encoder.weight"].T + w["latent_bias"]
    acts = (pre if k is None else keep_top(pre, k)).relu()
    out = acts @ w["decoder.weight"].T + w["pre_bias"]
    return acts, out if k is None else out * spread + centre


def test_top_k_normalises_every_token(tmp_path):
    sae = assert_recognised(write(tmp_path / "sae.pt", state()), "openai", "pre_bias and latent_bias")
    assert_same(sae, *autoencoder(3 * X + 2, K), x=3 * X + 2)
    assert "TopK" in sae.weights.provenance["input_norm"]
    assert sae.metadata == {}


@pytest.mark.parametrize("change", [{}, {"activation": None, "activation_state_dict": None}])
def test_relu_takes_its_input_as_it_is(tmp_path, change):
    sae = load_sae(write(tmp_path / "sae.pt", state("ReLU", **change)))
    assert_same(sae, *autoencoder(X))
    assert ("activation" in sae.weights.provenance) == bool(change)


def test_half_precision_files_load(tmp_path):
    w = state("ReLU")
    halves = {k: v.half().float() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in w.items()}
    half = {k: v.half() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in w.items()}
    sae = load_sae(write(tmp_path / "sae.pt", half))
    acts = ((X - halves["pre_bias"]) @ halves["encoder.weight"].T + halves["latent_bias"]).relu()
    assert_same(sae, acts, acts @ halves["decoder.weight"].T + halves["pre_bias"])


@pytest.mark.parametrize(
    ("folder", "hook", "layer"),
    [
        ("resid_post_mlp_v5_32k", "blocks.8.hook_resid_post", 9),
        ("resid_post_attn_v5_128k", "blocks.8.hook_resid_mid", None),
        ("resid_delta_mlp", "blocks.8.hook_mlp_out", None),
    ],
)
def test_the_published_folders_name_model_and_hook(tmp_path, folder, hook, layer):
    path = tmp_path / "sparse-autoencoder" / "gpt2-small" / folder / "autoencoders" / "8.pt"
    metadata = load_sae(write(path, state())).metadata
    assert (metadata["model_name"], metadata["hook_name"], metadata.get("layer")) == ("gpt2", hook, layer)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": "Gelu"}, "'Gelu'"),
        ({"activation_state_dict": {"k": K, "postact_fn": "Identity"}}, "negative activations"),
        ({"activation_state_dict": None}, "'TopK'"),
        ({"activation_state_dict": {"k": F + 1, "postact_fn": "ReLU"}}, "k between"),
        ({"activation_state_dict": {"k": 2.5, "postact_fn": "ReLU"}}, "k between"),
        ({"decoder.weight": None}, "lacks the tensor decoder.weight"),
        ({"decoder.weight": None, "decoder.linear.weight": rand(F, D, seed=2)}, "lacks the tensor decoder.weight"),
        ({"decoder.weight": rand(F, D, seed=3)}, "decoder.weight has shape"),
        ({"encoder.bias": rand(F, seed=3)}, "tensor encoder.bias"),
        ({"pre_bias": torch.full((D,), torch.inf)}, "infinite"),
    ],
)
def test_what_cannot_be_expressed_is_refused(tmp_path, change, words):
    assert_refused(write(tmp_path / "sae.pt", state(**change)), words)


def test_another_pt_file_is_not_taken_for_one(tmp_path):
    assert_refused(write(tmp_path / "sae.pt", [torch.zeros(2)]), "no known SAE format")
    assert_refused(tmp_path / "sae.pt", "table of tensors", format="openai")
