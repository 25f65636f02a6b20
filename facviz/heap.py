"""The process's heap while models work: what one batch frees, the next takes again."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's <malloc.h>
_LARGEST = 2**31 - 1
_SETTLED = 32 * 2**20
"""Where glibc's own threshold ends up once large tensors were freed; it stops adjusting itself when one is set."""

_inside = 0
"""How many `freed_memory_kept` are open; only the outermost gives back."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside, memory that is freed stays with the process instead of going back to the system.

    The tensors of a batch come and go alike in every batch; by default the system takes the largest back each time and
    clears them anew: a tenth of a training step, a fifth of a generated token or a forward pass. It costs the size of
    a few such tensors. Without glibc nothing happens.
    """
    global _inside
    try:
        libc = ctypes.CDLL(None)
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError, TypeError):
        yield
        return
    _inside += 1
    mallopt(_MMAP_THRESHOLD, _LARGEST)
    mallopt(_TRIM_THRESHOLD, _LARGEST)
    try:
        yield
    finally:
        _inside -= 1
        if not _inside:
            mallopt(_MMAP_THRESHOLD, _SETTLED)
            mallopt(_TRIM_THRESHOLD, 2 * _SETTLED)
            trim(0)
