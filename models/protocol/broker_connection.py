"""A connection to a NorFab broker: who may be reached through it, and why it can't be.

The broker knows a peer by the name that it gives itself, and hands that name over to whoever comes last with it: each
connection of ours has a name of its own, but for a worker's, which is how its jobs find it.
"""

from __future__ import annotations

import secrets
import time
import uuid as uuids
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from ..environment.curve_keys import KeyPair
from ..environment.paths import Environment
from ..errors import NoWorkersError, ProtocolError
from ..inventory.schema import Broker
from .broker_key import BrokerKey, find_broker_key
from .broker_replies import ManagementReply, management_request, parse_reply, worker_rows
from .connection import MAX_WAITING, Connection
from .frames import BROKER_SERVICE, BrokerMessage

ANSWER_SECONDS = 2.5
"""How long a broker may take to answer a question of its own; one that runs takes a few milliseconds."""


@dataclass(frozen=True)
class BrokerAddress:
    """Where a broker is and what it is known by; `key` None: it speaks without CURVE."""

    endpoint: str
    key: BrokerKey | None

    @classmethod
    def find(cls, environment: Environment, broker: Broker) -> BrokerAddress:
        """Return the address of an inventory's broker.

        Raises:
            InventoryError: its public key isn't known or can't be read.
        """
        return cls(broker.endpoint, find_broker_key(environment, broker))


def random_routing_id(owner: str) -> bytes:
    """Return a name for a connection that nobody else has: the owner's, with some random digits."""
    return f"{owner}-nfcli-{secrets.token_hex(8)}".encode()


class BrokerConnection(Connection):
    """A connection to a broker; used by one thread at a time.

    Messages that can't be sent at once are refused: a job must not be run long after it was given up.

    Args:
        context: of the sockets.
        address: the broker's.
        name: this connection's, `random_routing_id` or that of a worker.
        keys: this side's CURVE pair; any will do, the broker lets in everybody who knows its own public key.
        max_message_bytes, max_waiting: as of `Connection`.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: BrokerAddress,
        *,
        name: bytes,
        keys: KeyPair,
        connect_seconds: float | None = None,
        max_message_bytes: int | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        server_key = None if address.key is None else address.key.key
        super().__init__(
            context,
            address.endpoint,
            routing_id=name,
            keys=keys,
            server_key=server_key,
            drops_while_down=True,
            connect_seconds=connect_seconds,
            max_message_bytes=max_message_bytes,
            max_waiting=max_waiting,
        )
        self.address = address

    def error_text(self) -> str:
        """Return why the broker isn't there, or says nothing, in one line with what to do."""
        at = f"the broker at {self.endpoint}"
        if self.is_up:
            return f"{at} doesn't answer: see whether it runs, and its log"
        if self.disconnects:
            return f"{at} has gone away"
        if self.is_denied:
            return f"{at} doesn't let this address in: see ip_allowlist in its inventory"
        if self.failed_handshakes:
            return f"the handshake with {at} fails: {self._key_problem()}"
        if self.is_accepted:
            return f"{at} takes connections but doesn't answer within {self.connect_seconds:g} s: see its log"
        return f"no broker answered at {self.endpoint} within {self.connect_seconds:g} s: start it, or correct endpoint"

    def _key_problem(self) -> str:
        if self.address.key is None:
            return "it speaks CURVE, while zmq_auth is false here"
        return f"the key of {self.address.key.source} is not its key"

    def wait_until_up(self, deadline: float) -> None:
        """Wait until messages can be sent.

        Raises:
            NoWorkersError: there is no connection at `deadline` (monotonic seconds).
        """
        self.read_monitor()
        while not self.is_up:
            if time.monotonic() >= deadline:
                raise NoWorkersError(self.error_text())
            self.wait(deadline)

    def ask(
        self,
        task: str,
        *,
        service: str = BROKER_SERVICE,
        seconds: float = ANSWER_SECONDS,
        others: Callable[[BrokerMessage], None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Ask the broker itself and return the value that it answers with.

        Args:
            task: what to ask, `show_workers` for instance.
            service: which of the broker's own services.
            seconds: how long to wait, for the connection too.
            others: gets each message of another kind that comes meanwhile.
            kwargs: the task's arguments.

        Raises:
            NoWorkersError: the broker isn't there, or doesn't answer in time.
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
                heard = parse_reply(message) if message.uuid == uuid else None
                if isinstance(heard, ManagementReply):
                    return heard.value
                if heard is None and others is not None:
                    others(message)
            self._assert_time(deadline)
            self.wait(deadline)

    def workers(self) -> list[dict[str, str]]:
        """Return a row for each worker that the broker has: name, service, status, holdtime, and so on, by name.

        Raises:
            NoWorkersError: as `ask`.
        """
        return worker_rows(self.ask("show_workers"))

    def broker_messages(self) -> list[BrokerMessage]:
        """Return the messages to clients that have arrived; what isn't NFP is dropped."""
        found = []
        for frames in self.messages():
            try:
                found.append(BrokerMessage.parse(frames))
            except ProtocolError:
                continue
        return found

    def _assert_time(self, deadline: float) -> None:
        if not self.is_up or time.monotonic() >= deadline:
            raise NoWorkersError(self.error_text())
