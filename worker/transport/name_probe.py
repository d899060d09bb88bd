"""Who serves under a worker's name at the broker: asked before the name is used, and when the broker falls silent.

A broker gives a name to whoever connects last with it, and tells nobody. So two workers of one name would take each
other's jobs by turns; and merely to connect under a name takes it away from whoever has it.
"""

from __future__ import annotations

import time
import uuid as uuids
from enum import Enum

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.protocol.broker_connection import BrokerAddress, BrokerConnection, random_routing_id
from ...models.protocol.broker_replies import ManagementReply, management_request, parse_reply, worker_rows

# In intervals between keepalives: a worker that is alive sends one meanwhile, a busy machine's included.
WATCH_INTERVALS = 1.4
PATIENT_INTERVALS = 1.6
_LOOKS_PER_INTERVAL = 10
_COUNT_DIGITS_MAX = 15


class Holder(Enum):
    """Who has a worker's name."""

    NOBODY = "nobody"
    """No worker of this name is registered."""

    SILENT = "silent"
    """One is, and no keepalives come from it: it has died, and stays registered until its time is over."""

    SOMEBODY = "somebody"
    """One is, and keepalives come from it."""


class NameWatch:
    """Finds out who has a name at the broker, by a connection of its own; used by one thread at a time.

    `heard_at` is when the broker last answered, or connected, or when the watch began.

    Args:
        context: of the sockets.
        address: the broker's.
        name: the worker's.
        keys: this side's CURVE pair.
        keepalive_seconds: between two keepalives of a worker.
        is_patient: watch for the whole time before somebody is found, so that it can be known by then whether the
            broker's own keepalives come through.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: BrokerAddress,
        *,
        name: str,
        keys: KeyPair,
        keepalive_seconds: float,
        is_patient: bool,
    ) -> None:
        self.link = BrokerConnection(context, address, name=random_routing_id(name), keys=keys)
        self.began = self.heard_at = time.monotonic()
        self._handshakes = 0
        self._name = name
        self._pause = keepalive_seconds / _LOOKS_PER_INTERVAL
        self._watch = keepalive_seconds * (PATIENT_INTERVALS if is_patient else WATCH_INTERVALS)
        self._is_patient = is_patient
        self._uuid = ""
        self._ask_at = self.began
        self._first: int | None = None
        self._until = 0.0

    def step(self, now: float) -> Holder | None:
        """Take in what has come and ask what is due; return what is known at last. Never waits.

        `now` is in monotonic seconds.
        """
        self.link.read_monitor()
        if self.link.handshakes > self._handshakes:
            self._handshakes, self.heard_at = self.link.handshakes, now
        for message in self.link.broker_messages():
            heard = parse_reply(message) if message.uuid == self._uuid else None
            if isinstance(heard, ManagementReply):
                self._uuid, self._ask_at, self.heard_at = "", now + self._pause, now
                found = self._judge(heard.value, now)
                if found is not None:
                    return found
        if self.link.is_up and now >= self._ask_at:
            self._uuid = uuids.uuid4().hex
            self.link.send(management_request(self._uuid, "show_workers").frames())
            # One that was lost with a connection is asked again.
            self._ask_at = now + _LOOKS_PER_INTERVAL * self._pause
        return None

    def next_step(self) -> float:
        """Return when `step` has something to do if nothing comes before, in monotonic seconds."""
        return self._ask_at if self.link.is_up else time.monotonic() + _LOOKS_PER_INTERVAL * self._pause

    def close(self) -> None:
        """Close the connection."""
        self.link.close()

    def _judge(self, value: object, now: float) -> Holder | None:
        row = next((row for row in worker_rows(value) if row["name"] == self._name), None)
        if row is None or row.get("status") != "alive":
            return Holder.NOBODY
        received = _received(row)
        if self._first is None:
            self._first, self._until = received, now + self._watch
        is_alive, is_over = received != self._first, now >= self._until
        if is_alive and (is_over or not self._is_patient):
            return Holder.SOMEBODY
        return Holder.SILENT if is_over else None


def _received(row: dict[str, str]) -> int:
    """Return how many keepalives the broker has had from a worker, 0 where it doesn't say."""
    _, _, received = row.get("keepalives tx/rx", "").partition("/")
    received = received.strip()
    return int(received) if received.isascii() and received.isdigit() and len(received) <= _COUNT_DIGITS_MAX else 0
