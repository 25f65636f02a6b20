"""What the published training code gets wrong, each shown right here; the numbers are those of `test_known_defects`."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from facviz.activations import activations_at_layer
from facviz.backbone import Backbone, site_of
from facviz.config import DatasetConfig, SaeConfig
from facviz.corpus import CorpusReader
from facviz.errors import InputError, SaeError
from facviz.sae import train
from facviz.sae.checkpoint import FileCheckpoints, load_state
from facviz.sae.formats import load_sae
from facviz.sae.formats.saelens import hook_name_of, layer_of
from facviz.sae.train import Plan, train_sae
from facviz.testing.families import FAMILIES, N_LAYERS, VOCABULARY, random_model


def acts(n, seed):
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)) + 1


@pytest.mark.parametrize("n_steps", [40, 400])
def test_defect_36_k_is_annealed_over_half_the_first_epoch_of_this_run_however_long_it_is(n_steps):
    config = SaeConfig(architecture="paper", d_sae=200, k=4, batch_tokens=16, epochs=4)
    paper = train._Run(Plan(config, acts(50, 0)), n_steps).architecture
    half_epoch = n_steps // 8
    assert paper.k_at(0) == 40
    assert paper.k_at(half_epoch - 1) > 4
    assert [paper.k_at(step) for step in (half_epoch, n_steps - 1)] == [4, 4]


def test_defect_36_metrics_carry_their_own_names_and_the_last_state_is_kept_of_a_run_of_three_steps(tmp_path):
    config = SaeConfig(architecture="topk", d_sae=32, k=2, batch_tokens=16, epochs=1)
    reports = []
    train_sae(
        lambda start: (acts(16, seed) for seed in range(start, 3)),
        config,
        d_in=8,
        n_steps=3,
        init_sample=acts(50, 9),
        on_step=reports.append,
        checkpoint=FileCheckpoints(tmp_path / "state"),
    )
    assert load_state(tmp_path / "state").step == 3
    assert all(report.l0 <= 2 for report in reports)
    assert all(0 < report.fvu < 3 for report in reports)


@pytest.mark.parametrize("layer", range(1, N_LAYERS + 1))
def test_defect_37_one_number_names_one_hidden_state_in_model_file_and_hook_names(layer):
    backbone = Backbone(random_model("llama"), None, layer)
    ids = torch.arange(12).reshape(2, 6) % VOCABULARY
    with torch.no_grad():
        hidden = backbone.model(input_ids=ids, output_hidden_states=True).hidden_states[layer]
    torch.testing.assert_close(activations_at_layer(backbone, ids), hidden)
    assert backbone.hook_name == hook_name_of(layer)
    assert layer_of(hook_name_of(layer)) == layer
    assert site_of(f"model.layers.{layer - 1}", backbone) == site_of(hook_name_of(layer), backbone)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_defect_44_activations_are_read_of_every_family_of_models(family):
    backbone = Backbone(random_model(family), None, 1)
    assert activations_at_layer(backbone, torch.zeros(1, 4, dtype=torch.int64)).shape == (1, 4, backbone.d_model)


def test_defect_45_a_mistyped_path_makes_no_corpus_and_a_last_line_without_its_end_is_whole(tmp_path):
    missing = tmp_path / "corpus.jsonl"
    with pytest.raises(InputError):
        CorpusReader(DatasetConfig("c", str(missing)))
    assert not missing.exists()
    missing.write_text('{"text": "first"}\n{"text": "the very last word"}', encoding="utf-8")
    assert [d.text for d in CorpusReader(DatasetConfig("c", str(missing)))] == ["first", "the very last word"]


def test_defect_46_reading_a_layer_replaces_no_forward_and_leaves_no_hook():
    backbone = Backbone(random_model("llama"), None, 2)
    modules = list(backbone.model.modules())
    before = [type(module).forward for module in modules]
    activations_at_layer(backbone, torch.zeros(1, 4, dtype=torch.int64))
    assert [type(module).forward for module in modules] == before
    assert not any("forward" in vars(module) for module in modules)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return self.path.write_text, ("sprung",)


@pytest.mark.parametrize("zipped", [True, False])
def test_defect_48_a_checkpoint_runs_no_code(tmp_path, zipped):
    path, sprung = tmp_path / "TopK7_l16_h4096_epoch3.pth", tmp_path / "sprung"
    if zipped:
        torch.save({"weight": Trap(sprung), "config": {}}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Trap(sprung), "config": {}}))
    for format in ("auto", "fac"):
        with pytest.raises(SaeError):
            load_sae(path, format)
    assert not sprung.exists()
