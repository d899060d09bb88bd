"""A bound on the results that are in memory: of each token's calls, and of all, until their clients have read them.

A result counts with the bytes that it has as JSON; in memory it takes several times as many.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from ...models.protocol.jobs import CHECK_BEFORE_RETRY
from ..http.connections.protocol import wait_until_sent
from ..limit_counter import LimitCounter
from .running_calls import caller_token, mcp_client_name

log = logging.getLogger(__name__)

MAX_BYTES_PER_TOKEN = 32 * 1024 * 1024
MAX_BYTES = 128 * 1024 * 1024

_MIB = 1024 * 1024
_ENDED = "the result came too late: nobody waits for it any more"


class ResultBudget:
    """Bytes of results that may be in memory at a time; any thread may call any method."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_bytes_per_token: int = MAX_BYTES_PER_TOKEN) -> None:
        self._max_bytes = max_bytes
        self._max_bytes_per_token = max_bytes_per_token
        self._lock = threading.Lock()
        self._bytes: Counter[str] = Counter()
        self._dropped = LimitCounter(log)

    def counters(self) -> dict[str, int]:
        """Return the bytes of results in memory, and how many results were dropped since the start."""
        with self._lock:
            return {"result_bytes": self._bytes.total(), "results_dropped": self._dropped.count}

    @contextmanager
    def reserve(self, token: str, client: str) -> Iterator[Reservation]:
        """Provide for the results of one request; `client` is the name of the token's user, for the log."""
        reservation = Reservation(self, token, client)
        try:
            yield reservation
        finally:
            with self._lock:
                reservation.is_open = False
                self._bytes[token] -= reservation.size
                self._bytes += Counter()  # drops zero counts

    def move(self, source: Reservation, target: Reservation) -> None:
        """Count the results of one reservation, which is open, as those of another one of the same token."""
        with self._lock:
            source.size, target.size = 0, target.size + source.size

    def take(self, reservation: Reservation, size: int) -> str | None:
        """Count a result of so many bytes; return why it must not be kept, None if it may be."""
        with self._lock:
            if not reservation.is_open:
                return _ENDED
            token = reservation.token
            if self._bytes[token] + size > self._max_bytes_per_token:
                whose, limit = "this token's results", self._max_bytes_per_token
            elif self._bytes.total() + size > self._max_bytes:
                whose, limit = "the results for all tokens", self._max_bytes
            else:
                self._bytes[token] += size
                reservation.size += size
                return None
            reason = f"{whose} may take {limit / _MIB:g} MiB at a time"
            self._dropped.record("result for MCP client %r dropped: %s", reservation.client, reason)
        return f"the result was dropped: {reason}; make fewer calls at once, and {CHECK_BEFORE_RETRY}"


class Reservation:
    """What the results of one request take; `size` is in bytes."""

    def __init__(self, budget: ResultBudget, token: str, client: str) -> None:
        self.token = token
        self.client = client
        self.size = 0
        self.is_open = True
        self._budget = budget

    def take(self, size: int) -> str | None:
        """Count a result of so many bytes; return why it must not be kept, None if it may be. From any thread."""
        return self._budget.take(self, size)

    def detached(self) -> AbstractContextManager[Reservation]:
        """Provide for results of a call that goes on after this request."""
        return self._budget.reserve(self.token, self.client)

    def adopt(self, other: Reservation) -> None:
        """Keep the results of another reservation of the same token for as long as those of this one."""
        self._budget.move(other, self)


_current: ContextVar[Reservation] = ContextVar("reservation")


def current_reservation() -> Reservation:
    """Return the reservation of the request that is being served."""
    return _current.get()


def use_reservation(reservation: Reservation) -> None:
    """Let a reservation be the current one, in this context."""
    _current.set(reservation)


class ResultBudgetApp:
    """An ASGI application that reserves for each request of another one, until its response has been sent."""

    def __init__(self, app: ASGIApp, budget: ResultBudget) -> None:
        self._app = app
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        with self._budget.reserve(caller_token(), mcp_client_name()) as reservation:
            _current.set(reservation)
            await self._app(scope, receive, send)
            if reservation.size:
                await wait_until_sent(scope)
