"""Encoding and decoding agree with dense arithmetic written out one token at a time."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from facviz.errors import SaeError
from facviz.sae import model
from facviz.sae.codes import Codes, batch_top_k_codes
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, LayerNorm, SaeWeights

D_IN, D_SAE, K = 8, 20, 3
THRESHOLD = torch.linspace(-0.5, 1.5, D_SAE)
ACTIVATIONS = {
    "relu": Activation("relu"),
    "topk": Activation("topk", k=K),
    "jumprelu": Activation("jumprelu", threshold=THRESHOLD),
}


def make_sae(kind="topk", *, tied=False, pre_bias=True):
    rng = torch.Generator().manual_seed(1)
    weights = SaeWeights(
        W_enc=torch.randn(D_IN, D_SAE, generator=rng),
        b_enc=torch.randn(D_SAE, generator=rng),
        W_dec=None if tied else torch.randn(D_SAE, D_IN, generator=rng),
        b_dec=torch.randn(D_IN, generator=rng),
        activation=ACTIVATIONS[kind],
        pre_bias=pre_bias,
    )
    return SAE(weights)


def make_input(n=50):
    return torch.randn(n, D_IN, generator=torch.Generator().manual_seed(2))


def encode_by_loop(sae, x, dense=False):
    """Feature by feature, token by token, in float64."""
    w = sae.weights
    acts = torch.zeros(len(x), D_SAE, dtype=torch.float64)
    for t, row in enumerate(x.double()):
        centred = row - w.b_dec.double() if w.pre_bias else row
        pre = [float(centred @ w.W_enc[:, i].double() + w.b_enc[i].double()) for i in range(D_SAE)]
        ranked = sorted(range(D_SAE), key=lambda i: -pre[i])
        for i in range(D_SAE):
            kept = pre[i] > 0
            if w.activation.kind == "topk" and not dense:
                kept = kept and i in ranked[:K]
            if w.activation.kind == "jumprelu" and not dense:
                kept = kept and pre[i] > float(w.activation.threshold[i])
            acts[t, i] = pre[i] if kept else 0.0
    return acts


@pytest.mark.parametrize("pre_bias", [True, False])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_encoding_equals_the_loop(kind, dense, pre_bias):
    sae, x = make_sae(kind, pre_bias=pre_bias), make_input()
    codes = sae.encode(x, dense=dense)
    assert_close(sae.to_dense(codes).double(), encode_by_loop(sae, x, dense), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_codes_are_positive_and_ascending_within_each_token(kind):
    codes = make_sae(kind).encode(make_input())
    assert bool((codes.values > 0).all())
    assert codes.offsets[0] == 0
    assert codes.offsets[-1] == len(codes.indices) == len(codes.values)
    for start, end in zip(codes.offsets[:-1], codes.offsets[1:]):
        assert bool((codes.indices[start:end].diff() > 0).all())


def test_topk_keeps_at_most_k_and_fewer_where_the_rest_is_negative():
    weights = make_sae("topk").weights
    counts = SAE(weights).encode(make_input()).offsets.diff()
    assert int(counts.max()) == K
    silent = SAE(SaeWeights(weights.W_enc, torch.full((D_SAE,), -1e3), None, weights.b_dec, Activation("topk", k=K)))
    assert len(silent.encode(make_input()).indices) == 0


@pytest.mark.parametrize("tied", [True, False])
def test_sparse_and_dense_decoding_agree_with_the_plain_formula(tied):
    sae, x = make_sae(tied=tied), make_input()
    acts = encode_by_loop(sae, x)
    decoder = sae.weights.W_enc.T if tied else sae.weights.W_dec
    expected = (acts @ decoder.double() + sae.weights.b_dec.double()).float()
    assert_close(sae.decode(sae.encode(x)), expected, rtol=1e-4, atol=1e-4)
    assert_close(sae.decode(sae.encode_dense(x)), expected, rtol=1e-4, atol=1e-4)
    assert_close(sae.reconstruct(x), expected, rtol=1e-4, atol=1e-4)


def test_chunking_over_tokens_does_not_change_the_codes(monkeypatch):
    whole = make_sae().encode(make_input())
    monkeypatch.setattr(model, "_PRE_ACTIVATION_BYTES", (7 * 4 * D_SAE, 0))
    chunked = make_sae().encode(make_input())
    assert torch.equal(whole.indices, chunked.indices)
    assert torch.equal(whole.offsets, chunked.offsets)
    assert_close(whole.values, chunked.values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_is_computed_in_float32(dtype):
    sae, x = make_sae(), make_input().to(dtype)
    codes = sae.encode(x)
    assert codes.values.dtype == torch.float32
    assert torch.equal(codes.values, sae.encode(x.float()).values)


def test_no_tokens_give_empty_codes_that_decode():
    sae = make_sae()
    codes = sae.encode(torch.zeros(0, D_IN))
    assert codes.n_tokens == 0
    assert sae.decode(codes).shape == (0, D_IN)
    assert sae.to_dense(codes).shape == (0, D_SAE)


def test_a_token_without_active_features_decodes_to_the_bias():
    sae = make_sae()
    empty = Codes(torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(2, dtype=torch.int64))
    assert torch.equal(sae.decode(empty)[0], sae.weights.b_dec)


def test_shift_and_scale_undo_a_per_token_normalisation():
    sae, x = make_sae(), make_input(2)
    codes = sae.encode(x)
    shift, scale = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]])
    shifted = Codes(codes.indices, codes.values, codes.offsets, shift, scale)
    assert_close(sae.decode(shifted), sae.decode(codes) * scale + shift)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(3, D_IN + 1), "shape"),
        (torch.zeros(D_IN), "shape"),
        (torch.full((1, D_IN), torch.nan), "NaN"),
        (torch.full((1, D_IN), torch.inf), "infinite"),
    ],
)
def test_activations_that_do_not_fit_are_refused(x, words):
    with pytest.raises(SaeError, match=words):
        make_sae().encode(x)


def test_codes_of_a_larger_sae_are_refused():
    codes = Codes(torch.tensor([D_SAE]), torch.ones(1), torch.tensor([0, 1]))
    with pytest.raises(SaeError, match=f"feature {D_SAE}"):
        make_sae().decode(codes)
    with pytest.raises(SaeError, match="shape"):
        make_sae().decode(torch.zeros(2, D_SAE + 1))


@pytest.mark.parametrize("n_kept", [1, 37, 500, 100_000])
def test_batch_selection_keeps_the_largest_of_the_whole_batch(n_kept):
    pre = torch.randn(90, 40, generator=torch.Generator().manual_seed(3))
    pre[:45] -= 5.0  # nearly everything lies in the second half, where a probe of few rows could miss it
    codes = batch_top_k_codes(pre, n_kept)
    expected = sorted((v for v in pre.flatten().tolist() if v > 0), reverse=True)[:n_kept]
    assert sorted(codes.values.tolist(), reverse=True) == expected
    assert torch.equal(pre[codes.tokens, codes.indices], codes.values)
    assert bool(((codes.tokens * 40 + codes.indices).diff() > 0).all())


def test_a_normalising_sae_reads_normalised_tokens_and_gives_back_their_scale():
    torch.manual_seed(0)
    weights = SaeWeights(
        W_enc=torch.randn(6, 12),
        b_enc=torch.randn(12),
        W_dec=torch.randn(12, 6),
        b_dec=torch.randn(6),
        activation=Activation("relu"),
        input_norm=LayerNorm(eps=1e-5),
    )
    plain = SAE(replace(weights, input_norm=None))
    x = 5 + 3 * torch.randn(7, 6)
    shift, scale = x.mean(1, keepdim=True), x.std(1, keepdim=True)
    expected = plain.reconstruct((x - shift) / (scale + 1e-5)) * scale + shift
    torch.testing.assert_close(SAE(weights).reconstruct(x), expected)
    with pytest.raises(SaeError, match="normalises every token"):
        SAE(weights).decode(SAE(weights).encode_dense(x))


def test_group_max_keeps_the_largest_of_each_run_of_features_if_it_is_positive():
    pre = torch.tensor([[1.0, 2.0, -3.0, -1.0], [5.0, 4.0, 0.5, 0.25]])
    weights = SaeWeights(torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4), Activation("groupmax", k=2))
    assert SAE(weights).encode_dense(pre).tolist() == [[0.0, 2.0, 0.0, 0.0], [5.0, 0.0, 0.5, 0.0]]


@pytest.mark.parametrize("activation", [Activation("relu"), Activation("jumprelu", threshold=torch.full((12,), 0.7))])
def test_features_alone_are_what_they_are_among_all(activation):
    torch.manual_seed(1)
    weights = SaeWeights(torch.randn(6, 12), torch.randn(12), torch.randn(12, 6), torch.randn(6), activation)
    x = torch.randn(9, 6)
    torch.testing.assert_close(SAE(weights).encode_features(x, [7, 0]), SAE(weights).encode_dense(x)[:, [7, 0]])


def test_features_that_compete_are_not_encoded_alone():
    weights = SaeWeights(torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4), Activation("topk", k=2))
    with pytest.raises(SaeError, match="compete"):
        SAE(weights).encode_features(torch.zeros(1, 4), [0])


def pursue_by_loop(sae, x, k):
    """Token by token in float64: the nearest row, what it explains taken away, k times."""
    w = sae.weights
    rows, acts = w.decoder.double(), torch.zeros(len(x), D_SAE, dtype=torch.float64)
    for t, row in enumerate(x.double() - w.b_dec.double()):
        left = row.clone()
        for _ in range(k):
            best = max(range(D_SAE), key=lambda i: float(left @ rows[i]))
            strength = max(0.0, float(left @ rows[best]))
            acts[t, best] += strength
            left -= strength * rows[best]
    return acts


def make_pursuit(k):
    rows = torch.nn.functional.normalize(torch.randn(D_SAE, D_IN, generator=torch.Generator().manual_seed(3)), dim=1)
    b_dec = torch.randn(D_IN, generator=torch.Generator().manual_seed(4))
    activation = Activation("matching_pursuit", k=k)
    return SAE(SaeWeights(rows.T.contiguous(), torch.zeros(D_SAE), None, b_dec, activation))


@pytest.mark.parametrize("k", [1, 3, 12])
def test_a_pursuit_equals_the_loop_also_where_it_takes_a_row_again(k):
    sae, x = make_pursuit(k), make_input()
    codes = sae.encode(x)
    expected = pursue_by_loop(sae, x, k)
    assert_close(sae.to_dense(codes).double(), expected, rtol=1e-4, atol=1e-5)
    assert_close(
        sae.decode(codes).double(), expected @ sae.W_dec.double() + sae.weights.b_dec.double(), rtol=1e-4, atol=1e-4
    )
    assert int(codes.offsets.diff().max()) <= k
    if k == 12:
        assert int(codes.offsets.diff().min()) < k


def test_a_pursuit_needs_one_matrix():
    weights = make_pursuit(2).weights
    with pytest.raises(SaeError, match="one matrix"):
        replace(weights, W_dec=weights.decoder)
