"""A streaming shuffle: rows of consecutive documents come out mixed, in constant memory and O(1) per batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor

from facviz.errors import InputError

_MIX_FRACTION = 0.5


def mixing_buffer(
    chunks: Iterable[Tensor], *, batch_size: int, capacity: int, rng_seed: int, skip_batches: int = 0
) -> Iterator[Tensor]:
    """Batches [batch_size, d] of all rows of `chunks` [n, d], each at most once; fewer than a batch stay behind.

    Half of a full buffer stays in to be mixed with what follows; memory is about twice `capacity` rows.
    `skip_batches` drops that many first batches, for an exact resumption.

    Raises:
        InputError: `capacity` holds fewer than two batches.
    """
    if batch_size < 1 or capacity < 2 * batch_size:
        raise InputError(f"A buffer of {capacity} rows cannot mix batches of {batch_size}; give it at least two.")
    return islice(_serve(chunks, batch_size, capacity, rng_seed), skip_batches, None)


def _serve(chunks: Iterable[Tensor], batch_size: int, capacity: int, rng_seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(rng_seed)
    held: list[Tensor] = []
    n_held = 0
    for chunk in chunks:
        held.append(chunk)
        n_held += len(chunk)
        if n_held < capacity:
            continue
        rows = _permute(held, generator)
        held = []  # or the unmixed rows would stay alive beside the mixed ones
        n_served = int(n_held * (1 - _MIX_FRACTION)) // batch_size * batch_size
        yield from torch.split(rows[:n_served], batch_size)
        held = [rows[n_served:].clone()]  # a view would keep the whole buffer alive
        n_held -= n_served
        del rows
    if n_held >= batch_size:
        yield from torch.split(_permute(held, generator)[: n_held // batch_size * batch_size], batch_size)


def _permute(parts: list[Tensor], generator: torch.Generator) -> Tensor:
    rows = torch.cat(parts)
    return rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
