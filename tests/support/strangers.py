"""Connections of clients without a token to a real worker, and the memory that they cost it."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

MIB = 1024 * 1024
WAIT_SECONDS = 20.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a condition, for a limited time."""
    pause, deadline = threading.Event(), time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        pause.wait(0.01)


def memory_bytes(pid: int) -> int:
    """Return the memory that a process occupies, shared pages in proportion (PSS of /proc)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def descriptors(pid: int) -> int:
    """Return how many file descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def connect(url: str, source: str | None = None) -> socket.socket:
    """Open a TCP connection to the host and port of a URL or endpoint, from `source`, an address of loopback."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 0)
    return socket.create_connection(address, WAIT_SECONDS, (source, 0) if source else None)


@contextlib.contextmanager
def connections(url: str, count: int, sources: Sequence[str] = ("127.0.0.1",)) -> Iterator[list[socket.socket]]:
    """Hold connections that send nothing, from each of `sources` in turn."""
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(connect(url, sources[number % len(sources)])) for number in range(count)]


def open_ones(held: Sequence[socket.socket]) -> list[socket.socket]:
    """Return those of some silent connections that the other side has not closed."""
    poller = select.poll()
    for each in held:
        poller.register(each, select.POLLIN | select.POLLHUP | select.POLLERR)
    closed = {descriptor for descriptor, _ in poller.poll(0)}
    return [each for each in held if each.fileno() not in closed]


def send_unread(connection: socket.socket, data: bytes, seconds: float = 5.0) -> bool:
    """Send data without reading answers, for `seconds` at most; return whether the other side closed meanwhile."""
    deadline = time.monotonic() + seconds
    connection.setblocking(False)
    view = memoryview(data)
    while view and time.monotonic() < deadline:
        select.select([], [connection], [], 0.1)
        try:
            view = view[connection.send(view) :]
        except BlockingIOError:
            continue
        except OSError:
            return True
    return is_closed(connection, max(0.0, deadline - time.monotonic()))


def is_closed(connection: socket.socket, seconds: float = WAIT_SECONDS) -> bool:
    """Read what is still to come, for `seconds` at most; return whether the other side closed the connection."""
    connection.settimeout(max(seconds, 0.001))
    try:
        while connection.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
