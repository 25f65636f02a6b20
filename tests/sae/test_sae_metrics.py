"""FVU and densities by the whole-set definition, however the tokens arrive."""

import math
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facviz.errors import SaeError
from facviz.sae.metrics import SaeEvaluator
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights

D_IN, D_SAE = 6, 16


def make_sae(**changes):
    rng = torch.Generator().manual_seed(0)
    fields = {
        "W_enc": torch.randn(D_IN, D_SAE, generator=rng),
        "b_enc": torch.zeros(D_SAE),
        "W_dec": 0.2 * torch.randn(D_SAE, D_IN, generator=rng),
        "b_dec": torch.zeros(D_IN),
        "activation": Activation("topk", k=4),
    }
    return SAE(SaeWeights(**(fields | changes)))


def constant_sae(prediction):
    return make_sae(W_dec=torch.zeros(D_SAE, D_IN), b_dec=prediction, b_enc=torch.full((D_SAE,), -1e6))


def identity_sae():
    """Two features per direction, one for each sign: reconstructs without error."""
    both = torch.cat([torch.eye(D_IN), -torch.eye(D_IN)])
    return SAE(SaeWeights(both.T.contiguous(), torch.zeros(12), both, torch.zeros(D_IN), Activation("relu")))


def make_input(n=400, mean=0.0):
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(1)) + mean


def evaluate(sae, x, sizes=None):
    evaluator = SaeEvaluator(sae)
    for batch in torch.split(x, sizes or len(x)):
        evaluator.update(batch)
    return evaluator.result()


def test_predicting_the_mean_gives_one_and_perfection_gives_zero():
    x = torch.cat([make_input().round(), -make_input().round()]) + 3.0  # its mean is exactly representable
    assert evaluate(constant_sae(torch.full((D_IN,), 3.0)), x).fvu == 1.0
    assert evaluate(identity_sae(), x).fvu == 0.0


def test_metrics_equal_the_definitions_in_one_pass():
    sae, x = make_sae(), make_input()
    acts = sae.encode_dense(x).double().numpy()
    x_hat, exact = sae.reconstruct(x).double().numpy(), x.double().numpy()
    metrics = evaluate(sae, x, sizes=64)
    assert metrics.fvu == pytest.approx(((exact - x_hat) ** 2).sum() / ((exact - exact.mean(0)) ** 2).sum())
    assert metrics.normalised_mse == pytest.approx(((exact - x_hat) ** 2).sum() / (exact**2).sum())
    assert metrics.l0 == pytest.approx((acts > 0).sum(1).mean())
    assert metrics.explained_variance == 1 - metrics.fvu
    assert metrics.l2_ratio == pytest.approx(np.linalg.norm(x_hat, axis=1).sum() / np.linalg.norm(exact, axis=1).sum())
    assert metrics.reconstruction_bias == pytest.approx((x_hat**2).sum() / (exact * x_hat).sum())
    np.testing.assert_allclose(metrics.density, (acts > 0).mean(0))
    assert metrics.n_tokens == 400
    assert metrics.n_always_on == ((acts > 0).mean(0) > 0.1).sum()


def test_the_result_does_not_depend_on_the_batch_split():
    sae, x = make_sae(), make_input(mean=50.0)
    results = [evaluate(sae, x, sizes) for sizes in (400, 1, [3, 97, 250, 50])]
    for other in results[1:]:
        assert other.fvu == pytest.approx(results[0].fvu, rel=1e-9)
        assert other.n_dead == results[0].n_dead


def test_half_precision_inputs_with_a_mean_of_a_thousand_work():
    x = (make_input(20_000) * 5 + 1000).to(torch.float16)
    exact = x.double()
    sae = constant_sae(exact.mean(0).float())
    assert evaluate(sae, x, sizes=700).fvu == pytest.approx(1.0, abs=1e-6)
    off_by_one_deviation = constant_sae((exact.mean(0) + exact.std(0, correction=0)).float())
    assert evaluate(off_by_one_deviation, x, sizes=700).fvu == pytest.approx(2.0, abs=1e-4)


@given(sizes=st.lists(st.integers(1, 60), max_size=12), mean=st.sampled_from([0.0, 1e3]))
def test_no_split_into_batches_changes_any_number(sizes, mean):
    sae, x = make_sae(), (make_input(120) + mean).to(torch.float16)
    cuts = [*accumulate(sizes)]
    sizes = [b - a for a, b in zip([0, *cuts], [*(c for c in cuts if c < 120), 120])]
    whole, parts = evaluate(sae, x), evaluate(sae, x, sizes)
    for name in ("fvu", "normalised_mse", "l0", "l2_ratio", "reconstruction_bias"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-6)
    assert (parts.density == whole.density).all()


def test_shrinkage_is_the_length_that_reconstructions_lack():
    x = make_input()
    both = identity_sae().weights
    half = SAE(SaeWeights(both.W_enc, both.b_enc, 0.5 * both.W_dec, both.b_dec, both.activation))
    assert (evaluate(identity_sae(), x).l2_ratio, evaluate(identity_sae(), x).reconstruction_bias) == (1.0, 1.0)
    assert evaluate(half, x, 7).l2_ratio == pytest.approx(0.5)
    assert evaluate(half, x, 7).reconstruction_bias == pytest.approx(0.5)


def test_a_reconstruction_along_the_nearest_multiple_has_no_bias_though_it_is_shorter():
    x = make_input()
    one_axis = torch.zeros(12, D_IN)
    one_axis[0, 0], one_axis[6, 0] = 1.0, -1.0
    both = identity_sae().weights
    metrics = evaluate(SAE(SaeWeights(both.W_enc, both.b_enc, one_axis, both.b_dec, both.activation)), x)
    assert metrics.reconstruction_bias == pytest.approx(1.0)
    assert metrics.l2_ratio < 0.6


def test_half_precision_inputs_with_a_large_mean_keep_their_shrinkage():
    x = (make_input(5_000) * 5 + 1000).to(torch.float16)
    metrics = evaluate(constant_sae(torch.full((D_IN,), 500.0)), x, sizes=700)
    exact = x.double()
    assert metrics.l2_ratio == pytest.approx(500 * D_IN**0.5 * len(x) / float(exact.norm(dim=1).sum()), rel=1e-12)
    assert metrics.reconstruction_bias == pytest.approx(500 * D_IN * len(x) / float(exact.sum()), rel=1e-12)


def test_an_sae_that_says_nothing_has_length_zero_and_no_bias():
    metrics = evaluate(constant_sae(torch.zeros(D_IN)), make_input())
    assert metrics.l2_ratio == 0.0
    assert math.isnan(metrics.reconstruction_bias)


def test_an_error_in_the_mean_counts():
    x = make_input()
    assert evaluate(constant_sae(x.mean(0) + 10.0), x).fvu > 50


def test_dead_features_are_those_that_never_fired():
    b_enc = torch.zeros(D_SAE)
    b_enc[[2, 5]] = -1e6
    metrics = evaluate(make_sae(b_enc=b_enc), make_input())
    assert metrics.density[2] == metrics.density[5] == 0
    assert metrics.n_dead == 2
    assert metrics.dead_share == 2 / D_SAE


@pytest.mark.parametrize("x", [torch.zeros(0, D_IN), torch.ones(1, D_IN), torch.ones(9, D_IN)])
def test_without_variance_there_is_no_answer(x):
    with pytest.raises(SaeError, match="differ"):
        evaluate(make_sae(), x, sizes=4)
