"""A limit on what may be read, for a look at files whose size nobody vouches for."""

from __future__ import annotations

from io import BufferedIOBase, BufferedReader, RawIOBase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK_BYTES = 1 << 16


class BudgetSpentError(Exception):
    """As much as was allowed has been read; what came before it is whole."""


class ByteBudget:
    """Bytes that may still be read, counted after decompression."""

    def __init__(self, n_bytes: int) -> None:
        self.n_left = n_bytes

    def check(self) -> None:
        """Raise `BudgetSpentError` when nothing is left."""
        if self.n_left <= 0:
            raise BudgetSpentError

    def spend(self, n_bytes: int) -> None:
        """Count bytes that have been read."""
        self.n_left -= n_bytes


class _Metered(RawIOBase):
    """A binary stream that stops at the end of its budget."""

    def __init__(self, inner: RawIOBase | BufferedIOBase, budget: ByteBudget) -> None:
        self._inner = inner
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._budget.check()
        n_read = self._inner.readinto(memoryview(buffer)[: self._budget.n_left]) or 0
        self._budget.spend(n_read)
        return n_read

    def close(self) -> None:
        self._inner.close()
        super().close()


def meter(stream: RawIOBase | BufferedIOBase, budget: ByteBudget) -> BufferedReader:
    """The stream, raising `BudgetSpentError` where its budget ends."""
    return BufferedReader(_Metered(stream, budget), _CHUNK_BYTES)
