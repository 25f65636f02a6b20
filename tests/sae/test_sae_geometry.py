"""Duplicates and matches against brute force, across block borders."""

import numpy as np
import pytest
import torch

from facviz.errors import SaeError
from facviz.sae import geometry
from facviz.sae.geometry import duplicate_features, encoder_decoder_cosines, match_features
from facviz.sae.weights import Activation, SaeWeights


@pytest.fixture(autouse=True, params=[1, 700, 64 * 2**20], ids=["row by row", "few rows", "one block"])
def block_bytes(request, monkeypatch):
    monkeypatch.setattr(geometry, "_BLOCK_BYTES", request.param)


def rows(n, d=16, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def all_cosines(a, b):
    a, b = (m.double().numpy() for m in (a, b))
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def test_duplicates_are_the_pairs_a_full_table_of_cosines_shows():
    decoder = rows(40, d=4)
    found = duplicate_features(decoder, 0.8)
    cosines = np.triu(all_cosines(decoder, decoder), 1)
    expected = {(int(i), int(j)) for i, j in np.argwhere(cosines >= 0.8)}
    assert {tuple(pair) for pair in found.pairs.tolist()} == expected
    assert found.n_pairs == len(expected) > 10
    assert found.n_features == len({i for pair in expected for i in pair})
    np.testing.assert_allclose(found.cosines, [cosines[i, j] for i, j in found.pairs.tolist()], atol=1e-6)
    assert (found.cosines.diff() <= 0).all()


def test_length_does_not_make_a_duplicate_and_neither_does_the_opposite_direction_or_zero():
    decoder = torch.cat([rows(3), 5 * rows(3)[:1], -rows(3)[1:2], torch.zeros(2, 16)])
    found = duplicate_features(decoder)
    assert found.pairs.tolist() == [[0, 3]]
    assert (found.n_pairs, found.n_features) == (1, 2)


def test_more_duplicates_than_fit_are_still_all_counted_and_the_closest_are_listed():
    decoder = torch.cat([rows(1).repeat(30, 1), rows(2, seed=1), rows(2, seed=1) + 0.02 * rows(2, seed=2)])
    found = duplicate_features(decoder, max_listed=7)
    assert (found.n_pairs, found.n_features) == (30 * 29 // 2 + 2, 34)
    assert len(found.pairs) == 7
    assert (found.pairs < 30).all()


def test_features_all_apart_have_no_duplicates():
    found = duplicate_features(torch.eye(8))
    assert (found.n_pairs, found.n_features, len(found.pairs), len(found.cosines)) == (0, 0, 0, 0)


@pytest.mark.parametrize("cosine", [0.0, -0.5, 1.1, float("nan")])
def test_a_meaningless_cosine_is_refused(cosine):
    with pytest.raises(SaeError, match="make no sense"):
        duplicate_features(rows(3), cosine)


def test_encoder_decoder_cosines_are_those_of_each_feature():
    W_enc, W_dec = rows(6, 10), rows(10, 6, seed=1)
    W_dec[3], W_dec[4] = W_enc[:, 3] * 7, -W_enc[:, 4]
    W_enc[:, 5] = 0
    weights = SaeWeights(W_enc, torch.zeros(10), W_dec, torch.zeros(6), Activation("relu"))
    cosines = encoder_decoder_cosines(weights)
    np.testing.assert_allclose(cosines[:5], np.diag(all_cosines(W_enc.T[:5], W_dec[:5])), atol=1e-6)
    assert cosines[3:6].tolist() == pytest.approx([1.0, -1.0, 0.0])


def test_a_tied_decoder_points_where_its_encoder_does():
    weights = SaeWeights(rows(6, 10), torch.zeros(10), None, torch.zeros(6), Activation("relu"))
    assert encoder_decoder_cosines(weights).tolist() == pytest.approx([1.0] * 10)


@pytest.mark.parametrize("max_assignment", [4096, 0])
def test_a_shuffled_noisy_copy_is_matched_to_itself(max_assignment):
    a, order = rows(50), torch.randperm(50, generator=torch.Generator().manual_seed(1))
    b = 3 * (a + 0.05 * rows(50, seed=2))[order]
    match = match_features(a, b, max_assignment=max_assignment)
    assert match.method == ("optimal assignment" if max_assignment else "mutual nearest")
    assert (order[match.partner] == torch.arange(50)).all()
    assert match.share_matched == 1.0
    cosines = all_cosines(a, b)
    np.testing.assert_allclose(match.nearest_cosine, cosines.max(1), atol=1e-6)
    np.testing.assert_allclose(match.cosine, cosines[np.arange(50), match.partner], atol=1e-6)
    assert match.mean_max_cosine == pytest.approx(cosines.max(1).mean(), abs=1e-6)


@pytest.mark.parametrize("max_assignment", [4096, 0])
@pytest.mark.parametrize(("n_a", "n_b"), [(30, 12), (12, 30), (25, 25)])
def test_nobody_is_matched_twice_and_as_many_as_possible_are(n_a, n_b, max_assignment):
    match = match_features(rows(n_a, 4), rows(n_b, 4, seed=1), max_assignment=max_assignment)
    taken = match.partner[match.partner >= 0].tolist()
    assert len(taken) == len(set(taken)) == min(n_a, n_b)
    assert (match.cosine[match.partner < 0] == 0).all()
    assert (match.cosine <= match.nearest_cosine + 1e-6).all()


def test_the_optimal_assignment_gives_way_where_two_features_want_the_same_partner():
    a = torch.tensor([[1.0, 0.0], [0.9, 0.3]])
    b = torch.tensor([[1.0, 0.2], [0.8, -0.6]])
    assert match_features(a, b).partner.tolist() == [1, 0]
    greedy = match_features(a, b, max_assignment=0)
    assert float(match_features(a, b).cosine.sum()) >= float(greedy.cosine.sum())
    assert match_features(a, b).nearest_cosine.tolist() == pytest.approx(all_cosines(a, b).max(1).tolist())


def test_matching_the_same_direction_many_times_over_comes_to_an_end():
    match = match_features(torch.ones(60, 4), torch.ones(60, 4), max_assignment=0)
    assert 0 < int((match.partner >= 0).sum()) <= 60
    assert len(set(match.partner[match.partner >= 0].tolist())) == int((match.partner >= 0).sum())


def test_unrelated_features_are_not_shared():
    assert match_features(rows(20, 64), rows(20, 64, seed=1)).share_matched == 0.0


@pytest.mark.parametrize("other", [torch.ones(3, 5), torch.ones(4)])
def test_decoders_of_different_models_are_refused(other):
    with pytest.raises(SaeError, match="same model and layer"):
        match_features(torch.ones(3, 4), other)
