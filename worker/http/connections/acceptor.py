"""Accepting of connections on a listening socket, also when the process has no file descriptors left.

uvloop's own server resets the connections that come then. Here they wait in the system's queue until there are some.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext

from .table import HttpLimits

RETRY_SECONDS = 0.1
_ACCEPTS_AT_ONCE = 32


class Acceptor:
    """Accepts the connections of one listening socket from now until `close`; belongs to the running loop."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        limits: HttpLimits,
        ssl: SSLContext | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make_protocol = make_protocol
        self._limits = limits
        self._ssl = ssl
        self._connecting: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        """Accept no more connections; the socket stays open. Safe to repeat."""
        self._loop.remove_reader(self._listener)
        if self._retry is not None:
            self._retry.cancel()

    async def wait_closed(self) -> None:
        """Wait for connections that are being set up."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:  # the client has gone already
                continue
            except OSError as error:
                self._limits.not_accepted.record("HTTP connections have to wait: %s", error.strerror)
                self._loop.remove_reader(self._listener)
                self._retry = self._loop.call_later(RETRY_SECONDS, self._resume)
                return
            connecting = self._loop.create_task(self._connect(connection))
            self._connecting.add(connecting)
            connecting.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        with suppress(OSError):  # the client has gone already, or its handshake failed
            await self._loop.connect_accepted_socket(self._make_protocol, connection, ssl=self._ssl)
            return
        connection.close()
