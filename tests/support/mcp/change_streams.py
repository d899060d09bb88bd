"""Notification streams as clients of both protocol eras open them."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any, Self

import pytest

from support.mcp.served_worker import HANDSHAKE_ERA, SINGLE_POST_ERA, TOKEN, WAIT_SECONDS
from support.mcp.tool_entries import entry

TOOLS, PROMPTS = "notifications/tools/list_changed", "notifications/prompts/list_changed"
NO_METADATA = {"issuer_url": None, "max_wrong_tokens_per_minute": 0}
_ASKED = {"notifications": {"toolsListChanged": True, "promptsListChanged": True}}

Serve = Callable[..., Any]
in_both_eras = pytest.mark.parametrize("era", [HANDSHAKE_ERA, SINGLE_POST_ERA])


class Stream:
    """A notification stream, opened with a GET or with `subscriptions/listen`, as in that era."""

    def __init__(self, worker: Any, era: str, *headers: str, token: str | None = TOKEN) -> None:
        self._connection = worker.connect()
        self._connection.sendall(_request(worker, era, headers, token))
        self._response = http.client.HTTPResponse(self._connection)
        self._response.begin()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}
        self.is_open = self.headers["content-type"] == "text/event-stream"
        if self.is_open and era == SINGLE_POST_ERA:
            assert self.next()["method"] == "notifications/subscriptions/acknowledged"
        elif self.is_open:
            assert self._response.readline().startswith(b":")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._connection.close()

    def read_line(self) -> bytes:
        """Return the next line, event or comment."""
        return self._response.readline()

    def body(self) -> Any:
        """Return the JSON body of an error."""
        return json.loads(self._response.read())

    def next(self) -> Any:
        """Return the next message, None when the stream has ended."""
        while line := self._response.readline():
            if line.startswith(b"data: "):
                return json.loads(line.removeprefix(b"data: "))
        return None

    def methods(self) -> list[str | None]:
        """Return the methods of all messages until the stream's end."""
        found = []
        while (message := self.next()) is not None:
            found.append(message.get("method"))
        return found

    def cut(self) -> None:
        """Shut the connection down, which ends the stream."""
        self._connection.shutdown(socket.SHUT_RDWR)

    def has_ended(self) -> bool:
        """Whether the end of the stream is among the bytes received so far."""
        self._connection.setblocking(False)
        received = b""
        try:
            while chunk := self._connection.recv(65_536):
                received += chunk
        except BlockingIOError:
            return received.endswith(b"0\r\n\r\n")
        finally:
            self._connection.settimeout(WAIT_SECONDS)
        return True


def _request(worker: Any, era: str, headers: tuple[str, ...], token: str | None) -> bytes:
    if era == SINGLE_POST_ERA:
        pairs = tuple(tuple(line.split(": ", 1)) for line in headers)
        request: bytes = worker.request("subscriptions/listen", _ASKED, era=era, token=token, headers=pairs)
        return request
    usual = {"host": worker.url.split("/")[2], "accept": "text/event-stream", "mcp-protocol-version": era}
    if token is not None:
        usual["authorization"] = f"Bearer {token}"
    chosen = {**usual, **dict(line.split(": ", 1) for line in headers)}
    lines = [f"{name}: {value}" for name, value in chosen.items() if value]
    return "\r\n".join(["GET /mcp HTTP/1.1", *lines, "", ""]).encode()


def change(worker: Any, *names: str, **changes: Any) -> None:
    """Publish these tasks of another service."""
    worker.worker.catalogue.replace("net", [entry(name, **changes) for name in names])
