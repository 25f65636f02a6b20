"""Sites: both notations name the same place, and what is read there is what the model adds to its residual stream."""

from __future__ import annotations

import pytest
import torch

from facviz.activations import activations_at_layer
from facviz.backbone import Backbone, load_backbone
from facviz.backbone.sites import Site, hook_name, module_name, site_of
from facviz.config import BackboneConfig
from facviz.errors import BackboneError
from facviz.testing.families import FAMILIES, N_LAYERS, random_model

IDS = torch.tensor([[3, 7, 11, 2, 30], [5, 5, 1, 9, 0]])
BLOCKS = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers", "gpt_neox_sequential": "gpt_neox.layers"}
ATTENTION = {"gpt2": "attn", "gpt_neox": "attention", "gpt_neox_sequential": "attention"}
NORMED = ("gemma2", "gemma3")

NAMES = {
    "blocks.0.hook_resid_pre": Site("resid", 0),
    "blocks.4.hook_resid_pre": Site("resid", 4),
    "blocks.4.hook_resid_post": Site("resid", 5),
    "blocks.0.hook_mlp_out": Site("mlp", 1),
    "blocks.27.hook_attn_out": Site("attn", 28),
    "embed_tokens": Site("resid", 0),
    "layers.15": Site("resid", 16),
    "layers.15.mlp": Site("mlp", 16),
    "layers.15.self_attn": Site("attn", 16),
    "layers.3.attention": Site("attn", 4),
    "h.3.attn": Site("attn", 4),
    "model.embed_tokens": Site("resid", 0),
    "model.layers.15": Site("resid", 16),
    "model.layers.0.mlp": Site("mlp", 1),
    "model.layers.0.self_attn": Site("attn", 1),
    "transformer.h.11": Site("resid", 12),
    "transformer.h.11.mlp": Site("mlp", 12),
    "transformer.h.11.attn": Site("attn", 12),
    "gpt_neox.layers.2": Site("resid", 3),
    "gpt_neox.layers.2.mlp": Site("mlp", 3),
    "gpt_neox.layers.2.attention": Site("attn", 3),
}

FOREIGN = [
    "",
    "blocks.5.attn.hook_z",
    "blocks.5.hook_resid_mid",
    "blocks.5.hook_mlp_in",
    "blocks.-1.hook_resid_post",
    "blocks.٣.hook_resid_post",
    f"blocks.{'9' * 5000}.hook_resid_post",
    "blocks.5.hook_resid_post\n",
    "layers.3.mlp.down_proj",
    "layers.3.input_layernorm",
    "encoder.layers.3",
    "vision_tower.model.layers.3",
]


@pytest.mark.parametrize(("name", "site"), NAMES.items())
def test_hook_and_module_names_of_both_notations_name_one_place(name, site):
    assert site_of(name) == site


@pytest.mark.parametrize("name", FOREIGN, ids=range(len(FOREIGN)))
def test_a_place_that_is_not_read_has_no_site(name):
    assert site_of(name) is None


def test_every_site_is_found_again_by_its_hook_name():
    sites = [Site("resid", 0), *(Site(kind, layer) for kind in ("resid", "mlp", "attn") for layer in range(1, 40))]
    assert [site_of(hook_name(site)) for site in sites] == sites
    assert hook_name(Site("attn", 3)) == "blocks.2.hook_attn_out"


@pytest.mark.parametrize("family", FAMILIES)
def test_module_names_are_those_of_the_family_and_lead_back_to_the_site(family):
    backbone = Backbone(random_model(family), None)
    blocks = BLOCKS.get(family, "model.layers")
    mlp = "post_feedforward_layernorm" if family in NORMED else "mlp"
    attention = "post_attention_layernorm" if family in NORMED else ATTENTION.get(family, "self_attn")
    assert module_name(Site("resid", 2), backbone) == f"{blocks}.1"
    assert module_name(Site("mlp", 2), backbone) == f"{blocks}.1.{mlp}"
    assert module_name(Site("attn", 4), backbone) == f"{blocks}.3.{attention}"
    for site in [Site("resid", 3), *(Site(kind, layer) for kind in ("mlp", "attn") for layer in range(1, 5))]:
        assert site_of(module_name(site, backbone), backbone) == site
        assert site_of(module_name(site, backbone).split(".", 1)[1], backbone) == site


def test_with_a_backbone_only_the_very_module_that_is_read_counts():
    llama, gemma = Backbone(random_model("llama"), None), Backbone(random_model("gemma2"), None)
    assert site_of("model.layers.1.mlp", llama) == Site("mlp", 2)
    assert site_of("model.layers.1.mlp", gemma) is None
    assert site_of("layers.1.self_attn", gemma) is None
    assert site_of("model.layers.1.post_attention_layernorm", gemma) == Site("attn", 2)
    assert site_of("model.layers.1.post_attention_layernorm", llama) is None
    assert site_of("blocks.1.hook_mlp_out", gemma) == Site("mlp", 2)
    assert site_of("model.layers.99.mlp", gemma) == Site("mlp", 100)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_and_mlp_are_exactly_what_turns_one_hidden_state_into_the_next(family):
    model = random_model(family)
    with torch.no_grad():
        hidden = model(IDS, output_hidden_states=True).hidden_states
        for layer in range(1, N_LAYERS + 1):
            mlp = activations_at_layer(Backbone(model, None, layer, site="mlp"), IDS)
            attn = activations_at_layer(Backbone(model, None, layer, site="attn"), IDS)
            made = hidden[layer - 1] + attn + mlp
            if layer == N_LAYERS:
                made = Backbone(model, None, layer).layer_module(made)
            assert min(mlp.norm(), attn.norm(), (mlp - attn).norm()) > 0.01
            torch.testing.assert_close(made, hidden[layer], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("site", ["resid", "mlp", "attn"])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "gpt_neox"])
def test_a_module_that_returns_a_tuple_is_read_like_one_that_returns_a_tensor(family, site):
    backbone = Backbone(random_model(family), None, 2, site=site)
    expected = activations_at_layer(backbone, IDS)
    handle = backbone.layer_module.register_forward_hook(
        lambda module, inputs, output: output if isinstance(output, tuple) else (output, None)
    )
    torch.testing.assert_close(activations_at_layer(backbone, IDS), expected, rtol=0, atol=0)
    handle.remove()


@pytest.mark.parametrize("site", ["mlp", "attn"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_forward_stops_at_the_module_read(family, site):
    backbone = Backbone(random_model(family), None, 2, site=site)
    started: list[str] = []
    for name, module in backbone.model.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: started.append(name))
    activations_at_layer(backbone, IDS)
    read = module_name(backbone.place, backbone)
    assert started[-1] == read or started[-1].startswith(f"{read}.")
    blocks = BLOCKS.get(family, "model.layers")
    assert f"{blocks}.1" in started
    assert f"{blocks}.2" not in started
    assert (f"{blocks}.1.mlp" in started) == (site == "mlp")


def test_a_backbone_says_which_site_it_reads():
    backbone = Backbone(random_model("llama"), None, 3, site="mlp")
    assert (backbone.site, backbone.layer, backbone.place) == ("mlp", 3, Site("mlp", 3))
    assert backbone.hook_name == "blocks.2.hook_mlp_out"
    assert backbone.hook_point() == (backbone.model.model.layers[2].mlp, "output")


def test_the_default_layer_of_a_block_output_is_never_the_embeddings():
    model = random_model("llama")
    del model.model.layers[1:]
    assert Backbone(model, None).layer == 0
    assert Backbone(model, None, site="attn").layer == 1


@pytest.mark.parametrize("site", ["mlp", "attn"])
@pytest.mark.parametrize("layer", [0, -1, 5])
def test_a_layer_without_such_an_output_is_refused_with_the_range(site, layer):
    with pytest.raises(BackboneError, match=rf"Layer {layer} does not exist in tiny at site {site}; choose 1 to 4\."):
        Backbone(random_model("llama"), None, layer, "tiny", site=site)


def test_sites_that_cannot_be_are_refused():
    with pytest.raises(BackboneError, match=r"no site 'hook_z'; choose one of resid, mlp, attn\."):
        Backbone(random_model("llama"), None, 1, site="hook_z")
    with pytest.raises(BackboneError, match="Layer 0 has no mlp output; choose a layer of at least 1"):
        Site("mlp", 0)
    with pytest.raises(BackboneError, match="Layer 5 does not exist in this model; choose 0 to 4"):
        module_name(Site("attn", 5), Backbone(random_model("llama"), None))


def test_a_block_without_the_module_is_refused_when_the_backbone_is_made():
    model = random_model("llama")
    model.model.layers[1].mixer = model.model.layers[1].self_attn
    del model.model.layers[1].self_attn
    Backbone(model, None, 1, site="attn")
    with pytest.raises(BackboneError, match=r"model\.layers\.1 of odd has no module `self_attn`; read its residual"):
        Backbone(model, None, 2, "odd", site="attn")


def test_the_site_is_taken_from_the_argument_else_from_the_configuration(planted_folder):
    config = BackboneConfig(name=str(planted_folder[0]), layer=2, site="attn")
    assert load_backbone(config=config).place == Site("attn", 2)
    assert load_backbone(config=config, site="mlp").place == Site("mlp", 2)
    assert load_backbone(str(planted_folder[0])).place == Site("resid", 1)
