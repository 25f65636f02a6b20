"""The sparse training kernels against plain dense autograd."""

import pytest
import torch
from torch.testing import assert_close

from facviz.sae.codes import largest, top_k_codes
from facviz.sae.ops import (
    Pattern,
    dots_at,
    encode_at,
    mean_square,
    residual_at,
    row_dots,
    sum_by_feature,
    sum_by_token,
)
from facviz.sae.revival import longest_silent, revival_loss, revive

N, D_IN, D_SAE, K = 40, 12, 64, 5


def make_parameters():
    """`x` has no gradient: it is data."""
    rng = torch.Generator().manual_seed(0)
    shapes = {"x": (N, D_IN), "W_enc": (D_SAE, D_IN), "b_enc": (D_SAE,), "W_dec": (D_SAE, D_IN), "b_dec": (D_IN,)}
    made = {name: torch.randn(*shape, generator=rng) for name, shape in shapes.items()}
    return {name: tensor.requires_grad_(name != "x") for name, tensor in made.items()}


def sparse_step(p):
    centred = p["x"] - p["b_dec"]
    pre = torch.addmm(p["b_enc"], centred, p["W_enc"].T).detach()
    pattern = Pattern.of(top_k_codes(pre, K), D_SAE)
    acts = encode_at(centred, p["W_enc"], p["b_enc"], p["b_dec"], pattern).relu()
    return residual_at(centred, acts, p["W_dec"], pattern).square().mean()


def dense_step(p):
    pre = torch.addmm(p["b_enc"], p["x"] - p["b_dec"], p["W_enc"].T)
    top = pre.topk(K, dim=1)
    acts = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    return (acts @ p["W_dec"] + p["b_dec"] - p["x"]).square().mean()


def test_a_sparse_step_has_the_loss_and_every_gradient_of_dense_autograd():
    sparse, dense = make_parameters(), make_parameters()
    losses = sparse_step(sparse), dense_step(dense)
    assert_close(losses[0], losses[1], rtol=1e-5, atol=0.0)
    for loss in losses:
        loss.backward()
    assert sparse["x"].grad is None
    for name, parameter in sparse.items():
        if name == "x":
            continue
        assert_close(parameter.grad, dense[name].grad, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        assert float(parameter.grad.abs().max()) > 0


def test_the_three_sums_equal_their_loops():
    p = {name: tensor.detach() for name, tensor in make_parameters().items()}
    pattern = Pattern.of(top_k_codes(p["x"] @ p["W_enc"].T, K), D_SAE)
    values = torch.randn(len(pattern.features), generator=torch.Generator().manual_seed(4))
    by_token, by_feature = torch.zeros(N, D_IN), torch.zeros(D_SAE, D_IN)
    dots = []
    for token, feature, value in zip(pattern.tokens.tolist(), pattern.features.tolist(), values):
        by_token[token] += value * p["W_dec"][feature]
        by_feature[feature] += value * p["x"][token]
        dots.append(p["x"][token] @ p["W_enc"][feature])
    assert_close(sum_by_token(pattern, values, p["W_dec"]), by_token)
    assert_close(sum_by_feature(pattern, values, p["x"]), by_feature)
    assert_close(dots_at(pattern, p["x"], p["W_enc"]), torch.stack(dots), rtol=1e-5, atol=1e-5)


def test_gradients_repeat_bitwise():
    first, second = make_parameters(), make_parameters()
    sparse_step(first).backward()
    sparse_step(second).backward()
    assert all(torch.equal(first[name].grad, second[name].grad) for name in first if name != "x")


def test_the_revival_gradient_reaches_the_dead_encoder_rows_and_no_living_one():
    p = make_parameters()
    dead = torch.tensor([3, 17, 40])
    residual = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(5)).requires_grad_()
    weights = [p[name] for name in ("W_enc", "b_enc", "W_dec")]
    revive(residual, p["x"], weights, dead, 2).add_to(weights, 1.0)
    living = torch.ones(D_SAE, dtype=torch.bool)
    living[dead] = False
    for name in ("W_enc", "b_enc", "W_dec"):
        assert float(p[name].grad[dead].abs().max()) > 0
        assert float(p[name].grad[living].abs().max()) == 0
    assert residual.grad is None
    assert p["x"].grad is None


def test_the_revival_gradient_is_autograds_through_the_whole_matrices_and_adds_to_what_is_there():
    p, q = make_parameters(), make_parameters()
    dead = torch.tensor([2, 11, 30, 44])
    residual = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(5))
    weights, whole = ([of[name] for name in ("W_enc", "b_enc", "W_dec")] for of in (p, q))
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    revival = revive(residual, p["x"], weights, dead, 2)
    revival.add_to(weights, 0.5)
    loss = revival_loss(residual, q["x"].detach(), tuple(weight[dead] for weight in whole), 2)
    loss.backward()
    assert_close(revival.loss, loss.detach())
    for mine, theirs in zip(weights, whole):
        assert_close(mine.grad, 1 + 0.5 * theirs.grad, rtol=1e-5, atol=1e-6)


def test_the_revival_loss_is_the_unexplained_share_of_the_residual():
    p = {name: tensor.detach() for name, tensor in make_parameters().items()}
    residual = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(6))
    dead, aux_k = torch.tensor([1, 5, 9, 30]), 2
    error = 0.0
    for row, left in zip(p["x"], residual):
        acts = {int(i): float(row @ p["W_enc"][i] + p["b_enc"][i]) for i in dead}
        best = sorted(acts, key=acts.get, reverse=True)[:aux_k]
        explained = sum(max(acts[i], 0.0) * p["W_dec"][i] for i in best)
        error += float((left - explained).square().sum())
    variance = float((residual - residual.mean(0)).square().sum())
    loss = revival_loss(residual, p["x"], (p["W_enc"][dead], p["b_enc"][dead], p["W_dec"][dead]), aux_k)
    assert_close(float(loss), error / variance, rtol=1e-5, atol=0.0)


def test_without_dead_features_there_is_nothing_to_revive():
    p = make_parameters()
    nobody = longest_silent(torch.tensor([0, 10, 10]), 10, 5)
    assert len(nobody) == 0
    weights = [p[name] for name in ("W_enc", "b_enc", "W_dec")]
    assert revive(p["x"], p["x"], weights, nobody, 4) is None
    assert revive(p["x"], p["x"], weights, torch.tensor([1]), 0) is None


def test_the_longest_silent_features_come_first():
    silent = torch.tensor([5, 90, 0, 70, 90])
    assert longest_silent(silent, 50, 10).tolist() == [1, 4, 3]
    assert longest_silent(silent, 50, 2).tolist() == [1, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("d", "k"), [(8, 2), (64, 2), (512, 4), (1024, 4), (1000, 30), (4096, 32)])
def test_the_largest_of_wide_rows_are_those_of_a_plain_search(d, k, dtype):
    pre = torch.randn(17, d, generator=torch.Generator().manual_seed(d)).to(dtype)
    found = largest(pre, k)
    assert found.shape == (17, k)
    assert all(len(set(row)) == k for row in found.tolist())
    assert_close(pre.gather(1, found).sort(1).values, pre.topk(k, dim=1).values.sort(1).values, rtol=0, atol=0)


def test_equal_entries_are_each_taken_once():
    assert sorted(largest(torch.ones(1, 256), 8)[0].tolist()) == sorted(set(largest(torch.ones(1, 256), 8)[0].tolist()))


def test_the_mean_square_has_the_gradient_of_autograd():
    values = torch.randn(7, 5, generator=torch.Generator().manual_seed(2)).requires_grad_()
    twin = values.detach().clone().requires_grad_()
    for square, leaf in ((mean_square(values), values), (twin.square().mean(), twin)):
        (3 * square).backward()
        assert leaf.grad is not None
    assert_close(mean_square(values), twin.square().mean())
    assert_close(values.grad, twin.grad)


def test_row_dots_are_those_of_rows_of_equal_place():
    first, second = torch.randn(5, 7), torch.randn(5, 7)
    assert_close(row_dots(first, second), (first * second).sum(1))
    assert row_dots(first[:0], second[:0]).shape == (0,)
