"""A wall clock that never goes back and never stands still, whatever happens to the system's clock.

It follows the wall clock while that advances or jumps ahead. When the wall clock is set back, time advances from the
latest reading at the rate of the monotonic clock, until the wall clock has caught up.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

SLEW_SECONDS = 1.0
"""A wall clock behind by less is slewed to rather than ignored: clocks drift apart, and NTP adjusts the wall clock."""

JITTER_SECONDS = 0.01
"""A wall clock behind by less counts as in step."""


class MonotonicWallClock:
    """Epoch seconds that only increase, from a wall clock and a monotonic one (`ticks`).

    Time starts at `latest`, the latest reading in an earlier process, if the wall clock is behind it.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        *,
        latest: float = -math.inf,
    ) -> None:
        self._clock = clock
        self._ticks = ticks
        self._lock = threading.Lock()
        # Relative to the start: sums of epoch seconds would round away the time between readings in quick succession.
        self._start = max(clock(), latest)
        self._latest = 0.0
        self._latest_ticks = ticks()
        # A time and the ticks at which it was read, from which it is extrapolated; None while the wall clock is behind.
        self._anchor: tuple[float, float] | None = None

    def now(self) -> float:
        """Return the time, never earlier than any thread has read before. Thread-safe."""
        anchor = self._anchor
        if anchor is not None:
            # The wall clock first: a pause between the two readings then counts once, not twice.
            wall = self._clock() - self._start
            now = anchor[0] + (self._ticks() - anchor[1])
            # Unless the anchor was withdrawn meanwhile: the thread that does so reads later ticks than these.
            if -JITTER_SECONDS < wall - now <= 0 and self._anchor is anchor:
                return self._start + now
        return self._resynchronize()

    def _resynchronize(self) -> float:
        """Return the time where the wall clock is out of step, and move the anchor; takes three times as long."""
        with self._lock:
            anchor, self._anchor = self._anchor, None
            wall = self._clock() - self._start
            ticks = self._ticks()
            if anchor is not None:
                # Other threads may have read a time as late as this.
                self._latest, self._latest_ticks = anchor[0] + (ticks - anchor[1]), ticks
            passed = ticks - self._latest_ticks
            latest = self._latest + passed
            behind = latest - wall
            if behind < JITTER_SECONDS:
                latest = max(latest, wall)
                self._anchor = (latest, ticks)
            elif behind < SLEW_SECONDS:
                # Half the rate, rather than none, until the wall clock has caught up.
                latest = max(self._latest + passed / 2, wall)
            self._latest, self._latest_ticks = latest, ticks
            return self._start + latest
