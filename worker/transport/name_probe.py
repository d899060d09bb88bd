"""Find out whether another worker uses a name at the broker: before it is used, and when the broker falls silent.

A broker gives a name to the connection that used it last, without notice. So two workers of one name would alternately
take each other's jobs; and merely connecting with a name takes it from its owner.
"""

from __future__ import annotations

import time
import uuid as uuids
from enum import Enum

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.protocol.broker_connection import BrokerAddress, BrokerConnection, random_routing_id
from ...models.protocol.broker_replies import ManagementReply, management_request, parse_reply, worker_rows

# In intervals between keepalives: within it a worker that is alive sends one, on a busy machine too.
WINDOW_INTERVALS = 1.4
FULL_WINDOW_INTERVALS = 1.6
_REQUESTS_PER_INTERVAL = 10
_MAX_COUNT_DIGITS = 15


class NameOwner(Enum):
    """The worker that is registered with a name at the broker."""

    NONE = "none"
    """No worker of this name is registered."""

    STALE = "stale"
    """One is registered, but sends no keepalives: it has died, and is listed until its hold time ends."""

    ALIVE = "alive"
    """One is registered and sends keepalives."""


class NameProbe:
    """Determines the owner of a name at the broker, through a connection of its own; used by one thread at a time.

    `started` is when the probe was made; `last_reply` when the broker last replied or connected, `started` before it
    has. Both are monotonic seconds. With `wait_full_window` a live owner is reported only at the end of the window,
    when it is known whether the broker's own keepalives arrive.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: BrokerAddress,
        *,
        name: str,
        keys: KeyPair,
        keepalive_seconds: float,
        wait_full_window: bool,
    ) -> None:
        self.connection = BrokerConnection(context, address, name=random_routing_id(name), keys=keys)
        self.started = self.last_reply = time.monotonic()
        self._handshakes = 0
        self._name = name
        self._pause = keepalive_seconds / _REQUESTS_PER_INTERVAL
        self._window = keepalive_seconds * (FULL_WINDOW_INTERVALS if wait_full_window else WINDOW_INTERVALS)
        self._wait_full_window = wait_full_window
        self._uuid = ""
        self._request_at = self.started
        self._first: int | None = None
        self._until = 0.0

    def step(self, now: float) -> NameOwner | None:
        """Read what has arrived, and send a request if one is due; return the owner once it is known. Never blocks.

        `now` is in monotonic seconds.
        """
        self.connection.read_monitor()
        if self.connection.handshakes > self._handshakes:
            self._handshakes, self.last_reply = self.connection.handshakes, now
        for message in self.connection.broker_messages():
            reply = parse_reply(message) if message.uuid == self._uuid else None
            if isinstance(reply, ManagementReply):
                self._uuid, self._request_at, self.last_reply = "", now + self._pause, now
                found = self._owner_from(reply.value, now)
                if found is not None:
                    return found
        if self.connection.is_up and now >= self._request_at:
            self._uuid = uuids.uuid4().hex
            self.connection.send(management_request(self._uuid, "show_workers").frames())
            # Repeated, in case it is lost with a connection.
            self._request_at = now + _REQUESTS_PER_INTERVAL * self._pause
        return None

    def next_step(self) -> float:
        """Return when `step` is due if nothing arrives before, in monotonic seconds."""
        return self._request_at if self.connection.is_up else time.monotonic() + _REQUESTS_PER_INTERVAL * self._pause

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def _owner_from(self, value: object, now: float) -> NameOwner | None:
        row = next((row for row in worker_rows(value) if row["name"] == self._name), None)
        if row is None or row.get("status") != "alive":
            return NameOwner.NONE
        received = _received(row)
        if self._first is None:
            self._first, self._until = received, now + self._window
        is_alive, is_over = received != self._first, now >= self._until
        if is_alive and (is_over or not self._wait_full_window):
            return NameOwner.ALIVE
        return NameOwner.STALE if is_over else None


def _received(row: dict[str, str]) -> int:
    """Return how many keepalives the broker has received from a worker, 0 where it doesn't say."""
    _, _, received = row.get("keepalives tx/rx", "").partition("/")
    received = received.strip()
    return int(received) if received.isascii() and received.isdigit() and len(received) <= _MAX_COUNT_DIGITS else 0
