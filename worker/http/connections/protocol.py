"""One connection: uvicorn's, with limits on what its client can occupy.

What follows the active request is neither parsed nor kept beyond `MAX_HEADER_BYTES`. The middleware limits bodies,
uvicorn the time between requests.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..responses import CLOSE, error_response
from .table import ConnectionTable, HttpLimits

HEADER_TIMEOUT_SECONDS = 10.0
UNREAD_TIMEOUT_SECONDS = 30.0
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_PIPELINED_REQUESTS = 16
UNREAD_CHECK_SECONDS = 5.0
UNSENT_CHECK_SECONDS = 0.1
_FEW_BYTES = 64 * 1024
_SLICE_BYTES = 4 * 1024
_EXTENSION = "nfcli.connection"
_NOT_HTTP = error_response(400, "the request is not valid HTTP/1.1", CLOSE)


def mark_known(scope: Scope) -> None:
    """Note that a request was accepted: its connection is not among the first that close if there are too many."""
    extension = scope.get("extensions", {}).get(_EXTENSION)
    if extension is not None:
        extension["mark_known"]()


async def wait_until_sent(scope: Scope) -> None:
    """Wait until the system has taken all but some of what was written to a request's connection, or it is lost."""
    extension = scope.get("extensions", {}).get(_EXTENSION)
    if extension is not None:
        # Neither uvicorn's flow control nor asyncio's tells: with TLS both count what is encrypted already as sent.
        while extension["count_unsent"]() > _FEW_BYTES:  # noqa: ASYNC110
            await asyncio.sleep(UNSENT_CHECK_SECONDS)


class Transport:
    """A transport that discards writes once its connection is lost, where uvloop's raises, and counts their bytes.

    uvicorn notifies only the last of several pipelined requests that their connection is lost. With TLS `raw` is the
    transport of the encrypted bytes, whose buffer counts too.
    """

    def __init__(self, transport: asyncio.Transport, raw: asyncio.Transport | None = None) -> None:
        self.is_lost = False
        self._transport = transport
        self._raw = raw
        self._written = 0

    @property
    def flushed(self) -> int:
        """How many of the written bytes the system has taken."""
        return self._written - self._unsent

    def count_unsent(self) -> int:
        """Return how many written bytes wait for the client to read."""
        return 0 if self.is_lost else self._unsent

    @property
    def _unsent(self) -> int:
        size = self._transport.get_write_buffer_size()
        return size if self._raw is None else size + self._raw.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Write, or discard after the end."""
        if not self.is_lost:
            self._written += len(data)
            self._transport.write(data)

    def close(self) -> None:
        """Close after what was written; with TLS without waiting for the client's close_notify (RFC 8446 6.1)."""
        self._transport.close()
        if self._raw is not None and self._transport.get_write_buffer_size() == 0:
            self._raw.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """A connection with limits on request heads, on requests ahead of their turn and on unread answers."""

    parser: HttpRequestParser
    transport: Transport  # type: ignore[assignment]

    def __init__(
        self,
        *args: Any,
        table: ConnectionTable,
        limits: HttpLimits,
        raw: asyncio.Transport | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._raw = raw
        self._table = table
        self._limits = limits
        self._header_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._has_headers = False
        self._has_progress = False
        self._is_known = False
        self._ahead = bytearray()
        self._upgrade_head: bytes | None = None

    @property
    def peer(self) -> str:
        """The address of the client, empty if unknown."""
        return self.client[0] if self.client else ""

    @property
    def is_busy(self) -> bool:
        """Whether a request is active: its head is complete, its response is not."""
        return self.cycle is not None and not self.cycle.response_complete

    def abort(self) -> None:
        """Close the connection without waiting for unsent data."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or abort it when there are too many."""
        super().connection_made(Transport(transport, self._raw))  # type: ignore[arg-type]
        if not self._table.add(self):
            self.abort()
            return
        self._start_header_timer()
        self._unread_timer = self.loop.call_later(UNREAD_CHECK_SECONDS, self._check_unread, 0, self.loop.time())

    def data_received(self, data: bytes) -> None:
        """Receive bytes; those behind an active request wait until it has its response."""
        if self._ahead or self._is_waiting():
            self._ahead += data
            if len(self._ahead) > MAX_HEADER_BYTES:
                self._close_too_long("more than %d bytes ahead of their turn", MAX_HEADER_BYTES)
            return
        self._parse(data)

    def _is_waiting(self) -> bool:
        """Whether a request is complete and its response is not."""
        return self.is_busy and not self.cycle.more_body

    def _parse(self, data: bytes) -> None:
        """Parse bytes in pieces, up to the end of a request or of the data."""
        for start in range(0, len(data), _SLICE_BYTES):
            if self._is_waiting():
                self.data_received(data[start:])
                return
            self._parse_piece(data[start : start + _SLICE_BYTES])
            if self.transport.is_closing():
                return

    def _parse_piece(self, data: bytes) -> None:
        self._has_progress = False
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except HttpParserError:
            self._limits.invalid_requests += 1
            self.transport.write(_NOT_HTTP.encode())
            self.transport.close()
            return
        # What is neither body nor the end of a head could go on for ever: a head, a trailer, a chunk's extension.
        self._header_bytes = 0 if self._has_progress else self._header_bytes + len(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._close_too_long("a head of more than %d bytes", MAX_HEADER_BYTES)
        elif self.headers is not None and len(self.headers) > MAX_HEADERS:
            self._close_too_long("more than %d headers", MAX_HEADERS)
        elif len(self.pipeline) > MAX_PIPELINED_REQUESTS:
            self._close_too_long("more than %d requests ahead of their turn", MAX_PIPELINED_REQUESTS)
        elif self.is_busy:
            self._cancel_header_timer()
        elif self._header_timer is None:
            self._start_header_timer()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            if self._upgrade_head is None:  # CONNECT: the parser reads nothing after it
                return
            # The parser read the head alone and would ignore the rest: another one reads all of it without Upgrade.
            (end,) = upgrade.args
            head, self._upgrade_head = self._upgrade_head, None
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            self.parser.feed_data(head)
            self._feed(data[end:])

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._has_headers = False
        super().on_message_begin()
        self.scope["extensions"] = {
            _EXTENSION: {
                "mark_known": self._mark_known,
                "count_unsent": self.transport.count_unsent,
            }
        }

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header; trailers are dropped: a token or a Host among them must have no effect."""
        if not self._has_headers:
            # Blanks around a value aren't part of it (RFC 9110 section 5.5); the parser removes the leading ones.
            super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Start the request, or queue it behind the active one; ignore any Upgrade (RFC 9110 section 7.8)."""
        is_upgrade = self.parser.should_upgrade()
        if is_upgrade and self.parser.get_method() != b"CONNECT":
            self._upgrade_head = self._head_without_upgrade()
            return
        self._has_headers = self._has_progress = True
        super().on_headers_complete()
        self._table.mark_used(self)
        if is_upgrade:
            # The parser reads nothing after CONNECT: the next request needs a new connection.
            self.cycle.keep_alive = False

    def _head_without_upgrade(self) -> bytes:
        line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = (b"%s: %s" % header for header in self.headers if header[0] != b"upgrade")
        return b"\r\n".join([line, *kept, b"", b""])

    def on_message_complete(self) -> None:
        """Note the end of a request; a head with Upgrade is read again."""
        if self._upgrade_head is None:
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body; of one that is not wanted any more it counts as what follows the request."""
        self._has_progress = self._has_progress or self.is_busy
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Go on with what came behind the request, once its task has ended."""
        super().on_response_complete()
        if self._ahead and not self.pipeline:
            self.loop.call_soon(self._parse_ahead)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release what the connection holds."""
        self._table.remove(self)
        self._cancel_header_timer()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        # uvicorn does not cancel this timer when the client disconnects: it would keep the connection for 30 s.
        self._unset_keepalive_if_required()
        self.transport.is_lost = True
        super().connection_lost(exc)

    def _parse_ahead(self) -> None:
        if not self._is_waiting() and not self.transport.is_closing():
            data, self._ahead = bytes(self._ahead), bytearray()
            self._parse(data)

    def _mark_known(self) -> None:
        if not self._is_known:
            self._is_known = True
            self._table.mark_known(self)

    def _start_header_timer(self) -> None:
        close = partial(self._close_too_slow, "no complete request head within %g s", HEADER_TIMEOUT_SECONDS)
        self._header_timer = self.loop.call_later(HEADER_TIMEOUT_SECONDS, close)

    def _cancel_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _check_unread(self, flushed: int, since: float) -> None:
        """Close the connection if its client has read nothing of what waits for it, of any response, for too long."""
        now = self.loop.time()
        if not self.transport.count_unsent() or self.transport.flushed != flushed:
            flushed, since = self.transport.flushed, now
        elif now >= since + UNREAD_TIMEOUT_SECONDS:
            self._close_too_slow("a response unread for %g s", UNREAD_TIMEOUT_SECONDS)
            return
        self._unread_timer = self.loop.call_later(UNREAD_CHECK_SECONDS, self._check_unread, flushed, since)

    def _close_too_long(self, reason: str, most: int) -> None:
        self._limits.too_long.record(f"HTTP connection of %s closed: {reason}", self.peer, most)
        self.abort()

    def _close_too_slow(self, reason: str, seconds: float) -> None:
        self._limits.too_slow.record(f"HTTP connection of %s closed: {reason}", self.peer, seconds)
        self.abort()
