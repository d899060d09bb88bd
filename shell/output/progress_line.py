"""How a job comes along, on stderr: a line that moves at a terminal, else a plain line for each thing a worker says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .console import Console

SHOWN_AFTER_SECONDS = 0.5
_FRAMES = "|/-\\"
_FRAME_SECONDS = 0.1


class ProgressLine:
    """Shows that a command is under way.

    At a terminal, from half a second on, there is a line with the elapsed seconds and the latest that a worker has
    said; nothing of it is left when the command is done. Elsewhere each thing that is said is a line.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._is_running = False
        self._latest = ""

    @contextmanager
    def displayed(self) -> Iterator[None]:
        """Show the line for as long as the block takes; to be entered once at a time."""
        self._latest, self._is_running = "", True
        done = threading.Event()
        thread = threading.Thread(target=self._draw, args=(done,), name="progress", daemon=True)
        try:
            if self.console.can_draw:
                thread.start()
            yield
        finally:
            self._is_running = False
            done.set()  # should Ctrl-C come a second time, the thread still clears the line
            if thread.ident is not None:
                thread.join()

    def update(self, worker: str, message: str) -> None:
        """Take in what a worker says; what a terminal would act on shows as escapes.

        Between commands nothing is shown: completion asks workers too.
        """
        if not self._is_running:
            return
        if self.console.can_draw:
            self._latest = f"  {worker}: {message}"
        else:
            self.console.note(f"{worker}: {message}")

    def _draw(self, done: threading.Event) -> None:
        started = time.monotonic()
        pause, number = SHOWN_AFTER_SECONDS, 0
        try:
            while not done.wait(pause):
                frame = _FRAMES[number % len(_FRAMES)]
                self.console.draw(f"{frame} {int(time.monotonic() - started)} s{self._latest}")
                pause, number = _FRAME_SECONDS, number + 1
        finally:
            self.console.draw("")
