"""Writing safetensors files block by block, so that storing an SAE takes no second copy of it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facviz.errors import SaeError

_BLOCK_BYTES = 32 * 2**20
_NAMES = {torch.float32: "F32", torch.float16: "F16"}
_ALIGNMENT = 8


def write_tensors(path: Path, tensors: Mapping[str, tuple[Tensor, torch.dtype]]) -> None:
    """Write tensors, also transposed views, in the dtype beside each: float32 or float16.

    Raises:
        SaeError: a value is not finite in its dtype.
    """
    # Wider values come first, so that every tensor begins at a multiple of its own width.
    ordered = sorted(tensors.items(), key=lambda named: -named[1][1].itemsize)
    with path.open("wb") as file:
        file.write(_header(ordered))
        for _, (tensor, dtype) in ordered:
            for block in _blocks(tensor.detach(), dtype):
                file.write(block.numpy().data)


def _header(ordered: list[tuple[str, tuple[Tensor, torch.dtype]]]) -> bytes:
    entries: dict[str, Any] = {}
    start = 0
    for name, (tensor, dtype) in ordered:
        end = start + tensor.numel() * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _blocks(tensor: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    rows = max(1, _BLOCK_BYTES * len(tensor) // max(1, tensor.nbytes))
    for part in torch.split(tensor, rows):
        block = part.cpu().to(dtype).contiguous()
        if not bool(torch.isfinite(block).all()):
            raise SaeError("A weight is too large for float16; save the SAE in full precision.")
        yield block
