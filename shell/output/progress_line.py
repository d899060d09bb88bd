"""The progress of a job on stderr: an animated line at a terminal, otherwise a plain line for each message."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .console import Console

DELAY_SECONDS = 0.5
_FRAMES = "|/-\\"
_FRAME_SECONDS = 0.1


class ProgressLine:
    """Shows that a command is running.

    At a terminal, after half a second, a line has the elapsed seconds and the latest message of a worker; it is erased
    when the command is done. Elsewhere each message is a line of its own.
    """

    def __init__(self, console: Console, *, delay_seconds: float = DELAY_SECONDS) -> None:
        self.console = console
        self._delay_seconds = delay_seconds
        self._is_running = False
        self._latest = ""

    @contextmanager
    def displayed(self) -> Iterator[None]:
        """Display the line while the block runs. Not reentrant."""
        self._latest, self._is_running = "", True
        done = threading.Event()
        thread = threading.Thread(target=self._draw, args=(done,), name="progress", daemon=True)
        try:
            if self.console.can_draw:
                thread.start()
            yield
        finally:
            self._is_running = False
            done.set()  # should Ctrl-C come a second time, the thread still erases the line
            if thread.ident is not None:
                thread.join()

    def update(self, worker: str, message: str) -> None:
        """Show a worker's message, control characters escaped.

        Between commands it is dropped: completion runs jobs too.
        """
        if not self._is_running:
            return
        if self.console.can_draw:
            self._latest = f"  {worker}: {message}"
        else:
            self.console.note(f"{worker}: {message}")

    def _draw(self, done: threading.Event) -> None:
        started = time.monotonic()
        pause, number = self._delay_seconds, 0
        try:
            while not done.wait(pause):
                frame = _FRAMES[number % len(_FRAMES)]
                self.console.draw(f"{frame} {int(time.monotonic() - started)} s{self._latest}")
                pause, number = _FRAME_SECONDS, number + 1
        finally:
            self.console.draw("")
