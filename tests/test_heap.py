"""What the heap keeps while models work, and what it gives back."""

import ctypes
import json

import pytest
import torch

from facviz import heap
from facviz.heap import freed_memory_kept

PROGRAM = """
import contextlib, json, pathlib, resource
import torch
from facviz.heap import freed_memory_kept

N_FLOATS = 16 * 2**20  # 64 MB: more than glibc keeps by itself
PAGE = resource.getpagesize()

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(N_FLOATS).fill_(1.0)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * PAGE / (4 * N_FLOATS)

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * PAGE / (4 * N_FLOATS)

seen = {"before": faults(10)}
with contextlib.suppress(RuntimeError), freed_memory_kept():
    with freed_memory_kept():
        pass  # as training within a command
    faults(40)  # to settle
    seen["inside"] = faults(10)
    seen["kept"] = resident()
    raise RuntimeError
seen["given_back"] = seen["kept"] - resident()
print(json.dumps(seen))
"""


def has_glibc():
    try:
        return hasattr(ctypes.CDLL(None), "malloc_trim")
    except (OSError, TypeError):
        return False


@pytest.mark.skipif(not has_glibc(), reason="only glibc can be told")
def test_inside_a_freed_tensor_is_taken_again_and_afterwards_given_back_even_if_training_failed(run_python):
    """In multiples of the tensor: of ten that come and go, how much the system had to hand out."""
    seen = json.loads(run_python(PROGRAM))
    assert seen["before"] > 9, "the system hands out a new tensor each time"
    assert seen["inside"] < 3
    assert seen["given_back"] > 0.9


def test_where_malloc_cannot_be_told_the_work_goes_on(monkeypatch):
    def nothing(_):
        raise OSError

    monkeypatch.setattr(heap.ctypes, "CDLL", nothing)
    with freed_memory_kept():
        assert torch.ones(3).sum() == 3
