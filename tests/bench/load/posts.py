"""A client's end of one connection to an MCP server: lean, as the time that it takes counts as the server's."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from load.load_generator import encoded, is_whole, status_of

ANSWER_SECONDS = 30.0
_PART_BYTES = 65_536


class Connection:
    """One keep-alive connection.

    Args:
        url: the MCP endpoint.
        source: the address that the requests come from; None leaves that to the system.
    """

    def __init__(self, url: str, source: str | None = None) -> None:
        parts = urlsplit(url)
        self._url = url
        self._socket = socket.create_connection(
            (parts.hostname, parts.port), ANSWER_SECONDS, source_address=(source, 0) if source else None
        )
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def encoded(self, token: str, message: object) -> bytes:
        """Return a request that posts a message with a token."""
        return encoded(self._url, token, message)

    def post(self, request: bytes) -> int:
        """Send a request and return the status of its answer once that is there."""
        return status_of(self.answer(request))

    def answer(self, request: bytes) -> bytes:
        """Send a request and return its complete response, headers included."""
        self._socket.sendall(request)
        answer = b""
        while not is_whole(answer):
            part = self._socket.recv(_PART_BYTES)
            if not part:
                raise RuntimeError("the server closed the connection")
            answer += part
        return answer
