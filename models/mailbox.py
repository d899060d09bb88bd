"""A queue to the thread that owns a socket, and a way to end that thread's poll."""

from __future__ import annotations

import contextlib
import queue
import socket
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")

STALL_SECONDS = 10.0
"""A reader that was woken and hasn't read for this long hangs."""


class Mailbox(Generic[ItemT]):
    """A queue whose reader waits in a poll: `reader` becomes readable when an item arrives that wakes it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[ItemT] = queue.SimpleQueue()
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._read_at = time.monotonic()

    def put(self, item: ItemT, *, wake: bool = False) -> None:
        """Add an item, from any thread; without `wake` it stays until the reader's next `drain`."""
        self._queue.put(item)
        if wake:
            self.wake()

    def wake(self) -> None:
        """End the reader's poll, the current or the next one; from any thread, also after `close`."""
        # A full pipe means that the reader is going to wake anyway.
        with contextlib.suppress(BlockingIOError, OSError):
            self._writer.send(b"\0")

    def is_being_read(self) -> bool:
        """Whether the reader has read lately. Wakes it, for the next call: only repeated calls tell that it hangs."""
        is_recent = time.monotonic() - self._read_at < STALL_SECONDS
        self.wake()
        return is_recent

    def drain(self) -> Iterator[ItemT]:
        """Yield the items until there are none; from the reader's thread."""
        self._read_at = time.monotonic()
        self.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._queue.get_nowait()

    def clear(self) -> None:
        """Let the reader wait again, from the reader's thread; the items stay."""
        with contextlib.suppress(BlockingIOError):
            while self.reader.recv(4096):
                pass

    def close(self) -> None:
        """Close the sockets. Call after the reader thread has ended."""
        self.reader.close()
        self._writer.close()
