"""Decoder directions against brute force."""

import pytest
import torch
from torch.testing import assert_close

from facviz.errors import SaeError
from facviz.sae import directions
from facviz.sae.directions import nearest_features, output_tokens


@pytest.fixture(params=[True, False], ids=["chunked", "whole"])
def any_chunk(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(directions, "_CHUNK_BYTES", 4 * 100)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weighted", [True, False])
def test_output_tokens_at_both_ends_equal_sorting_every_logit(any_chunk, weighted):
    W_dec, unembedding = randn(9, 5), randn(30, 5, seed=1)
    gain = randn(5, seed=2) if weighted else None
    found = output_tokens(W_dec, unembedding, 4, final_norm_weight=gain)
    for feature in range(9):
        row = W_dec[feature] * (1 if gain is None else gain)
        everything = [float(row @ unembedding[token]) for token in range(30)]
        order = sorted(range(30), key=lambda token: -everything[token])
        assert found.top_ids[feature].tolist() == order[:4]
        assert_close(found.top_logits[feature], torch.tensor([everything[t] for t in order[:4]]))
        assert found.low_ids[feature].tolist() == order[::-1][:4]
        assert_close(found.low_logits[feature], torch.tensor([everything[t] for t in order[::-1][:4]]))


def test_half_precision_unembeddings_are_read():
    found = output_tokens(torch.eye(3), torch.eye(3, dtype=torch.bfloat16), 1)
    assert found.top_ids.flatten().tolist() == [0, 1, 2]


def test_nearest_features_equal_sorting_every_cosine(any_chunk):
    W_dec = randn(12, 4) * torch.linspace(0.1, 5, 12).unsqueeze(1)
    ids, cosines = nearest_features(W_dec, 3)
    for feature in range(12):
        others = [i for i in range(12) if i != feature]
        cosine = {i: float(torch.cosine_similarity(W_dec[feature], W_dec[i], dim=0)) for i in others}
        best = sorted(others, key=lambda i: -cosine[i])[:3]
        assert ids[feature].tolist() == best
        assert_close(cosines[feature], torch.tensor([cosine[i] for i in best]))


def test_more_neighbours_than_there_are_is_refused():
    with pytest.raises(SaeError, match="k fit"):
        nearest_features(randn(4, 3), 4)
    with pytest.raises(SaeError, match="widths must agree"):
        output_tokens(randn(4, 3), randn(4, 2), 1)
