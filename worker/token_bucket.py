"""Limit how often something happens: so many times at once, then at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """A token bucket that is full at first; `take` succeeds `capacity` times at once. Not thread-safe."""

    def __init__(
        self, capacity: int, seconds_per_token: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._capacity = float(capacity)
        self._seconds_per_token = seconds_per_token
        self._monotonic = monotonic
        self._tokens = self._capacity
        self._filled_at = monotonic()

    def take(self) -> bool:
        """Take a token if there is one; return whether there was."""
        now = self._monotonic()
        refill = (now - self._filled_at) / self._seconds_per_token
        self._tokens, self._filled_at = min(self._capacity, self._tokens + refill), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
