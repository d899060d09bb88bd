"""What a running job tells its client on the way: short lines, and no more of them than a client can follow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LINE_MAX_CHARACTERS = 1_000
LINES_AT_ONCE = 20
LINES_PER_SECOND = 10.0


class Progress:
    """The lines of one job; `say` may be called from any thread, at any time.

    After `LINES_AT_ONCE` lines one is let through every tenth of a second: whatever a task does, neither memory nor the
    thread that sends for everybody fills up with its lines. `left_out` counts the others.

    Args:
        emit: sends a line to the client; must neither block nor raise.
        ticks: monotonic seconds.
    """

    def __init__(self, emit: Callable[[str], None], ticks: Callable[[], float] = time.monotonic) -> None:
        self._emit: Callable[[str], None] | None = emit
        self._ticks = ticks
        self._lock = threading.Lock()
        self._room = float(LINES_AT_ONCE)
        self._counted = ticks()
        self.left_out = 0

    def say(self, message: str) -> None:
        """Send a line if there is room for it and the job hasn't ended, without what no line can hold."""
        line = _one_line(str(message))
        with self._lock:
            if self._emit is None or not line:
                return
            now = self._ticks()
            self._room = min(LINES_AT_ONCE, self._room + (now - self._counted) * LINES_PER_SECOND)
            self._counted = now
            if self._room < 1:
                self.left_out += 1
                return
            self._room -= 1
            self._emit(line)

    def end(self) -> None:
        """Send nothing any more; when this returns, no line is on its way."""
        with self._lock:
            self._emit = None


def _one_line(text: str) -> str:
    # Cut before all else: a task may hand over megabytes.
    beginning = text[: 4 * LINE_MAX_CHARACTERS]
    kept = "".join(character for character in beginning if character.isprintable() or character.isspace())
    return " ".join(kept.split())[:LINE_MAX_CHARACTERS]
