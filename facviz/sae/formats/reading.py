"""Reading files of unknown origin safely: nothing is executed, and sizes are checked before memory is taken.

Every function raises `SaeError` with a sentence for a file that is damaged, unsafe or larger than it may be.
"""

from __future__ import annotations

import json
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from facviz.errors import SaeError

MAX_JSON_BYTES = 16 * 2**20
_MAX_HEADER_BYTES = 100 * 2**20
"""What the safetensors library itself allows."""
_DAMAGE = (
    *(OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, EOFError, MemoryError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)
"""What the archive readers raise on damaged or lying files."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a small file."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise SaeError(f"{path} is no configuration: it is larger than {MAX_JSON_BYTES // 2**20} MB.")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SaeError(f"{path} is not readable JSON ({error}); fetch it again.") from error
    if not isinstance(found, dict):
        raise SaeError(f"{path} holds no JSON object; it is no configuration of an SAE.")
    return found


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, from the header alone."""
    _check_header(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise SaeError(f"{path} is not a whole safetensors file ({error}); fetch it again.") from error


def read_safetensors(path: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The named tensors (None: all) as they are stored; check `safetensors_shapes` before."""
    _check_header(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in (file.keys() if names is None else names)}
    except (OSError, safetensors.SafetensorError) as error:
        raise SaeError(f"{path} is not a whole safetensors file ({error}); fetch it again.") from error


def _check_header(path: Path) -> None:
    """The first eight bytes are a length that a hostile file may set to anything."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise SaeError(f"{path} cannot be read ({error}); check the path.") from error
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
        raise SaeError(f"{path} is no whole safetensors file: its header does not fit into it; fetch it again.")


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, if it is tensors and plain containers; memory-mapped, so nothing is copied yet."""
    try:
        if not zipfile.is_zipfile(path):
            raise SaeError(
                f"{path} is not in torch's zip format, and older pickles are not opened; save it again with torch 2."
            )
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise SaeError(
            f"{path} holds more than tensors and plain values, which could run code when opened; ask for safetensors."
        ) from error
    except _DAMAGE as error:
        raise SaeError(f"{path} cannot be read as a torch file ({_first_line(error)}); fetch it again.") from error


def torch_names(path: Path) -> frozenset[str]:
    """The strings in what `torch.save` wrote, read without unpickling; empty for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next(entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl"))
            if entry.file_size > MAX_JSON_BYTES:
                return frozenset()
            operations = pickletools.genops(archive.read(entry))
            return frozenset(argument for _, argument, _ in operations if isinstance(argument, str))
    except (*_DAMAGE, StopIteration):
        return frozenset()


def read_npz(path: Path) -> dict[str, Tensor]:
    """All arrays of a NumPy archive; arrays of Python objects are refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
            stored = sum(entry.compress_size for entry in archive.infolist())
        if claimed > 64 * max(stored, 1):
            raise SaeError(f"{path} claims to unpack to {claimed:,} bytes from {stored:,}; it is no array archive.")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except _DAMAGE as error:
        raise SaeError(
            f"{path} cannot be read as an archive of numeric arrays ({_first_line(error)}); fetch it again."
        ) from error


def float_tensors(found: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a mapping from names, as float32 without copying those that are; other values are refused."""
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise SaeError(f"{path} does not hold a table of tensors; it is no checkpoint of this format.")
    if not all(_is_plain(tensor) for tensor in found.values()):
        raise SaeError(f"{path} holds tensors that are complex, sparse or larger than what they store; it is damaged.")
    return {str(name): tensor.to(torch.float32) for name, tensor in found.items()}


def _is_plain(tensor: Tensor) -> bool:
    """A small file can describe a huge tensor by repeating one stored value."""
    if tensor.layout is not torch.strided or tensor.is_complex():
        return False
    return tensor.nbytes <= tensor.untyped_storage().nbytes()


def require(
    shapes: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    path: Path,
    optional: Iterable[str] = (),
) -> None:
    """Exactly the expected tensors, in the expected shapes, and none beside them but the `optional`."""
    missing = sorted(expected.keys() - shapes.keys())
    if missing:
        raise SaeError(f"{path} lacks the tensor {missing[0]}; fetch it again or give the inference export.")
    unknown = sorted(shapes.keys() - expected.keys() - set(optional))
    if unknown:
        raise SaeError(f"{path} holds the tensor {unknown[0]}, which facviz cannot express; use another SAE.")
    for name, shape in expected.items():
        if tuple(shapes[name]) != tuple(shape):
            raise SaeError(f"In {path}, {name} has shape {tuple(shapes[name])}, but it must be {tuple(shape)}.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
