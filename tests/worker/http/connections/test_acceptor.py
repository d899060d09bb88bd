"""New connections while the process has no file descriptors left, and of clients that don't wait for an answer."""

from __future__ import annotations

import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.mcp.served_worker import read_response
from support.strangers import wait_until

Serve = Callable[..., Any]
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
FEW = 8  # all of them are in use; poll takes no more descriptors than that either


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let the process open no more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_wait_for_a_free_descriptor(served_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """They are neither reset nor answered with nothing; a line and a number say that it happened."""
    worker = served_worker()
    with worker.connect() as known:
        address = known.getpeername()
        known.sendall(HEALTH)
        assert read_response(known, "GET")[0] == 200
    with socket.socket() as first, socket.socket() as second:
        with no_descriptors():
            for connection in (first, second):
                connection.settimeout(10)
                connection.connect(address)
                connection.sendall(HEALTH)
            wait_until(lambda: worker.http.counters()["waits_for_descriptors"] >= 2)
        assert [read_response(connection, "GET")[0] for connection in (first, second)] == [200, 200]
    lines = [message for message in caplog.messages if "wait" in message]
    assert lines == ["HTTP connections have to wait: Too many open files"]


def test_connections_that_are_reset_at_once_harm_nobody(served_worker: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Their clients don't wait until they are accepted."""
    worker = served_worker()
    for _ in range(50):
        with worker.connect() as hasty:
            hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with worker.connect() as other:
        other.sendall(HEALTH)
        assert read_response(other, "GET")[0] == 200
    wait_until(lambda: worker.http.counters()["connections"] == 0)
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []
