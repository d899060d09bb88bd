"""The TLS handshake of a new connection, within the limits on connections that haven't sent a request.

It has a place in the table of connections from its first moment, so that whoever doesn't finish a handshake can occupy
no more than whoever doesn't finish a request head.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from ..connections.protocol import Connection
from ..connections.table import ConnectionTable, HttpLimits
from .alerts import alert_of

HANDSHAKE_TIMEOUT_SECONDS = 10.0
BUFFER_BYTES = 64 * 1024
"""How much of a connection is kept in memory, each way; uvloop's own limits are 256 and 512 KiB."""

_HANDSHAKE_RECORD = b"\x16"  # RFC 8446 section 5.1
_TEXT = b"this port serves HTTPS: use a URL that begins with https://\n"
_PLAIN_HTTP_RESPONSE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)


class Handshake(asyncio.Protocol):
    """A connection until its handshake is complete; then what `make_connection` returns serves it.

    `context` returns the TLS context to use. Plain HTTP gets a response that says so. `connections` is uvicorn's set.
    """

    is_busy = False

    def __init__(
        self,
        make_connection: Callable[[asyncio.Transport], Connection],
        *,
        context: Callable[[], ssl.SSLContext],
        table: ConnectionTable,
        limits: HttpLimits,
        connections: set[Any],
    ) -> None:
        self.peer = ""
        self.transport: asyncio.Transport
        self._make_connection = make_connection
        self._context = context
        self._table = table
        self._limits = limits
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._early = bytearray()

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def shutdown(self) -> None:
        """Close the connection because the server stops."""
        self.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the handshake, or abort the connection when there are too many."""
        self.transport = transport
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if name else ""
        if not self._table.add(self):
            self.abort()
            return
        self._connections.add(self)
        self._timer = self._loop.call_later(HANDSHAKE_TIMEOUT_SECONDS, self._close_too_slow)

    def data_received(self, data: bytes) -> None:
        """Begin the handshake with the first bytes; what is decrypted before the connection is handed over is kept."""
        if self._task is not None:
            self._early += data
        elif data.startswith(_HANDSHAKE_RECORD):
            self.transport.pause_reading()
            self._task = self._loop.create_task(self._run(data))
        else:
            self.transport.write(_PLAIN_HTTP_RESPONSE)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Release what the connection holds."""
        self._release()

    def _release(self) -> None:
        self._table.remove(self)
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def _close_too_slow(self) -> None:
        reason = "HTTP connection of %s closed: no TLS handshake within %g s"
        self._limits.too_slow.record(reason, self.peer, HANDSHAKE_TIMEOUT_SECONDS)
        self.abort()

    async def _run(self, first: bytes) -> None:
        """Make the handshake, whose first bytes have been read, and hand the connection over."""
        encrypted: asyncio.Transport | None = None
        try:
            # A descriptor of its own, for an alert: the loop closes the connection of a failed handshake at once.
            with socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno())) as connected:
                encrypted = await self._encrypt(first, connected)
                self._release()
        except (OSError, RuntimeError):  # the client has disconnected; uvloop's error for a closed transport
            self._release()
        if encrypted is None or encrypted.is_closing():
            self.abort()
            return
        encrypted.set_write_buffer_limits(BUFFER_BYTES)
        encrypted.set_read_buffer_limits(BUFFER_BYTES)  # type: ignore[attr-defined]
        connection = self._make_connection(self.transport)
        encrypted.set_protocol(connection)
        connection.connection_made(encrypted)
        if self._early:
            connection.data_received(bytes(self._early))

    async def _encrypt(self, first: bytes, connected: socket.socket) -> asyncio.Transport | None:
        """Return the transport of the decrypted bytes, None if the handshake fails."""
        starting = self._loop.create_task(
            self._loop.start_tls(self.transport, self, self._context(), server_side=True)  # the timer ends it earlier
        )
        await asyncio.sleep(0)  # now the transport has its new protocol, which the loop is about to start
        if not starting.done():
            self._loop.call_soon(_feed, self.transport.get_protocol(), first)
        try:
            return await starting
        except ssl.SSLError as error:
            reason = (error.reason or "no reason given").replace("_", " ").lower()
            self._limits.failed_handshakes.record("TLS handshake with %s failed: %s", self.peer, reason)
            connected.send(alert_of(error))
            return None


def _feed(protocol: Any, data: bytes) -> None:
    """Pass to an `asyncio.BufferedProtocol` what was read of its connection before."""
    while data:
        buffer = protocol.get_buffer(len(data))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)
        data = data[size:]
