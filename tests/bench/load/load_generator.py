"""Sends HTTP requests over keep-alive connections as fast as they are answered; a process of its own.

    python load_generator.py URL TOKEN CONNECTIONS SECONDS [--from ADDRESS] [--guess]

Each connection begins as an MCP client does (`initialize`, `notifications/initialized`) and then pings; one that is
refused there sends that request again and again. Answers are split and counted, not read: the server has to be the
slower of the two. Prints a line with the word `loading` when it begins to count, and in the end JSON:
`{"seconds": …, "statuses": {"200": …}}`. With 0 seconds it goes on until its stdin ends.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
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
GUESSES = 64
OK = 200
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SESSION = re.compile(rb"\r\nmcp-session-id: *([^\r]+)", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"


def encoded(url: str, token: str, message: object, extra: bytes = b"") -> bytes:
    """Return a request that posts a JSON-RPC message with a token."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
    )
    body = json.dumps(message).encode()
    return head.encode() + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def is_whole(answer: bytes) -> bool:
    """Tell whether an answer's last byte is there."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = _LENGTH.search(answer, 0, end + 2)
    return answer.endswith(_LAST_CHUNK) if length is None else len(answer) >= end + 4 + int(length[1])


def status_of(answer: bytes) -> int:
    """Return the status of an answer."""
    return int(answer[9:12])


class Load:
    """What all connections share: where to send what, when to count, when to stop, what was answered."""

    def __init__(self, url: str, tokens: list[str], connections: int) -> None:
        self.url = url
        self.tokens = tokens
        self.waiting = connections
        self.counts: Counter[int] = Counter()
        self.is_counting = False
        self.is_over = False
        self.all_ready = asyncio.get_running_loop().create_future()
        self.lost = 0

    def ready(self) -> None:
        """Take note of a connection that has begun to ping."""
        self.waiting -= 1
        if not self.waiting:
            self.all_ready.set_result(None)


class Connection(asyncio.Protocol):
    """One request at a time, for as long as the load lasts."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._extra = b""
        self._steps: list[object] = [INITIALIZED, PING]
        self._encode(INITIALIZE)

    def _encode(self, message: object) -> None:
        load = self._load
        self._requests = itertools.cycle([encoded(load.url, token, message, self._extra) for token in load.tokens])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport: Any = transport  # uvloop's is no subclass of asyncio's
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        """Count a complete response and send the next request."""
        self._buffer = self._buffer + data if self._buffer else data
        if is_whole(self._buffer):
            answer, self._buffer = self._buffer, b""
            self._answered(answer)

    def connection_lost(self, _error: Exception | None) -> None:
        """Take note of a connection that the server closed."""
        self._load.lost += not self._load.is_over

    def _answered(self, answer: bytes) -> None:
        load, status = self._load, status_of(answer)
        if load.is_counting:
            load.counts[status] += 1
        if self._steps:
            self._step(status, answer)
        if load.is_over:
            self._transport.abort()
        else:
            self._transport.write(next(self._requests))

    def _step(self, status: int, answer: bytes) -> None:
        if status > OK + 99:
            self._steps = []
        else:
            session = _SESSION.search(answer, 0, answer.find(b"\r\n\r\n") + 2)
            if session is not None:
                self._extra = b"Mcp-Session-Id: " + session[1] + b"\r\n"
            self._encode(self._steps.pop(0))
        if not self._steps:
            self._load.ready()


async def _run(arguments: argparse.Namespace) -> dict[str, object]:
    token, connections = arguments.token, arguments.connections
    # One guess more than once is as wrong as many: few requests to encode leave the processor to the server.
    tokens = [f"{token}-{number}" for number in range(GUESSES)] if arguments.guess else [token]
    loop = asyncio.get_running_loop()
    load = Load(arguments.url, tokens, connections)
    parts = urlsplit(arguments.url)
    local = (arguments.source, 0) if arguments.source else None
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(load), parts.hostname, parts.port, local_addr=local)
    async with asyncio.timeout(READY_SECONDS):
        await load.all_ready
    await asyncio.sleep(WARM_UP_SECONDS)
    sys.stdout.write("loading\n")
    sys.stdout.flush()
    start = time.perf_counter()
    load.is_counting = True
    await (asyncio.sleep(arguments.seconds) if arguments.seconds else asyncio.to_thread(sys.stdin.read))
    load.is_counting = False
    load.is_over = True
    if load.lost:
        raise RuntimeError(f"the server closed {load.lost} of {connections} connections")
    return {"seconds": time.perf_counter() - start, "statuses": load.counts}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Load an MCP server.")
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--from", dest="source", metavar="ADDRESS", help="the address that requests come from")
    parser.add_argument("--guess", action="store_true", help="append numbers to the token, another one each time")
    return parser.parse_args()


if __name__ == "__main__":
    json.dump(uvloop.run(_run(_arguments())), sys.stdout)
