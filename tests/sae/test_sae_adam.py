"""The optimiser of a run against torch's own."""

from __future__ import annotations

import torch
from torch.nn import Parameter
from torch.testing import assert_close

from facviz.sae.adam import Adam


def made(n=2):
    generator = torch.Generator().manual_seed(1)
    first = [torch.randn(6, 4, generator=generator), torch.randn(5, generator=generator)]
    return [[Parameter(tensor.clone()) for tensor in first] for _ in range(n)]


def test_steps_are_those_of_torch_with_a_rate_for_each_parameter_and_betas():
    ours, theirs = made()
    adam = Adam({"a": ours[0], "b": ours[1]}, {"b": 3.0}, (0.5, 0.95), 1e-8)
    groups = [{"params": [theirs[0]], "factor": 1.0}, {"params": [theirs[1]], "factor": 3.0}]
    reference = torch.optim.Adam(groups, betas=(0.5, 0.95), eps=1e-8, fused=True)
    for number in range(5):
        rate = 0.1 / (number + 1)
        for group in reference.param_groups:
            group["lr"] = rate * group["factor"]
        for parameter in (*ours, *theirs):
            parameter.grad = (number + 1) * parameter.detach().cos()
        adam.step(rate)
        reference.step()
        for mine, their in zip(ours, theirs):
            assert_close(mine, their, rtol=0, atol=0)
            assert mine.grad is None
    assert float(adam.n_steps) == 5


def test_a_parameter_without_a_gradient_stays():
    [(moved, still)] = made(1)
    before = still.detach().clone()
    moved.grad = torch.ones_like(moved)
    Adam({"a": moved, "b": still}, {}, (0.9, 0.999), 1e-8).step(0.1)
    assert torch.equal(still, before)
