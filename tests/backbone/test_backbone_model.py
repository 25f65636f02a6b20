"""The backbone: where each hidden state is read, for every supported family, and loading from a folder."""

from __future__ import annotations

import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from facviz.backbone import Backbone, load_backbone, load_tokenizer
from facviz.backbone.locate import identity_of
from facviz.backbone.model import chosen_device
from facviz.config import BackboneConfig
from facviz.errors import BackboneError
from facviz.testing.families import FAMILIES, random_model


def save_folder(folder, family: str = "llama", rng_seed: int = 0):
    random_model(family, rng_seed).save_pretrained(folder)
    backend = Tokenizer(models.WordLevel({f"w{i}": i for i in range(40)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("layer", range(5))
@pytest.mark.parametrize("family", FAMILIES)
def test_model_acts_equal_the_hidden_state_at_every_index(family, layer):
    model = random_model(family)
    token_ids = torch.tensor([[3, 7, 11, 2], [5, 5, 1, 9]])
    seen: list[torch.Tensor] = []
    handle = Backbone(model, None, layer).on_model_acts(seen.append)
    with torch.no_grad():
        expected = model(token_ids, output_hidden_states=True).hidden_states
        model(token_ids)
        handle.remove()
        model(token_ids)
    assert len(expected) == 5
    assert len(seen) == 2
    torch.testing.assert_close(seen[1], expected[layer], rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_and_default_layer_are_read_from_the_model(family):
    backbone = Backbone(random_model(family), None)
    assert (backbone.n_layers, backbone.d_model, backbone.layer) == (4, 16, 2)
    assert backbone.hook_name == "blocks.1.hook_resid_post"
    assert Backbone(backbone.model, None, 0).hook_name == "blocks.0.hook_resid_pre"
    assert backbone.layer_module is backbone.hook_point()[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_hidden_state_times_the_unembedding_gives_the_logits(family):
    model = random_model(family)
    backbone = Backbone(model, None, 4)
    seen: list[torch.Tensor] = []
    handle = backbone.on_model_acts(seen.append)
    with torch.no_grad():
        logits = model(torch.tensor([[3, 7, 11]])).logits
        handle.remove()
        torch.testing.assert_close(seen[0] @ backbone.unembedding.T, logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_final_norm_weight_is_the_scale_the_norm_applies(family):
    backbone = Backbone(random_model(family), None, 4)
    norm = backbone.layer_module
    x = torch.randn(3, 16)
    x -= x.mean(dim=-1, keepdim=True)  # so that layer norm and RMS norm agree
    scaled = x / x.pow(2).mean(dim=-1, keepdim=True).sqrt()
    with torch.no_grad():
        bias = norm.bias if isinstance(norm, torch.nn.LayerNorm) else 0.0
        torch.testing.assert_close(norm(x), scaled * backbone.final_norm_weight + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [-1, 5])
def test_a_layer_outside_the_model_is_refused_with_the_range(layer):
    with pytest.raises(BackboneError, match=r"Layer -?\d does not exist in this model; choose 0 to 4"):
        Backbone(random_model("llama"), None, layer)


def test_a_model_of_an_unknown_build_is_refused():
    with pytest.raises(BackboneError, match="decoder layers of Linear are not where"):
        Backbone(torch.nn.Linear(2, 2), None)


def test_a_folder_loads_silently_in_evaluation_mode_without_gradients(tmp_path, capfd):
    name = str(save_folder(tmp_path))
    capfd.readouterr()
    backbone = load_backbone(name, 3)
    assert (backbone.layer, backbone.name, len(backbone.identity)) == (3, name, 16)
    assert not backbone.model.training
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert {p.dtype for p in backbone.model.parameters()} == {torch.float32}
    assert load_tokenizer(name)("w3 w4")["input_ids"] == [3, 4]
    assert capfd.readouterr() == ("", "")


def test_the_configuration_fills_what_the_arguments_leave_open(tmp_path):
    config = BackboneConfig(name=str(save_folder(tmp_path)), layer=1, dtype="bfloat16")
    backbone = load_backbone(config=config)
    assert (backbone.name, backbone.layer, backbone.model.dtype) == (config.name, 1, torch.bfloat16)
    backbone = load_backbone(config=config, layer=2, dtype=torch.float32)
    assert (backbone.layer, backbone.model.dtype) == (2, torch.float32)


def test_the_identity_follows_the_weights_and_not_the_place(tmp_path):
    first = identity_of(save_folder(tmp_path / "a"))
    assert identity_of(save_folder(tmp_path / "b")) == first
    assert identity_of(save_folder(tmp_path / "c", rng_seed=1)) != first
    tokenizer = tmp_path / "b" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert identity_of(tmp_path / "b") != first


def test_weights_that_lack_a_tensor_are_refused_and_not_made_up(tmp_path):
    save_folder(tmp_path)
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lack 1 tensors \(e.g. model.layers.2.mlp.up_proj.weight\)"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("config.json", "cannot be loaded"),
        ("model.safetensors", "The model .* cannot be loaded"),
        ("tokenizer.json", "tokenizer"),
    ],
)
def test_a_damaged_folder_is_named_in_one_sentence(tmp_path, broken, message):
    (save_folder(tmp_path) / broken).write_bytes(b"{")
    with pytest.raises(BackboneError, match=message) as raised:
        load_backbone(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_tokenizer_without_offsets_is_refused(tmp_path, monkeypatch):
    slow = type("Slow", (), {"is_fast": False})()
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *a, **k: slow)
    with pytest.raises(BackboneError, match="no character offsets"):
        load_tokenizer(str(tmp_path))


def test_importing_the_backbone_package_loads_neither_torch_nor_transformers():
    code = "import facviz.backbone, sys; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_packaged_default_loads_and_position_zero_is_a_sink():
    backbone = load_backbone()
    assert (backbone.d_model, backbone.n_layers, backbone.layer) == (576, 30, 15)
    seen: list[torch.Tensor] = []
    handle = backbone.on_model_acts(seen.append)
    messages = [{"role": "user", "content": "Why does the moon shine at night?"}]
    encoded = backbone.tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        logits = backbone.model(**encoded).logits
    handle.remove()
    norms = seen[0][0].norm(dim=-1)
    assert norms[0] > 20 * norms[1:].max()
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("name", "has_gpu", "device"), [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_a_gpu_is_used_where_there_is_one_and_the_config_allows_it(monkeypatch, name, has_gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert chosen_device(name).type == device


def test_a_gpu_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackboneError, match="sees no GPU here; set `device`"):
        chosen_device("cuda")


def test_a_cache_goes_by_the_name_that_the_model_knows(planted_backbone):
    cache = transformers.DynamicCache(config=planted_backbone.model.config)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        planted_backbone.model(input_ids=torch.tensor([[1, 2, 3]]), **planted_backbone.keeping(cache))
    assert cache.get_seq_length() == 3
    older = SimpleNamespace(
        model=SimpleNamespace(forward=lambda input_ids, past_key_values=None, use_cache=False: None)
    )
    assert Backbone.keeping(older, cache) == {"past_key_values": cache, "use_cache": True}
    assert Backbone.keeping(older, None) == {"past_key_values": None, "use_cache": False}
