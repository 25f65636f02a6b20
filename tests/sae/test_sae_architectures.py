"""Every architecture's step: its gradients equal dense autograd's, its export computes what training computed."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from facviz.config import SaeConfig
from facviz.sae import train
from facviz.sae.architectures import ARCHITECTURES
from facviz.sae.architectures.jumprelu import BANDWIDTH
from facviz.sae.model import SAE
from facviz.sae.train import Plan

D_IN, D_SAE, K, N = 12, 48, 5, 96


def make_acts(n, seed):
    directions = torch.randn(30, D_IN, generator=torch.Generator().manual_seed(99))
    rng = torch.Generator().manual_seed(seed)
    strengths = torch.rand(n, 30, generator=rng) * (torch.rand(n, 30, generator=rng) < 0.1)
    return 3 * strengths @ directions + 2


SAMPLE = make_acts(2000, 7)


def make_run(name, n_steps=20, k=K, **settings):
    config = SaeConfig(architecture=name, d_sae=D_SAE, k=k, batch_tokens=N, epochs=1, **settings)
    run = train._Run(Plan(config, SAMPLE), n_steps)
    run.architecture.selection_dtype = torch.float32
    return run


@pytest.fixture
def exact(monkeypatch):
    """Selection in float32, as the dense references choose."""
    monkeypatch.setattr(train, "selection_dtype", lambda device: torch.float32)


def jump(pre, threshold):
    """acts and firing with the rectangle's pseudo-derivatives above zero, written as one dense expression."""
    fires = (pre > threshold).float()
    near = (((pre - threshold).abs() < BANDWIDTH / 2) & (pre > 0)).float() / BANDWIDTH
    acts = pre * fires - (threshold * near).detach() * (threshold - threshold.detach())
    return acts, fires - near.detach() * (threshold - threshold.detach())


def keep_top(pre, k):
    top = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())


def keep_top_of_batch(pre, k):
    cutoff = pre.flatten().topk(k * len(pre)).values.min()
    return pre.relu() * (pre >= cutoff)


def dense_loss(name, x, p, weight):
    """The published loss of each architecture on dense [n, d_sae] matrices."""
    centred = x - p["b_dec"]
    pre = centred @ p["W_enc"].T + p["b_enc"]
    if name == "paper":
        acts = keep_top(pre, D_SAE)  # ten times k is more than there are
        return (((centred - acts @ p["W_enc"]) ** 2).sum(1) / (x**2).sum(1)).mean()
    if name == "gated":
        gate = pre.relu()
        acts = (p["r_mag"].exp() * (centred @ p["W_enc"].T) + p["b_mag"]).relu() * (pre > 0)
        by_gates = x - p["b_dec"].detach() - gate @ p["W_dec"].detach()
        return mse(centred - acts @ p["W_dec"]) + mse(by_gates) + weight * gate.sum() / len(x)
    if name == "jumprelu":
        acts, fires = jump(pre, p["log_threshold"].exp())
        return mse(centred - acts @ p["W_dec"]) + weight * fires.sum() / len(x)
    if name == "relu":
        return mse(centred - pre.relu() @ p["W_dec"]) + weight * pre.relu().sum() / len(x)
    if name == "matryoshka":
        acts = keep_top_of_batch(pre, K)
        return torch.stack(
            [mse(centred - acts[:, :w] @ p["W_dec"][:w]) for w in (D_SAE // 16, D_SAE // 4, D_SAE)]
        ).mean()
    acts = keep_top(pre, K) if name == "topk" else keep_top_of_batch(pre, K)
    return mse(centred - acts @ p["W_dec"])


def mse(error):
    return (error**2).mean()


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"matching_pursuit"}))
def test_the_gradients_of_a_sparse_step_are_those_of_dense_autograd(name, exact):
    run = make_run(name)
    for seed in range(3):  # away from the start, where encoder and decoder are equal
        run.train_on(make_acts(N, seed))
    x = make_acts(N, 50) * run.input_scale
    weight = run.architecture.sparsity.weight if hasattr(run.architecture, "sparsity") else 0.0
    number = 0 if name == "paper" else run.step
    step = run.architecture.step(x, run.parameters, number)
    step.loss.backward()
    dense = {n: t.detach().clone().requires_grad_() for n, t in run.named.items()}
    expected = dense_loss(name, x, dense, weight)
    expected.backward()
    assert_close(step.loss, expected, rtol=1e-5, atol=1e-7)
    for n, parameter in run.named.items():
        assert float(dense[n].grad.abs().max()) > 0, n
        assert_close(parameter.grad, dense[n].grad, rtol=1e-5, atol=1e-6, msg=lambda text, n=n: f"{n}: {text}")


def test_a_pursuits_gradient_is_that_of_its_dictionary_at_the_activations_it_gave(exact):
    run = make_run("matching_pursuit")
    run.train_on(make_acts(N, 0))
    x = make_acts(N, 50) * run.input_scale
    step = run.architecture.step(x, run.parameters, run.step)
    step.loss.backward()
    W, b_dec = (run.named[name].detach().clone().requires_grad_() for name in ("W_enc", "b_dec"))
    acts = torch.zeros(N, D_SAE)
    acts[step.pattern.tokens, step.pattern.features] = step.acts
    mse(x - b_dec - acts @ W).backward()
    assert_close(run.named["W_enc"].grad, W.grad, rtol=1e-5, atol=1e-6)
    assert_close(run.named["b_dec"].grad, b_dec.grad, rtol=1e-5, atol=1e-6)
    assert float(run.named["b_enc"].grad.abs().max()) == 0


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"batchtopk", "matryoshka"}))
def test_the_export_activates_what_a_training_step_did(name, exact):
    """BatchTopK and its kin export a threshold instead of the batch's competition: see their own test."""
    run = make_run(name)
    for seed in range(20):
        run.train_on(make_acts(N, seed))
    x = make_acts(N, 60)
    with torch.no_grad():
        step = run.architecture.step(x * run.input_scale, run.parameters, run.step)
    acts = torch.zeros(N, D_SAE)
    acts[step.pattern.tokens, step.pattern.features] = step.acts / run.input_scale
    sae = SAE(run.export())
    assert_close(sae.encode_dense(x), acts, rtol=1e-4, atol=1e-4)
    assert_close(x - sae.reconstruct(x), step.error / run.input_scale, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_training_goes_on_where_an_export_ended(name, exact):
    run = make_run(name)
    for seed in range(20):
        run.train_on(make_acts(N, seed))
    finished = run.export()
    again = train._Run(Plan(run.config, SAMPLE, start=finished), 20)
    x = make_acts(N, 70)
    assert_close(SAE(again.export()).reconstruct(x), SAE(finished).reconstruct(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["relu", "gated", "jumprelu"])
def test_the_penalty_brings_l0_to_k_whatever_it_was_at_the_start(name):
    steps = []
    k = 2  # three features are active on a token, so the penalty is needed to the end
    run = make_run(name, n_steps=400, k=k, learning_rate=5e-3)
    for seed in range(400):
        steps.append(run.train_on(make_acts(N, seed)))
    assert steps[0].l0 > 3 * k
    assert sum(s.l0 for s in steps[-40:]) / 40 == pytest.approx(k, rel=0.2)
    assert steps[-1].fvu < 0.7


def test_a_fixed_coefficient_is_left_alone():
    run = make_run("relu", sparsity_coefficient=0.25)
    run.train_on(SAMPLE[:N])
    assert run.architecture.sparsity.weight == 0.25


def test_one_step_of_the_papers_recipe_is_what_a_person_computes():
    """One token, one feature that fires: loss and first Adam step by hand."""
    config = SaeConfig(architecture="paper", d_sae=2, k=1, batch_tokens=1, epochs=1)
    run = train._Run(Plan(config, torch.tensor([[3.0, 4.0], [1.0, 0.0]])), 10)
    with torch.no_grad():
        run.parameters.W_enc.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    report = run.train_on(torch.tensor([[3.0, 4.0]]))
    # pre = [3, −3]; the first fires with 3 and rebuilds (3, 0); what is left is (0, 4): 16 of 25.
    assert report.loss == pytest.approx(16 / 25)
    # ∂loss/∂w₁ = 2/25 · (−error·act − (error·w₁)·x) = 2/25 · (−(0, 12) − 0) = (0, −0.96): Adam steps by the rate, up.
    moved = run.parameters.W_enc.detach() - torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert_close(moved, torch.tensor([[0.0, 1e-3], [0.0, 0.0]]), rtol=1e-4, atol=1e-9)
    assert run.parameters.W_dec is None


def test_the_papers_k_falls_in_a_line_over_half_the_first_epoch():
    config = SaeConfig(architecture="paper", d_sae=D_SAE * 10, k=4, batch_tokens=N, epochs=2)
    run = train._Run(Plan(config, SAMPLE), 40)
    assert [run.architecture.k_at(step) for step in (0, 5, 10, 11, 39)] == [40, 22, 4, 4, 4]
    assert run.recipe.learning_rate_at(0) == run.recipe.learning_rate_at(39) == 1e-3


def test_matryoshka_widths_end_with_the_whole_dictionary():
    run = make_run("matryoshka", matryoshka_widths=(8, 16, 4000))
    assert run.architecture.widths == (8, 16, D_SAE)


def test_several_on_one_pass_end_as_each_would_alone():
    configs = [
        SaeConfig(architecture=name, d_sae=D_SAE, k=k, batch_tokens=N, epochs=1)
        for name, k in (("batchtopk", 4), ("topk", 6), ("relu", 5))
    ]
    batches = lambda start: (make_acts(N, seed) for seed in range(start, 12))  # noqa: E731
    together = train.train_together(train.Replayed(batches), [Plan(c, SAMPLE) for c in configs], n_steps=12)
    for config, weights in zip(configs, together):
        alone = train.train_sae(batches, config, d_in=D_IN, n_steps=12, init_sample=SAMPLE)
        assert torch.equal(alone.W_enc, weights.W_enc)
        assert torch.equal(alone.b_dec, weights.b_dec)


def test_layers_side_by_side_are_trained_apart():
    both = lambda start: (  # noqa: E731
        torch.cat([make_acts(N, seed), 2 * make_acts(N, seed + 100)], dim=1) for seed in range(start, 8)
    )
    config = SaeConfig(d_sae=D_SAE, k=K, batch_tokens=N, epochs=1)
    plans = [
        Plan(config, SAMPLE, columns=slice(0, D_IN)),
        Plan(config, 2 * make_acts(2000, 8), columns=slice(D_IN, 2 * D_IN)),
    ]
    _, second = train.train_together(train.Replayed(both), plans, n_steps=8)
    alone = train.train_sae(
        lambda start: (2 * make_acts(N, seed + 100) for seed in range(start, 8)),
        config, d_in=D_IN, n_steps=8, init_sample=2 * make_acts(2000, 8),
    )  # fmt: skip
    assert torch.equal(alone.W_enc, second.W_enc)


def test_training_further_with_another_architecture_is_refused_in_words():
    finished = make_run("topk").export()
    with pytest.raises(train.SaeError, match="cannot be trained further as relu; architectures that can: topk, paper"):
        train._Run(Plan(replace(make_run("relu").config), SAMPLE, start=finished), 20)
