"""The MCP requests of a soak's client: with good tokens, with wrong ones and with deleted ones."""

from __future__ import annotations

import time

from load.load_generator import OK, PING
from load.posts import Connection

GUESSES_AN_ADDRESS = 8
UNAUTHORIZED = 401
TOOL = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "service_fastmcp__task_get_version", "arguments": {}},
}
_NUMBERS_A_BYTE = 250


class WrongAnswerError(Exception):
    """The worker says what isn't so."""


class Requests:
    """Sends good tokens over one connection, all others from loopback addresses that were not used before.

    A few come from each of these: more would be answered 429.

    Args:
        url: the MCP endpoint.
        number: this client's, below 100; each has its own addresses.
    """

    def __init__(self, url: str, number: int) -> None:
        self._url = url
        self._number = number
        self._good: Connection | None = None
        self._bad: Connection | None = None
        self._guesses = 0
        self._addresses = 0

    def good(self, token: str, *, is_call: bool) -> float:
        """Ping or call a tool with a token that is there; return the seconds."""
        if self._good is None:
            self._good = Connection(self._url)
        return self._post(self._good, token, TOOL if is_call else PING, OK)

    def bad(self, token: str) -> float:
        """Ping with a token that isn't there; return the seconds, without those that connecting took."""
        if self._guesses % GUESSES_AN_ADDRESS == 0 or self._bad is None:
            self.close_bad()
            self._bad = Connection(self._url, self._next_address())
        self._guesses += 1
        return self._post(self._bad, token, PING, UNAUTHORIZED)

    def close_bad(self) -> None:
        """Close the connection of wrong tokens; the next one opens another."""
        if self._bad is not None:
            self._bad.close()
            self._bad = None

    def _post(self, connection: Connection, token: str, message: object, expected: int) -> float:
        request = connection.encoded(token, message)
        start = time.perf_counter()
        status = connection.post(request)
        seconds = time.perf_counter() - start
        if status != expected:
            raise WrongAnswerError(f"a request was answered {status} where {expected} was due")
        return seconds

    def _next_address(self) -> str:
        high, low = divmod(self._addresses, _NUMBERS_A_BYTE)
        self._addresses += 1
        return f"127.{100 + self._number}.{1 + high}.{1 + low}"
