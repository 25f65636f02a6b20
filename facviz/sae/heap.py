"""The process's heap while an SAE trains: what a step frees, the next step takes again."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's <malloc.h>
_LARGEST = 2**31 - 1
_SETTLED = 32 * 2**20
"""Where glibc's own threshold ends up once large tensors were freed; it stops adjusting itself when one is set."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside, memory that is freed stays with the process instead of going back to the system.

    The tensors of a step come and go alike in every step; by default the system takes the largest back each time and
    clears them anew, a tenth or more of a step. It costs the size of a few such tensors. Without glibc nothing happens.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError, TypeError):
        yield
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST)
    mallopt(_TRIM_THRESHOLD, _LARGEST)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _SETTLED)
        mallopt(_TRIM_THRESHOLD, 2 * _SETTLED)
        trim(0)
