"""The mixing buffer loses and repeats nothing, mixes, and resumes exactly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facviz.errors import InputError
from facviz.sae.buffer import mixing_buffer


def chunks_of(sizes):
    start = 0
    for size in sizes:
        yield torch.arange(start, start + size).unsqueeze(1).float()
        start += size


def serve(sizes, **options):
    return list(mixing_buffer(chunks_of(sizes), **({"batch_size": 8, "capacity": 40, "rng_seed": 0} | options)))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 60), max_size=12),
    batch_size=st.integers(1, 9),
    capacity=st.integers(18, 70),
)
def test_every_row_is_served_once_except_fewer_than_a_batch(sizes, batch_size, capacity):
    batches = serve(sizes, batch_size=batch_size, capacity=capacity)
    rows = torch.cat(batches).flatten().tolist() if batches else []
    assert all(len(batch) == batch_size for batch in batches)
    assert len(rows) == len(set(rows))
    assert set(rows) <= set(range(sum(sizes)))
    assert 0 <= sum(sizes) - len(rows) < batch_size


def test_the_order_depends_on_the_seed_alone():
    first, second, other = (serve([50, 50, 50], rng_seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert any(not torch.equal(a, b) for a, b in zip(first, other))


def test_skipping_batches_resumes_exactly():
    whole, resumed = serve([30] * 8), serve([30] * 8, skip_batches=7)
    assert len(resumed) == len(whole) - 7
    assert all(torch.equal(a, b) for a, b in zip(whole[7:], resumed))


def test_rows_of_different_chunks_meet_in_a_batch():
    batches = serve([20] * 20, batch_size=10, capacity=100)
    chunks_met = [len({int(row) // 20 for row in batch.flatten()}) for batch in batches]
    assert sum(chunks_met) / len(chunks_met) > 3


def test_the_stream_is_read_no_further_than_the_buffer_needs():
    read = []

    def endless():
        while True:
            read.append(1)
            yield torch.zeros(10, 1)

    stream = mixing_buffer(endless(), batch_size=8, capacity=40, rng_seed=0)
    next(stream)
    assert len(read) == 4


def test_a_buffer_too_small_to_mix_is_refused():
    with pytest.raises(InputError, match="at least two"):
        serve([10], batch_size=8, capacity=15)
