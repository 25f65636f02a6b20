"""The bfloat16 screen: it may name too many entries, never too few, and what it returns is float32."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facviz.errors import SaeError
from facviz.sae import screen
from facviz.sae.codes import threshold_codes
from facviz.sae.model import SAE
from facviz.sae.screen import Screen
from facviz.sae.weights import Activation, SaeWeights

D_IN, D_SAE = 48, 900


def make_weights(rng_seed, threshold=None, *, pre_bias=True, tied=False, scale=1.0):
    g = torch.Generator().manual_seed(rng_seed)
    W_enc = torch.randn(D_IN, D_SAE, generator=g) * scale * torch.rand(D_SAE, generator=g)
    W_dec = None if tied else torch.randn(D_SAE, D_IN, generator=g)
    if threshold is None:
        threshold = torch.full((D_SAE,), 14.0 * scale)
    b_enc, b_dec = torch.randn(D_SAE, generator=g), torch.randn(D_IN, generator=g)
    return SaeWeights(W_enc, b_enc, W_dec, b_dec, Activation("jumprelu", threshold=threshold), pre_bias=pre_bias)


def make_inputs(rng_seed, n=40):
    """Rows whose norms differ by a factor of a thousand, as those of attention sinks do."""
    g = torch.Generator().manual_seed(rng_seed)
    return torch.randn(n, D_IN, generator=g) * 10 ** (3 * torch.rand(n, 1, generator=g) - 1)


def exact(weights, x):
    return torch.addmm(weights.b_enc.double(), x.double(), weights.W_enc.double())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_no_entry_above_its_threshold_is_missed_however_close_it_lies(rng_seed, scale):
    x = make_inputs(rng_seed)
    probe = make_weights(rng_seed, scale=scale)
    # Each feature's threshold lies a hair below one of its own pre-activations: the hardest entry to find.
    own = exact(probe, x).gather(0, torch.randint(len(x), (1, D_SAE), generator=torch.Generator().manual_seed(0)))[0]
    threshold = (own - 1e-5 * own.abs()).float()
    found = torch.zeros(len(x), D_SAE, dtype=torch.bool)
    found[Screen(make_weights(rng_seed, threshold, scale=scale)).candidates(x)] = True
    above = (exact(probe, x) > threshold.clamp_min(0)) & (exact(probe, x) > 0)
    assert bool(found[above].all())


def test_an_entry_is_found_where_every_rounding_goes_against_it():
    rounds_down = 1 + 2**-8  # halfway between two bfloat16 numbers, the even one lies below
    W_enc = torch.full((D_IN, 1), rounds_down)
    own = float(W_enc.square().sum())
    threshold = torch.full((1,), own * (1 - 1e-6))
    zeros = torch.zeros(1), torch.zeros(D_IN)
    weights = SaeWeights(W_enc, zeros[0], None, zeros[1], Activation("jumprelu", threshold=threshold))
    assert len(Screen(weights).candidates(torch.full((3, D_IN), rounds_down))[0]) == 3


def test_the_screen_is_tight_enough_to_be_worth_it():
    weights, x = make_weights(1), torch.randn(200, D_IN, generator=torch.Generator().manual_seed(2))
    fires = int((exact(weights, x) > 14.0).sum())
    n_candidates = len(Screen(weights).candidates(x)[0])
    assert 20 < fires <= n_candidates < 2 * fires


@pytest.mark.parametrize("tied", [False, True])
def test_codes_are_those_of_the_float32_product(tied, monkeypatch):
    monkeypatch.setattr(screen, "_MAX_SHARE", 1.0)
    weights, x = make_weights(3, tied=tied), make_inputs(4)
    codes = Screen(weights).encode(x)
    expected = threshold_codes(torch.addmm(weights.b_enc, x, weights.W_enc), weights.activation.threshold)
    assert len(expected.indices) > 500
    assert torch.equal(codes.indices, expected.indices)
    assert torch.equal(codes.offsets, expected.offsets)
    torch.testing.assert_close(codes.values, expected.values, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("pre_bias", [False, True])
def test_an_sae_encodes_the_same_with_and_without_the_screen(pre_bias, monkeypatch):
    monkeypatch.setattr(screen, "_MAX_SHARE", 1.0)
    weights, x = make_weights(5, pre_bias=pre_bias), make_inputs(6)
    monkeypatch.setattr(Screen, "suits", staticmethod(lambda weights: False))
    plain = SAE(weights).encode(x)
    monkeypatch.setattr(Screen, "suits", staticmethod(lambda weights: True))
    screened = SAE(weights)
    assert screened._screen is not None
    torch.testing.assert_close(screened.encode_dense(x), SAE(weights).to_dense(plain), rtol=1e-5, atol=1e-4)
    with torch.inference_mode():
        assert torch.equal(screened.encode(x).indices, plain.indices)


def test_where_much_may_fire_the_float32_product_is_left_to_do_it():
    weights = make_weights(7, torch.zeros(D_SAE))
    assert Screen(weights).encode(make_inputs(8)) is None
    sae = SAE(weights)
    sae._screen = Screen(weights)
    x = make_inputs(8)
    assert torch.equal(sae.encode(x).indices, SAE(weights).encode(x).indices)


def test_dense_mode_is_never_screened():
    sae = SAE(make_weights(9))
    sae._screen = Screen(sae.weights)
    x = make_inputs(10)
    pre = torch.addmm(sae.weights.b_enc, x - sae.weights.b_dec, sae.weights.W_enc)
    assert torch.equal(sae.encode(x, dense=True).indices, threshold_codes(pre, 0.0).indices)


def test_a_batch_in_which_nothing_fires_has_empty_codes():
    weights = make_weights(11, torch.full((D_SAE,), 1e6))
    codes = Screen(weights).encode(make_inputs(12))
    assert codes.n_tokens == 40
    assert len(codes.indices) == 0


def test_an_sae_without_thresholds_is_not_screened():
    weights = SaeWeights(torch.eye(D_IN), torch.zeros(D_IN), None, torch.zeros(D_IN), Activation("topk", k=2))
    assert not Screen.suits(weights)
    with pytest.raises(SaeError, match="threshold"):
        Screen(weights)
