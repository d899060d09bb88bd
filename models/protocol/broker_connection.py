"""A connection to a NorFab broker, the requests that the broker answers itself, and why it can't be reached.

The broker identifies a peer by its routing id, and gives the id to the last connection that uses it. So each connection
has a random one, except a worker's own: its id is the worker's name, by which the broker finds it.
"""

from __future__ import annotations

import secrets
import time
import uuid as uuids
from dataclasses import dataclass
from typing import Any, Unpack

import zmq

from ..environment.curve_keys import KeyPair
from ..environment.paths import Environment
from ..errors import NoWorkersError
from ..inventory.schema import Broker
from .broker_key import BrokerKey, find_broker_key
from .broker_replies import ManagementReply, management_request, parse_reply, worker_rows
from .connection import Connection, ConnectionOptions
from .frames import BROKER_SERVICE

ANSWER_SECONDS = 2.5
"""How long a broker may take to answer a request itself; a running one needs a few milliseconds."""


@dataclass(frozen=True)
class BrokerAddress:
    """A broker's endpoint and public key; `key` None: it doesn't use CURVE."""

    endpoint: str
    key: BrokerKey | None

    @classmethod
    def find(cls, environment: Environment, broker: Broker) -> BrokerAddress:
        """Return the address of an inventory's broker.

        Raises:
            InventoryError: its public key is not known or can't be read.
        """
        return cls(broker.endpoint, find_broker_key(environment, broker))


def random_routing_id(owner: str) -> bytes:
    """Return a routing id that no other connection has: the owner's name and random digits."""
    return f"{owner}-nfcli-{secrets.token_hex(8)}".encode()


class BrokerConnection(Connection):
    """A connection to a broker; used by one thread at a time.

    A message that can't be sent at once is refused, so that no job runs long after its caller stopped waiting for it.

    `name` is the routing id, `random_routing_id` or a worker's name; `keys` may be any CURVE pair: the broker accepts
    each client that knows its public key.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: BrokerAddress,
        *,
        name: bytes,
        keys: KeyPair,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        server_key = None if address.key is None else address.key.key
        super().__init__(
            *(context, address.endpoint),
            routing_id=name,
            keys=keys,
            server_key=server_key,
            drops_while_down=True,
            **options,
        )
        self.address = address

    def error_text(self) -> str:
        """Return why the broker can't be reached or doesn't answer, and the remedy, on one line."""
        at = f"the broker at {self.endpoint}"
        if self.is_up:
            return f"{at} doesn't answer: check that it runs, and its log"
        if self.disconnects:
            return f"{at} has gone away"
        if self.is_denied:
            return f"{at} rejects this address: check ip_allowlist in its inventory"
        if self.failed_handshakes:
            key = self.address.key
            uses_none = "it uses CURVE, but zmq_auth is false here"
            problem = uses_none if key is None else f"the key of {key.source} is not its key"
            return f"the handshake with {at} fails: {problem}"
        if self.is_accepted:
            return f"{at} accepts connections but doesn't answer within {self.connect_seconds:g} s: check its log"
        return f"no broker answered at {self.endpoint} within {self.connect_seconds:g} s: start it, or correct endpoint"

    def wait_until_up(self, deadline: float) -> None:
        """Wait until messages can be sent.

        Raises:
            NoWorkersError: there is no connection by `deadline` (monotonic seconds).
        """
        self.read_monitor()
        while not self.is_up:
            if time.monotonic() >= deadline:
                raise NoWorkersError(self.error_text())
            self.wait(deadline)

    def request(
        self, task: str, *, service: str = BROKER_SERVICE, seconds: float = ANSWER_SECONDS, **kwargs: Any
    ) -> Any:
        """Have the broker itself run a task and return its value; other messages that arrive meanwhile are dropped.

        `service` is one of the broker's own; `seconds` is the time to wait, for the connection too; `kwargs` are the
        task's arguments.

        Raises:
            NoWorkersError: the broker can't be reached, or doesn't answer in time.
        """
        deadline = time.monotonic() + seconds
        self.wait_until_up(min(deadline, max(time.monotonic(), self.connect_deadline)))
        uuid = uuids.uuid4().hex
        frames = management_request(uuid, task, service=service, **kwargs).frames()
        while not self.send(frames):
            self._assert_time(deadline)
            self.wait(deadline, until_writable=True)
        while True:
            for message in self.broker_messages():
                reply = parse_reply(message) if message.uuid == uuid else None
                if isinstance(reply, ManagementReply):
                    return reply.value
            self._assert_time(deadline)
            self.wait(deadline)

    def workers(self, *, seconds: float = ANSWER_SECONDS) -> list[dict[str, str]]:
        """Return a row for each worker that the broker has: name, service, status, holdtime, and so on, by name.

        Raises:
            NoWorkersError: as `request`.
        """
        return worker_rows(self.request("show_workers", seconds=seconds))

    def _assert_time(self, deadline: float) -> None:
        if not self.is_up or time.monotonic() >= deadline:
            raise NoWorkersError(self.error_text())
