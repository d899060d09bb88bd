"""A look at the memory of this process now and then, as NorFab's workers have it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..models.inventory.schema import WorkerInventory

log = logging.getLogger(__name__)


class MemoryWatchdog:
    """Compares the process's memory, in MiB, with the inventory's threshold. `runs` counts how often it has done so.

    It logs once each time that the threshold is passed.
    """

    def __init__(
        self,
        inventory: WorkerInventory,
        memory_mbyte: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold = inventory.memory_threshold_mbyte
        self._stops = inventory.memory_threshold_action == "shutdown"
        self._interval = inventory.watchdog_interval
        self._memory_mbyte = memory_mbyte
        self._monotonic = monotonic
        self._due = monotonic() + self._interval
        self._is_over = False
        self.runs = 0

    def check(self) -> bool:
        """Look at the memory if it is time to; return whether the worker has to stop."""
        now = self._monotonic()
        if now < self._due:
            return False
        self._due = now + self._interval
        self.runs += 1
        used = self._memory_mbyte()
        was_over, self._is_over = self._is_over, used > self._threshold
        if self._is_over and not was_over:
            log.warning("memory: %.0f MiB are used, more than memory_threshold_mbyte: %d", used, self._threshold)
        return self._is_over and self._stops
