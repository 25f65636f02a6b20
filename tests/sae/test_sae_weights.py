"""The canonical weights refuse what could not be computed with."""

from dataclasses import replace

import pytest
import torch

from facviz.errors import SaeError
from facviz.sae.weights import Activation, SaeWeights


def make_weights(d_in=4, d_sae=6, **changes):
    rng = torch.Generator().manual_seed(0)
    fields = {
        "W_enc": torch.randn(d_in, d_sae, generator=rng),
        "b_enc": torch.randn(d_sae, generator=rng),
        "W_dec": torch.randn(d_sae, d_in, generator=rng),
        "b_dec": torch.randn(d_in, generator=rng),
        "activation": Activation("relu"),
    }
    return SaeWeights(**(fields | changes))


def test_widths_are_read_from_the_encoder():
    weights = make_weights()
    assert (weights.d_in, weights.d_sae) == (4, 6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"W_enc": torch.zeros(4)}, "W_enc"),
        ({"b_enc": torch.zeros(4)}, "b_enc"),
        ({"W_dec": torch.zeros(4, 6)}, "W_dec"),
        ({"b_dec": torch.zeros(6)}, "b_dec"),
        ({"b_dec": torch.full((4,), torch.nan)}, "NaN"),
        ({"b_enc": torch.full((6,), torch.inf)}, "infinite"),
        ({"b_dec": torch.zeros(4, dtype=torch.float16)}, "float32"),
        ({"activation": Activation("topk")}, "k between 1 and"),
        ({"activation": Activation("topk", k=7)}, "k between 1 and"),
        ({"activation": Activation("jumprelu")}, "threshold"),
        ({"activation": Activation("jumprelu", threshold=torch.zeros(5))}, "threshold"),
        ({"activation": Activation("gelu")}, "gelu"),
    ],
)
def test_wrong_weights_are_refused_in_one_sentence(changes, words):
    with pytest.raises(SaeError, match=words) as error:
        make_weights(**changes)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_a_tied_decoder_is_the_transposed_encoder():
    weights = replace(make_weights(), W_dec=None)
    assert torch.equal(weights.decoder, weights.W_enc.T)


@pytest.mark.parametrize("row", [0, 3, 6])
def test_a_value_that_is_not_finite_is_found_in_any_slice(monkeypatch, row):
    monkeypatch.setattr("facviz.sae.weights._CHECKED_VALUES", 8)
    encoder = torch.zeros(7, 4)
    encoder[row, 1] = torch.inf
    with pytest.raises(SaeError, match="W_enc holds NaN or infinite"):
        SaeWeights(encoder, torch.zeros(4), None, torch.zeros(7), Activation("relu"))
