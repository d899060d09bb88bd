"""The ids of all tokens by range, computed for a comparison and kept while that lasts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from ....models.tasks.token_sync import RANGES
from .hashing import TokenHasher

IDLE_SECONDS = 30.0


class TokenRanges:
    """Tokens by id, in 256 ranges by the id's first byte. Any thread may call any method.

    500,000 ids take half a second to compute and 60 MB, so they are kept until nobody has used them for
    `IDLE_SECONDS`. All stored tokens are among them, and possibly some that no longer are.
    """

    def __init__(self, hasher: TokenHasher, ticks: Callable[[], float] = time.monotonic) -> None:
        self._hasher = hasher
        self._ticks = ticks
        self._lock = threading.RLock()
        self._ranges: list[dict[bytes, str]] | None = None
        self._used = 0.0

    def build(self, tokens: Callable[[], Iterable[str]]) -> list[dict[bytes, str]]:
        """Compute the ids of the tokens that `tokens` returns, and return them by range."""
        with self._lock:
            # Tokens that are stored from here on are added by the thread that stores them.
            ranges: list[dict[bytes, str]] = [{} for _ in range(RANGES)]
            self._ranges = ranges
            for token in tokens():
                digest = self._hasher.token_id(token)
                ranges[digest[0]][digest] = token
            self._used = self._ticks()
            return ranges

    def get(self, tokens: Callable[[], Iterable[str]]) -> list[dict[bytes, str]]:
        """Return the ranges that were built before, or of `tokens()` if there are none."""
        with self._lock:
            self._used = self._ticks()
            return self.build(tokens) if self._ranges is None else self._ranges

    def add(self, tokens: Iterable[str]) -> None:
        """Add tokens that have been stored; called in the store's thread."""
        ranges = self._ranges
        if ranges is not None:
            for token in tokens:
                digest = self._hasher.token_id(token)
                ranges[digest[0]][digest] = token

    def drop(self) -> None:
        """Forget all ids, after all tokens were replaced."""
        self._ranges = None

    def expire(self) -> None:
        """Drop the ids if they aren't used any more; cheap."""
        if self._ranges is not None and self._ticks() - self._used >= IDLE_SECONDS:
            with self._lock:
                self._ranges = None
