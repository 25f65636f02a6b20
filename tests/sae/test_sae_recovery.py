"""Training finds planted features: sparse combinations of known unit directions, with and without a large offset."""

from dataclasses import replace

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import embedding_bag, normalize

from facviz.config import SaeConfig
from facviz.sae import train
from facviz.sae.architectures import base
from facviz.sae.init import offset_ratio
from facviz.sae.metrics import SaeEvaluator
from facviz.sae.model import SAE
from facviz.sae.train import train_sae

D_IN, N_FEATURES, N_ACTIVE = 64, 256, 3
CONFIG = SaeConfig(architecture="topk", d_sae=N_FEATURES, k=N_ACTIVE, batch_tokens=1024, learning_rate=1e-2)
PLANTED = normalize(torch.randn(N_FEATURES, D_IN, generator=torch.Generator().manual_seed(1)), dim=1)
OFFSET = 27 * normalize(torch.randn(D_IN, generator=torch.Generator().manual_seed(2)), dim=0)


def make_acts(n, seed, offset=0.0):
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(N_FEATURES, (n, N_ACTIVE), generator=rng)
    strengths = 1 + torch.rand(n, N_ACTIVE, generator=rng)
    return embedding_bag(ids, PLANTED, per_sample_weights=strengths, mode="sum") + offset


def train_on_planted(config, n_steps, offset=0.0):
    def batches(start):
        return (make_acts(config.batch_tokens, seed, offset) for seed in range(start, n_steps))

    sample = make_acts(4096, 10**6, offset)
    sae = SAE(train_sae(batches, config, d_in=D_IN, n_steps=n_steps, init_sample=sample))
    evaluator = SaeEvaluator(sae)
    evaluator.update(make_acts(16_384, 10**6 + 1, offset))
    return sae, evaluator.result()


def mean_correlation(sae):
    """MCC: mean cosine of planted and learnt directions under the best one-to-one matching."""
    cosines = (PLANTED @ sae.W_dec.T).abs().numpy()
    return cosines[linear_sum_assignment(-cosines)].mean()


@pytest.mark.parametrize(("architecture", "min_explained"), [("topk", 0.95), ("batchtopk", 0.93)])
def test_planted_features_are_recovered(architecture, min_explained):
    """BatchTopK's bar is lower here: every token has equally many features, which only TopK can know."""
    sae, metrics = train_on_planted(replace(CONFIG, architecture=architecture), n_steps=1200)
    assert 1 - metrics.fvu >= min_explained
    assert mean_correlation(sae) >= 0.9
    assert metrics.dead_share <= 0.02
    assert metrics.l0 == pytest.approx(N_ACTIVE, rel=0.05)


def test_a_large_offset_kills_features_only_without_centring(monkeypatch):
    assert offset_ratio(make_acts(4096, 3, OFFSET)) == pytest.approx(10, rel=0.1)
    centred = train_on_planted(CONFIG, 500, OFFSET)[1]
    start_centred = base.init_weights

    def start_at_zero(*args):
        return replace(start_centred(*args), b_dec=torch.zeros(D_IN))

    monkeypatch.setattr(base, "init_weights", start_at_zero)
    control = train_on_planted(CONFIG, 500, OFFSET)[1]
    assert centred.dead_share <= 0.05
    assert centred.fvu < 0.1
    assert control.dead_share > 5 * max(centred.dead_share, 0.01)


def test_revival_brings_dead_features_back():
    """Encoder rows of half the features start switched off; only the revival loss can reach them."""
    config = replace(CONFIG, dead_after_tokens=5000)
    with_revival, without = (
        _train_with_disabled_half(replace(config, aux_coefficient=coefficient)) for coefficient in (1 / 32, 0.0)
    )
    assert without.dead_share > 0.4
    assert with_revival.dead_share < 0.5 * without.dead_share
    assert with_revival.fvu < without.fvu


def _train_with_disabled_half(config):
    n_steps = 300
    run = train._Run(train.Plan(config, make_acts(4096, 10**6)), n_steps)
    with torch.no_grad():
        run.parameters.b_enc[: N_FEATURES // 2] = -1.5
    for seed in range(n_steps):
        run.train_on(make_acts(config.batch_tokens, seed))
    evaluator = SaeEvaluator(SAE(run.export()))
    evaluator.update(make_acts(16_384, 10**6 + 1))
    return evaluator.result()


def make_crowded_acts(n, seed, offset=0.0):
    """Each of the 256 directions active with probability .02, magnitudes uniform in [.5, 1.5]."""
    rng = torch.Generator().manual_seed(seed)
    is_active = torch.rand(n, N_FEATURES, generator=rng) < 0.02
    return (is_active * (0.5 + torch.rand(n, N_FEATURES, generator=rng))) @ PLANTED + offset


def train_on_crowded(offset=0.0, architecture="topk"):
    n_steps = 300_000 // 1024
    config = replace(CONFIG, k=8, architecture=architecture)
    weights = train_sae(
        lambda start: (make_crowded_acts(1024, seed, offset) for seed in range(start, n_steps)),
        config,
        d_in=D_IN,
        n_steps=n_steps,
        init_sample=make_crowded_acts(4096, 10**6, offset),
    )
    evaluator = SaeEvaluator(SAE(weights))
    evaluator.update(make_crowded_acts(16_384, 10**6 + 1, offset))
    return SAE(weights), evaluator.result()


@pytest.mark.parametrize(("architecture", "min_explained"), [("topk", 0.84), ("matching_pursuit", 0.95)])
def test_crowded_features_are_recovered_too(architecture, min_explained):
    """Their directions are by both. The eight largest of 256 products with the planted directions themselves, at the
    best activations there are, explain .904 of such inputs: what lies above needs more than one linear map.
    """
    sae, metrics = train_on_crowded(architecture=architecture)
    assert (PLANTED @ sae.W_dec.T).max(dim=1).values.mean() >= 0.9
    assert metrics.dead_share <= 0.02
    assert metrics.explained_variance >= min_explained


@pytest.mark.parametrize("architecture", ["topk", "matching_pursuit"])
def test_ten_times_the_norm_as_offset_costs_few_crowded_features_only_with_centring(architecture, monkeypatch):
    norm = float(make_crowded_acts(4096, 3).norm(dim=1).mean())
    offset = 10 * norm * normalize(torch.randn(D_IN, generator=torch.Generator().manual_seed(4)), dim=0)
    centred = train_on_crowded(offset, architecture)[1]
    start_centred = base.init_weights
    monkeypatch.setattr(base, "init_weights", lambda *a: replace(start_centred(*a), b_dec=torch.zeros(D_IN)))
    control = train_on_crowded(offset, architecture)[1]
    assert centred.dead_share <= 0.05
    assert (control.dead_share, control.fvu) > (centred.dead_share, centred.fvu)
