"""Count how often a limit was applied, and log it at most once a minute: a flood must not fill the log."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

LOG_SECONDS = 60.0


class LimitCounter:
    """How often one limit was applied since the start. Belongs to one thread; any may read `count`.

    Each line has the number of times since the one before it. `monotonic` returns seconds.
    """

    def __init__(
        self, log: logging.Logger, *, level: int = logging.WARNING, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.count = 0
        self._log = log
        self._level = level
        self._monotonic = monotonic
        self._logged = 0
        self._logged_at = -math.inf

    def record(self, message: str, *args: object) -> None:
        """Count one time; log `message` with its arguments unless a line was logged within the last minute."""
        self.count += 1
        now = self._monotonic()
        if now < self._logged_at + LOG_SECONDS:
            return
        more = self.count - self._logged - 1
        self._logged, self._logged_at = self.count, now
        suffix = f" (and {more} times since the last such line)" if more else ""
        self._log.log(self._level, message + "%s", *args, suffix)
