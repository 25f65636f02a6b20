"""A streaming shuffle: rows of consecutive documents come out mixed, in constant memory and O(1) per batch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from facviz.errors import InputError

_MIX_FRACTION = 0.5
T = TypeVar("T")


class MixingBuffer(Iterator[Tensor]):
    """Batches [batch_size, d] of all rows of chunks [n, d], each at most once; fewer than a batch stay behind.

    `chunks(i)` yields the chunks from the i-th on. Half of a full buffer stays in to be mixed with what follows; memory
    is about twice `capacity` rows.

    Raises:
        InputError: `capacity` holds fewer than two batches.
    """

    def __init__(
        self, chunks: Callable[[int], Iterable[Tensor]], *, batch_size: int, capacity: int, rng_seed: int
    ) -> None:
        if batch_size < 1 or capacity < 2 * batch_size:
            raise InputError(f"A buffer of {capacity} rows cannot mix batches of {batch_size}; give it at least two.")
        self._open, self._batch_size, self._capacity = chunks, batch_size, capacity
        self._generator = torch.Generator().manual_seed(rng_seed)
        self._chunks: Iterator[Tensor] | None = None
        self._n_chunks = 0
        self._rows: Tensor | None = None
        self._next, self._n_served = 0, 0  # rows are served from `_next` up to `_n_served`

    def __next__(self) -> Tensor:
        """The next batch, a view of the buffer."""
        rows = self._refill() if self._rows is None or self._next == self._n_served else self._rows
        batch = rows[self._next : self._next + self._batch_size]
        self._next += self._batch_size
        return batch

    def _refill(self) -> Tensor:
        if self._chunks is None:
            self._chunks = iter(self._open(self._n_chunks))
        held: list[Tensor] = []
        if self._rows is not None:
            held = [self._rows[self._n_served :].clone()]  # a view would keep the whole buffer alive
            self._rows = None
        n_held = sum(map(len, held))
        while n_held < self._capacity and (chunk := next(self._chunks, None)) is not None:
            held.append(chunk)
            n_held += len(chunk)
            self._n_chunks += 1
        share = 1 - _MIX_FRACTION if n_held >= self._capacity else 1
        self._next, self._n_served = 0, int(n_held * share) // self._batch_size * self._batch_size
        if not self._n_served:
            raise StopIteration
        rows = torch.cat(held)
        held.clear()  # or the unmixed rows would stay alive beside the mixed ones
        self._rows = rows[torch.randperm(len(rows), generator=self._generator).to(rows.device)]
        return self._rows

    def state(self) -> dict[str, Tensor]:
        """Everything the next batch depends on, with what is left of the rows."""
        position = torch.tensor([self._n_chunks, self._n_served - self._next], dtype=torch.int64)
        found = {"position": position, "generator": self._generator.get_state()}
        return found if self._rows is None else found | {"rows": self._rows[self._next :].clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was taken; chunks that came before are not asked for again."""
        self._n_chunks, self._n_served = state["position"].tolist()
        self._next, self._rows, self._chunks = 0, state.get("rows"), None
        self._generator.set_state(state["generator"])


def mixing_buffer(
    chunks: Iterable[Tensor], *, batch_size: int, capacity: int, rng_seed: int, skip_batches: int = 0
) -> Iterator[Tensor]:
    """A `MixingBuffer` over chunks that are cheap to read again; `skip_batches` resumes it exactly.

    Raises:
        InputError: `capacity` holds fewer than two batches.
    """
    buffer = MixingBuffer(
        lambda start: islice(chunks, start, None), batch_size=batch_size, capacity=capacity, rng_seed=rng_seed
    )
    return islice(buffer, skip_batches, None)


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The same items, the next ones made by a thread while one is worked on; its errors are raised here."""
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    is_closed = threading.Event()

    def offer(item: T | None, error: BaseException | None) -> None:
        while not is_closed.is_set():
            try:
                made.put((item, error), timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                offer(item, None)
                if is_closed.is_set():
                    return
            offer(None, StopIteration())
        except BaseException as error:  # the reader must hear of it, whatever it is
            offer(None, error)

    threading.Thread(target=work, name="facviz-prefetch", daemon=True).start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        is_closed.set()
