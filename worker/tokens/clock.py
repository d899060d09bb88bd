"""A clock that never goes back and never stands still, whoever sets the system's clock.

The wall clock says what time it is, the monotonic clock how much of it has passed. While the wall clock runs on, or
leaps ahead, it is followed. When it is set back, time goes on from the latest reading at the monotonic clock's pace,
until the wall clock is ahead of that again.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

SLEW_SECONDS = 1.0
"""Being behind by less isn't being set back: two clocks never run quite alike, and the wall clock is trimmed."""

JITTER_SECONDS = 0.01
"""Being behind by less is nothing."""


class MonotonicWallClock:
    """Epoch seconds that only ever grow.

    Args:
        clock: the wall clock, epoch seconds.
        ticks: a clock that nobody sets, in seconds from anywhere.
        latest: the latest reading of a clock like this before; time begins there if the wall clock is behind it.
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
        # Counted from the start: sums of epoch seconds would lose what passes between readings in quick succession.
        self._start = max(clock(), latest)
        self._latest = 0.0
        self._latest_ticks = ticks()
        # Time at a reading of the ticks, from which it goes on as they do; None while the wall clock isn't followed.
        self._anchor: tuple[float, float] | None = None

    def now(self) -> float:
        """Return the time; from any thread, and none ever gets an earlier one than another has had."""
        anchor = self._anchor
        if anchor is not None:
            # The wall clock first: a pause between the two then makes time pass once, not twice.
            wall = self._clock() - self._start
            now = anchor[0] + (self._ticks() - anchor[1])
            # Unless it was taken back meanwhile: who does that counts from ticks that come after these.
            if -JITTER_SECONDS < wall - now <= 0 and self._anchor is anchor:
                return self._start + now
        return self._resynchronize()

    def _resynchronize(self) -> float:
        """Return the time where the wall clock runs differently, or may do so; takes three times as long."""
        with self._lock:
            anchor, self._anchor = self._anchor, None
            wall = self._clock() - self._start
            ticks = self._ticks()
            if anchor is not None:
                # Others may have been given a time as late as this.
                self._latest, self._latest_ticks = anchor[0] + (ticks - anchor[1]), ticks
            passed = ticks - self._latest_ticks
            latest = self._latest + passed
            behind = latest - wall
            if behind < JITTER_SECONDS:
                latest = max(latest, wall)
                self._anchor = (latest, ticks)
            elif behind < SLEW_SECONDS:
                # Half the pace, rather than none, until the wall clock has caught up.
                latest = max(self._latest + passed / 2, wall)
            self._latest, self._latest_ticks = latest, ticks
            return self._start + latest
