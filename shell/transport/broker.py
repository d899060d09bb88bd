"""The client's side of fabric mode: one connection to a NorFab broker, which all workers are registered at."""

from __future__ import annotations

import time
import uuid as uuids
from collections.abc import Callable
from typing import Any, ClassVar

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.environment.paths import Environment
from ...models.environment.worker_lock import read_owner
from ...models.errors import NfcliError, NoWorkersError
from ...models.inventory.schema import SERVICE, Inventory
from ...models.protocol.broker_connection import BrokerAddress, BrokerConnection, random_routing_id
from ...models.protocol.broker_presence import Timeouts
from ...models.protocol.broker_replies import INVENTORY_SERVICE, Finished, WorkerReply, parse_reply
from ...models.protocol.frames import ALL, ClientMessage, Command, encode_data, encode_target
from ...models.protocol.pending_job import PendingJob
from .base import MISSING, not_running
from .delivery import Delivery

REGISTER_SECONDS = 3.0
"""How long a ready worker may take to register: it needs milliseconds, but the broker may be busy."""
ALIVE = "alive"
TIMEOUTS = Timeouts(silence=2.0)

_PAUSE_SECONDS = 0.02
_ANY_JOB = encode_data({"task": "", "kwargs": {}, "args": []})


class FabricTransport:
    """Reaches workers through a broker; used by one thread at a time.

    Workers of the inventory's topology are expected to be registered. `keys` None: a new pair, since the broker accepts
    any. `notice` is called when the broker goes away during a job, and when it returns. `connect` makes connections.
    `identity` is that of an earlier transport, whose jobs are to be found again; by default it is a new one.
    """

    SOURCE: ClassVar[str] = "the broker"
    COLUMNS: ClassVar[tuple[str, ...]] = ("name", "service", "status", "holdtime", "alive (s)", "note")

    def __init__(
        self,
        environment: Environment,
        inventory: Inventory,
        keys: KeyPair | None,
        address: BrokerAddress,
        *,
        notice: Callable[[str], None] | None = None,
        timeouts: Timeouts = TIMEOUTS,
        connect: Callable[..., BrokerConnection] = BrokerConnection,
        identity: str = "",
    ) -> None:
        self._environment = environment
        self._inventory = inventory
        self._keys = keys or KeyPair(*zmq.curve_keypair())
        self._address = address
        self._notify = notice or (lambda _: None)
        self._timeouts = timeouts
        self._connect = connect
        # Kept for all connections: workers identify a repeated job by its uuid and this id.
        self._name = identity.encode() or random_routing_id("client")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._connection: BrokerConnection | None = None
        self._rows: dict[str, dict[str, str]] = {}
        self._remote_services: dict[str, str] = {}

    def refresh(self, seconds: float) -> None:
        """Request the list of workers, over a new connection if there is none or the old one has broken.

        Raises:
            NoWorkersError: the broker can't be reached, or doesn't answer within `seconds`.
        """
        deadline = time.monotonic() + seconds
        connection = self._usable_connection()
        try:
            rows = connection.workers(seconds=seconds)
        except NoWorkersError:
            if connection.is_up or not connection.disconnects:
                raise
            # The connection broke during the request: the broker may have been restarted.
            rows = self._usable_connection().workers(seconds=max(0.0, deadline - time.monotonic()))
        self._rows = {row["name"]: row for row in rows}

    def _usable_connection(self) -> BrokerConnection:
        if self._connection is not None:
            self._connection.read_monitor()
            if not self._connection.is_up:
                self._connection.close()
                self._connection = None
        if self._connection is None:
            self._connection = self._connect(
                self._context, self._address, name=self._name, keys=self._keys, connect_seconds=self._timeouts.answer
            )
        return self._connection

    @property
    def identity(self) -> str:
        """What the broker and the workers know this client by."""
        return self._name.decode()

    def wait_registered(self) -> None:
        """Wait until this environment's ready workers have registered, for `REGISTER_SECONDS` at most."""
        deadline = time.monotonic() + REGISTER_SECONDS
        self.refresh(REGISTER_SECONDS)
        while time.monotonic() < deadline and any(map(self._is_ready_here, self._own().keys() - self._rows.keys())):
            time.sleep(_PAUSE_SECONDS)
            self.refresh(REGISTER_SECONDS)

    def _is_ready_here(self, name: str) -> bool:
        owner = read_owner(self._environment.lock_file(name))
        return owner is not None and owner.ready

    def candidates(self, service: str) -> list[str]:
        """Return a service's workers (`all`: of every service): those registered, and those of this environment."""
        services = self._own() | {name: row["service"] for name, row in self._rows.items()}
        return sorted(name for name, serves in services.items() if service in (serves, ALL))

    def _own(self) -> dict[str, str]:
        """Return the service of each worker that the topology has on this machine, by name."""
        return {name: self._own_service(name) for name in self._inventory.topology.workers}

    def _own_service(self, name: str) -> str:
        """Return the service of a worker of this machine, from the broker, once, if only that has its inventory."""
        if name in self._inventory.workers:
            return self._inventory.workers[name].service
        if name in self._rows:
            return self._rows[name]["service"]
        if name not in self._remote_services:
            try:
                found = self._usable_connection().request("get_inventory", service=INVENTORY_SERVICE, name=name)
            except NoWorkersError:  # reported when the worker's own process requests its inventory
                found = None
            service = found.get("service") if isinstance(found, dict) else None
            # A worker that the broker has no inventory of is not skipped: the start of its process reports that.
            self._remote_services[name] = service if isinstance(service, str) else SERVICE
        return self._remote_services[name]

    def registered(self, service: str) -> list[str]:
        """Return a service's workers (`all`: of every service) that the broker listed at the last `refresh`."""
        return sorted(name for name, row in self._rows.items() if service in (row["service"], ALL))

    def services(self) -> list[str]:
        """Return the services of these workers."""
        return sorted({row["service"] for row in self._rows.values()} | set(self._own().values()))

    def is_running(self, name: str) -> bool:
        """Whether a worker is registered and alive; one of this machine must also have a running process.

        The broker lists a killed worker as alive until its hold time is over.
        """
        is_alive = name in self._rows and self._rows[name].get("status") == ALIVE
        return is_alive and (name not in self._inventory.topology.workers or self._is_ready_here(name))

    def answers(self, name: str, seconds: float) -> bool:
        """Whether a worker answers within `seconds` that it doesn't know a job."""
        connection, uuid = self._usable_connection(), uuids.uuid4().hex
        deadline = time.monotonic() + seconds
        request = ClientMessage(Command.GET, self._service_of(name), encode_target([name]), uuid, _ANY_JOB)
        if not connection.send(request.frames()):
            return False
        while time.monotonic() < deadline:
            for message in connection.broker_messages():
                reply = parse_reply(message) if message.uuid == uuid else None
                if isinstance(reply, WorkerReply | Finished):
                    return True
            connection.wait(deadline)
        return False

    def _service_of(self, name: str) -> str:
        return self._rows[name]["service"] if name in self._rows else self._own_service(name)

    def send(self, job: PendingJob) -> None:
        """Send a job to its missing workers and wait for their results until none is missing or it expires."""
        Delivery(self._usable_connection(), job, self._notify, self._timeouts).run()

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker: name, service, status, holdtime, seconds up, note.

        The status is the broker's, or `missing` for a worker of this machine that isn't registered there.
        """
        rows = {name: {**row, "note": ""} for name, row in self._rows.items()}
        for name, service in self._own().items():
            if name not in rows:
                rows[name] = {"service": service, "status": MISSING, "note": self._why_missing(name)}
        return [{key: rows[name].get(key, "") for key in self.COLUMNS} | {"name": name} for name in sorted(rows)]

    def _why_missing(self, name: str) -> str:
        owner = read_owner(self._environment.lock_file(name))
        if owner is None:
            return not_running(name)
        return f"worker {name} runs here (pid {owner.pid or '?'}) but is not registered at the broker: check its log"

    def show_broker(self) -> dict[str, Any]:
        """Return the broker's state and versions, and how many workers and services it has.

        Raises:
            NoWorkersError: it can't be reached, or doesn't answer.
            NfcliError: its answer has another shape.
        """
        connection = self._usable_connection()
        status, versions = connection.request("get_status"), connection.request("show_broker_version")
        for task, answer in (("get_status", status), ("show_broker_version", versions)):
            if not isinstance(answer, dict):
                oldest = "norfab 0.25.0 or newer is needed"
                raise NfcliError(f"the broker at {connection.endpoint} doesn't know {task}: {oldest}")
        services = {row["service"] for row in self._rows.values()}
        return {**status, "versions": versions, "workers": len(self._rows), "services": len(services)}

    def ask_broker(self, task: str, **kwargs: Any) -> Any:
        """Return the broker's answer to a request; NoWorkersError if it can't be reached, or doesn't answer."""
        return self._usable_connection().request(task, **kwargs)

    def describe(self) -> dict[str, Any]:
        """Return the broker's endpoint, where its key was found, and the workers of this machine."""
        key = self._address.key
        return {
            "mode": "fabric",
            "broker": self._address.endpoint,
            "broker_key": "none: zmq_auth is false" if key is None else key.source,
            "workers": sorted(self._inventory.topology.workers),
        }

    def close(self) -> None:
        """Close the connection at once."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._context.destroy(linger=0)
