"""How many calls may be in flight: a quarter fewer at each burst of refusals, one more after a round of successes."""

from __future__ import annotations

import threading
import time

_SHRINK = 0.75


class Throttle:
    """Additive increase, multiplicative decrease; a provider's wait holds back all, not only the refused call."""

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._limit = float(self._most)
        self._active = 0
        self._n_successes = 0
        self._not_before = 0.0
        self._last_decrease = 0.0
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return max(1, int(self._limit))

    def enter(self, stopped: threading.Event) -> float | None:
        """Wait for a place; the moment it was taken, or None when stopped while waiting."""
        with self._changed:
            while not stopped.is_set():
                wait = self._not_before - time.monotonic()
                if wait <= 0 and self._active < self.limit:
                    self._active += 1
                    return time.monotonic()
                self._changed.wait(min(wait, 0.2) if wait > 0 else 0.2)
        return None

    def leave(self) -> None:
        """Give the place back."""
        with self._changed:
            self._active -= 1
            self._changed.notify_all()

    def slow_down(self, entered: float, wait_seconds: float = 0.0) -> None:
        """After a refusal: fewer at a time (once for all calls in flight together), and none before the wait."""
        with self._changed:
            now = time.monotonic()
            self._not_before = max(self._not_before, now + wait_seconds)
            self._n_successes = 0
            if entered >= self._last_decrease:
                self._limit = max(1.0, self._limit * _SHRINK)
                self._last_decrease = now

    def speed_up(self) -> None:
        """After a success: one more at a time once as many succeeded as are allowed."""
        with self._changed:
            self._n_successes += 1
            if self._n_successes >= self.limit and self._limit < self._most:
                self._limit, self._n_successes = min(self._most, self._limit + 1), 0
                self._changed.notify_all()
