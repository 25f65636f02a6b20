"""A batch of requests as its provider shows it, known to adapters and to whoever keeps the books."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchState:
    """How far a batch is; `created_at` in seconds since 1970."""

    batch_id: str
    is_ended: bool
    n_requests: int
    created_at: float
