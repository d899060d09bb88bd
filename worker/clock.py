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

SLACK_SECONDS = 1.0
"""Being behind by less isn't being set back: two clocks never run quite alike, and the wall clock is trimmed."""


class SteadyClock:
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

    def now(self) -> float:
        """Return the time; from any thread, and none ever gets an earlier one than another has had."""
        with self._lock:
            # The wall clock first: a pause between the two then makes time pass once, not twice.
            wall = self._clock() - self._start
            ticks = self._ticks()
            latest = self._latest
            passed = ticks - self._latest_ticks
            behind = latest + passed - wall
            if behind <= 0:
                latest = wall
            elif behind < SLACK_SECONDS:
                # Half the pace, rather than none, until the wall clock has caught up.
                latest = max(wall, latest + passed / 2)
            else:
                latest += passed
            self._latest, self._latest_ticks = latest, ticks
            return self._start + latest
