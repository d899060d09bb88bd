"""Rate-limited audit lines of refused requests, written by a thread of their own: a flood delays no request."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ...models.errors import NfcliError
from ..token_bucket import TokenBucket
from .actor import Actor

log = logging.getLogger(__name__)

BURST_LINES = 10
SECONDS_A_LINE = 6.0
STOP_SECONDS = 2.0


@dataclass(frozen=True)
class Refusal:
    """A refused request to record; `suppressed` earlier ones were only counted.

    `fingerprint` is that of the token in the request, None without one.
    """

    actor: Actor | str
    reason: str
    fingerprint: str | None
    suppressed: int


class RefusalLog:
    """Record at most ten refused requests at once, then one every six seconds; count the others.

    `write` writes a line, in this object's thread; a `NfcliError` that it raises is logged.
    """

    def __init__(self, write: Callable[[Refusal], None], monotonic: Callable[[], float]) -> None:
        self._write = write
        self._lock = threading.Lock()  # held for a few additions only
        self._bucket = TokenBucket(BURST_LINES, SECONDS_A_LINE, monotonic)
        self._suppressed = 0
        self._is_closed = False
        self._queue: queue.SimpleQueue[Refusal | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="audit-refusals", daemon=True)
        self._thread.start()

    def record(self, actor: Actor | str, reason: str, fingerprint: Callable[[], str | None]) -> bool:
        """Queue a line for a refused request and return True, or only count it and return False. Thread-safe."""
        with self._lock:
            if self._is_closed:
                return False
            if not self._bucket.take():
                self._suppressed += 1
                return False
            suppressed, self._suppressed = self._suppressed, 0
        self._queue.put(Refusal(actor, reason, fingerprint(), suppressed))
        return True

    def close(self) -> int:
        """Write the queued lines and accept no more; return how many requests were only counted."""
        with self._lock:
            self._is_closed = True
            suppressed, self._suppressed = self._suppressed, 0
        self._queue.put(None)
        self._thread.join(STOP_SECONDS)
        return suppressed

    def _serve(self) -> None:
        while (refusal := self._queue.get()) is not None:
            try:
                self._write(refusal)
            except NfcliError as error:
                log.warning("cannot record a refused request: %s", error)
