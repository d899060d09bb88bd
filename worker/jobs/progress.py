"""Progress lines of a running job: made fit for one line, and limited in rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..token_bucket import TokenBucket

MAX_LINE_CHARACTERS = 1_000
LINES_AT_ONCE = 20
SECONDS_PER_LINE = 0.1


class JobProgress:
    """Sends the progress lines of one job until its end; any thread may call any method.

    After `LINES_AT_ONCE` lines it sends one in `SECONDS_PER_LINE`, so that a task can't fill memory or keep the sending
    thread busy. `dropped` counts the others. `emit` sends a line to the client; it must neither block nor raise.
    """

    def __init__(self, emit: Callable[[str], None], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._emit: Callable[[str], None] | None = emit
        self._lock = threading.Lock()
        self._bucket = TokenBucket(LINES_AT_ONCE, SECONDS_PER_LINE, monotonic)
        self.dropped = 0

    def send(self, message: str) -> None:
        """Send a message as one line, unless it is empty, over the limit, or the job has ended."""
        line = _one_line(str(message))
        with self._lock:
            if self._emit is None or not line:
                return
            if self._bucket.take():
                self._emit(line)
            else:
                self.dropped += 1

    def close(self) -> None:
        """Send nothing from now on; no line is being sent when this returns."""
        with self._lock:
            self._emit = None


def _one_line(text: str) -> str:
    # Cut before all else: a task may pass megabytes.
    beginning = text[: 4 * MAX_LINE_CHARACTERS]
    kept = "".join(character for character in beginning if character.isprintable() or character.isspace())
    return " ".join(kept.split())[:MAX_LINE_CHARACTERS]
