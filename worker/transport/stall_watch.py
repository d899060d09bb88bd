"""How long a message may have waited because its reader stood still: a stopped process, a suspended machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

POLL_SECONDS = 1.0
"""How long a reader may wait for messages, so that a stall is seen."""
STALL_SECONDS = 1.0
"""Longer pauses between two rounds of a reader, beyond the time that it waits for messages, are a stall."""
SETTLE_SECONDS = 1.0
"""How long ZeroMQ's own thread may take after a stall to read what the socket got in its course."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first also counts while the machine is suspended


def boot_seconds() -> float:
    """Return the seconds since the machine was started."""
    return time.clock_gettime(_CLOCK)


class StallWatch:
    """Watches a reader of messages that polls its socket for at most `poll_seconds`; used by the reader's thread.

    NorFab's clients send no deadline: after a stall this is all that says how old their jobs may be.
    """

    def __init__(self, poll_seconds: float, clock: Callable[[], float] = boot_seconds) -> None:
        self._limit = poll_seconds + STALL_SECONDS
        self._clock = clock
        self._last_round = clock()
        self._ended_at = -math.inf
        self._stalled_at: float | None = None

    def begin_round(self, *, has_messages: bool) -> None:
        """Note that a poll has returned, and whether there are messages to read."""
        now = self._clock()
        if now - self._last_round > self._limit:
            if self._stalled_at is None:
                self._stalled_at = self._last_round
            self._ended_at = now
        elif not has_messages and now - self._ended_at > SETTLE_SECONDS:
            self._stalled_at = None
        self._last_round = now

    def waited_seconds(self) -> float:
        """Return how long the message that is read now may have waited; 0 unless there was a stall."""
        return 0.0 if self._stalled_at is None else self._clock() - self._stalled_at
