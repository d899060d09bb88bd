"""Events of a running task: made fit to be sent, and limited in rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ...token_bucket import TokenBucket
from .base import TaskEvent

LINES_AT_ONCE = 20
SECONDS_PER_LINE = 0.1


class JobProgress:
    """Sends the events of one task until its end; any thread may call any method.

    After `LINES_AT_ONCE` events it sends one in `SECONDS_PER_LINE`, so that a task can't fill memory or keep the
    sending thread busy. `dropped` counts the others. `emit` sends one to the client; it must neither block nor raise.
    """

    def __init__(self, emit: Callable[[TaskEvent], None], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._emit: Callable[[TaskEvent], None] | None = emit
        self._lock = threading.Lock()
        self._bucket = TokenBucket(LINES_AT_ONCE, SECONDS_PER_LINE, monotonic)
        self.dropped = 0

    def send(self, event: TaskEvent) -> None:
        """Send an event, unless its message is empty, it is over the limit, or the task has ended.

        Raises:
            TaskError: the event isn't valid.
        """
        checked = event.checked()
        with self._lock:
            if self._emit is None or not checked.message:
                return
            if self._bucket.take():
                self._emit(checked)
            else:
                self.dropped += 1

    def close(self) -> None:
        """Send nothing from now on; no event is being sent when this returns."""
        with self._lock:
            self._emit = None
