"""Ask for something in a thread, so that a key press never waits for an answer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable

RETRY_SECONDS = 30.0


class Background:
    """Runs questions in threads, each at most once at a time, and not again for 30 s after it has failed.

    `clock` returns monotonic seconds. An exception only means that nothing is known.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[Hashable, threading.Thread] = {}
        self._retry_after: dict[Hashable, float] = {}

    def ask(self, name: Hashable, question: Callable[[], object], *, wait_seconds: float) -> None:
        """Have `question` called, unless it is running or has failed; wait for it no longer than `wait_seconds`."""
        thread = self._running.get(name)
        if thread is None or not thread.is_alive():
            if self._clock() < self._retry_after.get(name, float("-inf")):
                return
            thread = threading.Thread(target=self._run, args=(name, question), daemon=True, name="completion")
            self._running[name] = thread
            thread.start()
        thread.join(wait_seconds)

    def _run(self, name: Hashable, question: Callable[[], object]) -> None:
        self._retry_after[name] = self._clock() + RETRY_SECONDS
        with contextlib.suppress(Exception):
            question()
            del self._retry_after[name]
