"""What a model has read, with room for what it will write: a new token is put in its place, and nothing is copied.

transformers' own cache is copied whole for every token, three quarters of the time that writing took.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values [rows, heads, places, width] at the start of tensors that have `room` places more."""

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room
        self._held: dict[str, Tensor] = {}

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Append the new places; all that are known, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._appended("keys", self.keys, key_states)
        self.values = self._appended("values", self.values, value_states)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order and as often as they are named."""
        if self.keys is not None and self.values is not None and self.get_seq_length() > 0:
            self.keys = self._selected("keys", self.keys, indices)
            self.values = self._selected("values", self.values, indices)

    def _appended(self, name: str, known: Tensor | None, new: Tensor) -> Tensor:
        n_known = known.shape[-2] if known is not None and known.numel() else 0
        n = n_known + new.shape[-2]
        held = self._held.get(name)
        if held is None or known is None or known.data_ptr() != held.data_ptr() or n > held.shape[-2]:
            held = self._make(name, (*new.shape[:-2], n, new.shape[-1]), new)
            if known is not None and n_known:
                held[..., :n_known, :] = known
        held[..., n_known:n, :] = new
        return held[..., :n, :]

    def _selected(self, name: str, known: Tensor, indices: Tensor) -> Tensor:
        n = known.shape[-2]
        held = self._make(name, (len(indices), *known.shape[1:]), known)
        held[..., :n, :] = known[indices]
        return held[..., :n, :]

    def _make(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        *before, n, width = shape
        held = torch.empty(*before, n + self.room, width, dtype=like.dtype, device=like.device)
        self._held[name] = held
        return held


def roomy_cache(config: PreTrainedConfig, room: int) -> DynamicCache:
    """An empty cache of a model, with room for that many tokens wherever it keeps all of them.

    Layers of another kind, as those with a sliding window, stay as transformers makes them.
    """
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
