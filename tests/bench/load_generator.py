"""Sends HTTP requests over keep-alive connections as fast as they are answered; a process of its own.

    python load_generator.py URL TOKEN CONNECTIONS SECONDS

Each connection begins as an MCP client does (`initialize`, `notifications/initialized`) and then pings; one that is
refused there sends that request again and again. Answers are split and counted, not read: the server has to be the
slower of the two. Prints JSON: `{"seconds": …, "statuses": {"200": …}}`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import uvloop

READY_SECONDS = 10.0
WARM_UP_SECONDS = 0.3
OK = 200
_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    },
}
_INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
_PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SESSION = re.compile(rb"\r\nmcp-session-id: *([^\r]+)", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"


class Load:
    """What all connections share: when to count, when to stop, what was answered."""

    def __init__(self, connections: int) -> None:
        self.waiting = connections
        self.counts: Counter[int] = Counter()
        self.is_counting = False
        self.is_over = False
        self.all_ready = asyncio.get_running_loop().create_future()

    def ready(self) -> None:
        """Take note of a connection that has begun to ping."""
        self.waiting -= 1
        if not self.waiting:
            self.all_ready.set_result(None)


class Connection(asyncio.Protocol):
    """One request at a time, for as long as the load lasts."""

    def __init__(self, load: Load, host: str, path: str, token: str) -> None:
        self._load = load
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        ).encode()
        self._buffer = b""
        self._steps = [_INITIALIZED, _PING]
        self._request = self._encode(_INITIALIZE)

    def _encode(self, message: object, extra: bytes = b"") -> bytes:
        body = json.dumps(message).encode()
        return self._head + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport: Any = transport  # uvloop's is no subclass of asyncio's
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count a whole answer and send the next request."""
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end + 2)
        if length is not None:
            if len(self._buffer) < end + 4 + int(length[1]):
                return
        elif not self._buffer.endswith(_LAST_CHUNK):
            return
        self._answered(int(self._buffer[9:12]), self._buffer[: end + 2])
        self._buffer = b""

    def _answered(self, status: int, head: bytes) -> None:
        load = self._load
        if load.is_counting:
            load.counts[status] += 1
        if self._steps:
            self._step(status, head)
        if load.is_over:
            self._transport.abort()
        else:
            self._transport.write(self._request)

    def _step(self, status: int, head: bytes) -> None:
        if status > OK + 99:
            self._steps = []
        else:
            session = _SESSION.search(head)
            if session is not None:
                self._head += b"Mcp-Session-Id: " + session[1] + b"\r\n"
            self._request = self._encode(self._steps.pop(0))
        if not self._steps:
            self._load.ready()


async def _run(url: str, token: str, connections: int, seconds: float) -> dict[str, object]:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    load = Load(connections)
    for _ in range(connections):
        await loop.create_connection(
            lambda: Connection(load, parts.netloc, parts.path, token), parts.hostname, parts.port
        )
    async with asyncio.timeout(READY_SECONDS):
        await load.all_ready
    await asyncio.sleep(WARM_UP_SECONDS)
    start = time.perf_counter()
    load.is_counting = True
    await asyncio.sleep(seconds)
    load.is_counting = False
    load.is_over = True
    return {"seconds": time.perf_counter() - start, "statuses": load.counts}


if __name__ == "__main__":
    json.dump(uvloop.run(_run(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))), sys.stdout)
