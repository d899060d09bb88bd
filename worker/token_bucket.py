"""Limit how often something happens, or how much of it: so much at once, then at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """A token bucket that is full at first; `take` succeeds `capacity` times at once. Not thread-safe.

    What is spent beyond its content has to be refilled before anything can be taken.
    """

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
        self._refill()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def spend(self, count: int) -> None:
        """Take tokens, also those that aren't there yet."""
        self._refill()
        self._tokens -= count

    def seconds_until(self, count: int) -> float:
        """Return in how many seconds there will be so many tokens, 0 if there are."""
        self._refill()
        return max(0.0, (count - self._tokens) * self._seconds_per_token)

    def _refill(self) -> None:
        now = self._monotonic()
        refill = (now - self._filled_at) / self._seconds_per_token
        self._tokens, self._filled_at = min(self._capacity, self._tokens + refill), now
