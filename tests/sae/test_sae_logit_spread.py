"""The spread of a direction's logits over the vocabulary equals that of the logits themselves."""

import pytest
import torch

from facviz.sae import directions
from facviz.sae.directions import logit_spread


@pytest.mark.parametrize("n_tokens", [300, 5], ids=["large vocabulary", "small vocabulary"])
@pytest.mark.parametrize("chunk_bytes", [directions._CHUNK_BYTES, 4 * 100], ids=["whole", "chunked"])
def test_mean_and_deviation_equal_those_of_the_full_logits(monkeypatch, n_tokens, chunk_bytes):
    monkeypatch.setattr(directions, "_CHUNK_BYTES", chunk_bytes)
    generator = torch.Generator().manual_seed(0)
    W_dec, table = torch.randn(7, 12, generator=generator), torch.randn(n_tokens, 12, generator=generator) + 1.5
    norm = torch.rand(12, generator=generator)
    logits = (W_dec * norm) @ table.T
    mean, std = logit_spread(W_dec, table, final_norm_weight=norm)
    torch.testing.assert_close(mean, logits.mean(dim=1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(std, logits.std(dim=1, correction=0), rtol=1e-4, atol=1e-4)
