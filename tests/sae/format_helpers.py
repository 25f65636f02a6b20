"""What the tests of single formats share: random weights and the dense formulas they are compared with."""

import pytest
import torch
from torch.testing import assert_close

from facviz.errors import SaeError
from facviz.sae.formats import load_sae, recognise

D, F, K = 6, 10, 3


def rand(*shape, seed, dtype=torch.float32):
    """Normal values as a file of `dtype` would hold them."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


X = rand(40, D, seed=99)


def keep_top(values, k):
    """`values` [n, f] with all but the k largest of each row set to zero."""
    top = values.topk(k, dim=1)
    return torch.zeros_like(values).scatter(1, top.indices, top.values)


def assert_same(sae, acts, reconstruction, x=X):
    """Codes and reconstruction equal the reference's, which must not be trivially empty or full."""
    active = (acts > 0).float().mean()
    assert 0.02 < active < 0.98
    assert_close(sae.encode_dense(x), acts, rtol=1e-5, atol=1e-5)
    assert_close(sae.reconstruct(x), reconstruction, rtol=1e-5, atol=1e-5)


def assert_recognised(path, name, words):
    found, why = recognise(path)
    assert found == name
    assert words in why
    sae = load_sae(path)
    assert words in sae.weights.provenance["recognised_by"]
    return sae


def assert_refused(path, words, format="auto"):
    with pytest.raises(SaeError, match=words) as error:
        load_sae(path, format)
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
