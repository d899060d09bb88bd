"""Invalid HTTP requests, to a worker of its own (more of them: `tests/bench/attack_requests.py`)."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.workers import RunningWorker

pytestmark = pytest.mark.slow

ATTACK = Path(__file__).parents[2] / "bench" / "attack_requests.py"
SECONDS = 240
HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LAST = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
HIDDEN = b"Content-Length: %d\r\n\r\n" % len(HEALTH) + HEALTH


def test_the_worker_serves_on_through_wrong_requests() -> None:
    """Never a 5xx, never a 2xx without a good token, nothing of the inside; nothing leaks, and the log has no fault."""
    command = [sys.executable, str(ATTACK), "--requests", "4500", "--guesses", "500", "--slow", "0", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    report = json.loads(done.stdout or "{}")
    assert (report.get("wrong"), done.stderr, done.returncode) == ([], "", 0)
    assert (report["requests"], report["with the limit on"]["requests"]) == (4_500, 500)


@pytest.mark.parametrize(
    ("lines", "statuses"),
    [
        (HIDDEN, ["401", "200"]),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ["400"]),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", ["400"]),
        (b"Content-Length: 0\r\nContent-Length: 43\r\n\r\n", ["400"]),
        (b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", ["400"]),
        (b"Content-Length: +0\r\n\r\n", ["400"]),
        (b"Content-Length: -1\r\n\r\n", ["400"]),
        (b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", ["400"]),
        (b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", ["400"]),
        (b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", ["400"]),
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", ["400"]),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", ["401", "200"]),
        (b"X: a\r\n folded: b\r\nContent-Length: 0\r\n\r\n", ["400"]),
        (b"X: a\nContent-Length: 0\n\n", ["400"]),
        (b"X: a\rb: c\r\nContent-Length: 0\r\n\r\n", ["400"]),
        (b"X: a\0b\r\nContent-Length: 0\r\n\r\n", ["400"]),
        (b"Connection: close\r\nContent-Length: 0\r\n\r\n", ["401"]),
    ],
)
def test_no_request_is_smuggled_into_another(worker: RunningWorker, lines: bytes, statuses: list[str]) -> None:
    """Where the end of a request can be read in two ways, nothing is read behind it."""
    address = urlsplit(worker.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=SECONDS) as connection:
        connection.sendall(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n" + lines + LAST)
        answered = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert re.findall(r"HTTP/1\.1 (\d{3})", answered.decode()) == statuses
