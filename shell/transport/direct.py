"""The client's side of direct mode: one connection to each worker, whose monitor explains why one doesn't answer."""

from __future__ import annotations

import contextlib
import secrets
import time
import uuid as uuids
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Unpack

import zmq

from ...models.environment.curve_keys import KeyPair, read_worker_key
from ...models.environment.paths import Environment
from ...models.environment.worker_lock import has_owner, read_owner
from ...models.errors import AccessDeniedError, KeyFileError, NfcliError, NoWorkersError, ProtocolError
from ...models.inventory.schema import Inventory
from ...models.mailbox import Mailbox
from ...models.protocol.broker_replies import ManagementReply, WorkerReply, error_reason, parse_reply, worker_rows
from ...models.protocol.connection import Connection, ConnectionOptions
from ...models.protocol.frames import (
    BROKER_SERVICE,
    BrokerMessage,
    ClientMessage,
    Command,
    Status,
    decode_object,
)
from ...models.protocol.pending_job import PendingJob
from .base import START_IT, START_THERE, not_running

ANSWER_SECONDS = 3.0
LOCK_SECONDS = 0.05
"""For how long a look at a worker's lock holds: jobs in a loop aren't slowed by it."""
FULL_SECONDS = 0.2
"""How long a worker may take to read what has been sent to it before, when there is no more room for a message."""


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The loss of a worker that can't be reached (`was_up` false: nothing was delivered) or has disconnected."""

    error: NfcliError
    was_up: bool


class DirectTransport:
    """Reaches the workers of an environment; used by one thread at a time.

    `keys` is the client's CURVE pair; `answer_seconds` is how long a worker may take to answer a request for its row.
    """

    SOURCE: ClassVar[str] = "the inventory"
    COLUMNS: ClassVar[tuple[str, ...]] = ("name", "service", "status", "endpoint", "alive (s)", "note")

    def __init__(
        self,
        environment: Environment,
        inventory: Inventory,
        keys: KeyPair,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        self._answer_seconds = answer_seconds
        self._options = options
        self._environment = environment
        self._inventory = inventory
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._connections: dict[str, _WorkerConnection] = {}

    @property
    def identity(self) -> str:
        """Empty: workers know this client by its key."""
        return ""

    def refresh(self, seconds: float) -> None:
        """Do nothing: the inventory was read once."""

    def wait_registered(self) -> None:
        """Do nothing: a worker can be reached as soon as it is ready."""

    def candidates(self, service: str) -> list[str]:
        """Return the workers that serve `service` (`all`: every one)."""
        workers = self._inventory.workers.items()
        return sorted(name for name, worker in workers if service in (worker.service, "all"))

    def registered(self, service: str) -> list[str]:  # noqa: ARG002  as in `Transport`
        """Return none: there is no broker."""
        return []

    def services(self) -> list[str]:
        """Return the services of the inventory's workers."""
        return sorted({worker.service for worker in self._inventory.workers.values()})

    def endpoint(self, name: str) -> str:
        """Return the endpoint to connect to for a worker.

        Raises:
            NoWorkersError: it isn't running on this machine and has no TCP endpoint in the inventory.
        """
        configured = self._inventory.workers[name].endpoint
        owner = read_owner(self._environment.lock_file(name))
        if owner is not None and owner.endpoint:
            return _connectable(owner.endpoint)
        if configured is not None and configured.startswith("tcp://") and not configured.endswith((":0", ":*")):
            return _connectable(configured)
        if owner is not None:
            return self._environment.socket_endpoint(name)
        raise NoWorkersError(not_running(name))

    def is_running(self, name: str) -> bool:
        """Whether there is a connection to a worker, or an endpoint to connect to."""
        if self._usable_connection(name) is not None:
            return True
        try:
            self.endpoint(name)
        except NoWorkersError:
            return False
        return True

    def answers(self, name: str, seconds: float) -> bool:
        """Whether a worker answers a request for its row within `seconds`."""
        try:
            self._request_row(name, seconds)
        except NfcliError:
            return False
        return True

    def send(self, job: PendingJob) -> None:
        """Send a job to each of its missing workers and wait for results until none is missing or it expires."""
        for name in sorted(job.missing):
            self._post(job, name, job.command)
        while job.missing and time.monotonic() < job.deadline:
            for name, event in self.receive(sorted(job.missing), job.deadline, job.waker):
                if isinstance(event, WorkerLost):
                    self._handle_loss(job, name, event)
                elif event.uuid == job.uuid and name in job.missing:
                    _handle_answer(job, name, event)
            for name, data in job.take_outgoing():
                self._put(job, name, data)
            if job.is_abandoned:
                return

    def _post(self, job: PendingJob, name: str, command: bytes) -> None:
        try:
            self.send_message(name, ClientMessage(command, job.service, name.encode(), job.uuid, job.data))
        except NfcliError as error:
            job.fail_gone(name, error)

    def _put(self, job: PendingJob, name: str, data: bytes) -> None:
        """Send data to a worker that runs the job; that it is gone is seen where its result is awaited."""
        with contextlib.suppress(NfcliError):
            self.send_message(name, ClientMessage(Command.PUT, job.service, name.encode(), job.uuid, data))

    def _handle_loss(self, job: PendingJob, name: str, loss: WorkerLost) -> None:
        """Request the result again, once, from a worker that disconnected: only the connection may have broken."""
        if loss.was_up and name not in job.asked_again:
            job.asked_again.add(name)
            self._post(job, name, Command.GET)
        else:
            job.fail_gone(name, loss.error)

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker: name, service, status (`alive`, `dead`), endpoint, seconds up, note."""
        rows = []
        for name in self.candidates("all"):
            service = self._inventory.workers[name].service
            row = dict.fromkeys(self.COLUMNS, "") | {"name": name, "service": service, "status": "dead"}
            try:
                seconds = self._request_row(name, self._answer_seconds).get("alive (s)", "")
                row |= {"endpoint": self.endpoint(name), "status": "alive", "alive (s)": seconds}
            except NfcliError as error:
                row["note"] = str(error)
            rows.append(row)
        return rows

    def _request_row(self, name: str, seconds: float) -> dict[str, str]:
        """Return a worker's own row (MMI `show_workers`)."""
        uuid, deadline = uuids.uuid4().hex, time.monotonic() + seconds
        self.send_message(name, ClientMessage(Command.MMI, BROKER_SERVICE, b"all", uuid, b'{"task":"show_workers"}'))
        while time.monotonic() < deadline:
            for _, event in self.receive([name], deadline):
                if isinstance(event, WorkerLost):
                    raise event.error
                if event.uuid != uuid:
                    continue
                if event.status != Status.DONE:
                    raise NoWorkersError(_reason(event))
                return _own_row(event, name)
        raise NoWorkersError(f"no answer within {seconds:g} s")

    def show_broker(self) -> dict[str, Any]:
        """Raise NfcliError: there is no broker in direct mode."""
        raise NfcliError("this environment has no broker: its workers are reached directly, see show norfab workers")

    def ask_broker(self, task: str, **_: Any) -> Any:  # noqa: ARG002  as in Transport
        """Raise NfcliError, as `show_broker`."""
        return self.show_broker()

    def describe(self) -> dict[str, Any]:
        """Return the mode and the workers' names."""
        return {"mode": "direct", "workers": self.candidates("all")}

    def send_message(self, name: str, message: ClientMessage) -> None:
        """Send a message to a worker, over a new connection if there is none or the old one has broken.

        Raises:
            NfcliError: the worker isn't running, refuses this client's key, reads no messages, or its key is missing.
        """
        connection = self._usable_connection(name)
        if connection is None:
            connection = self._connections[name] = self._connect(name)
        if connection.send(message.frames()):
            return
        connection.wait(time.monotonic() + FULL_SECONDS, until_writable=True)
        if not connection.send(message.frames()):
            connection.read_monitor()
            full = f"worker {name} takes no more messages: check its log, or restart it"
            raise connection.failure() or NoWorkersError(full)

    def receive(
        self, names: Sequence[str], deadline: float, waker: Mailbox[None] | None = None
    ) -> Iterator[tuple[str, BrokerMessage | WorkerLost]]:
        """Yield messages of these workers, each with its worker's name, until `deadline` (monotonic seconds).

        It returns when `waker` wakes this thread, too. The connection to a worker reported as `WorkerLost` is closed.
        """
        connections = [self._connections[name] for name in names if name in self._connections]
        poller = zmq.Poller()
        for connection in connections:
            poller.register(connection.dealer, zmq.POLLIN)
            poller.register(connection.monitor, zmq.POLLIN)
        wakes = [deadline, *(connection.connect_deadline for connection in connections if not connection.handshakes)]
        milliseconds = max(0.0, min(wakes) - time.monotonic()) * 1_000
        if waker is not None:
            poller.register(waker.reader, zmq.POLLIN)
        ready = dict(poller.poll(int(milliseconds) + 1))
        if waker is not None:
            waker.clear()
        for connection in connections:
            if connection.monitor in ready:
                connection.read_monitor()
            if connection.dealer in ready:
                yield from ((connection.name, message) for message in connection.broker_messages())
            error = self._check_owner(connection) or connection.failure()
            if error is not None:
                self._close(connection.name)
                yield connection.name, WorkerLost(error, was_up=connection.handshakes > 0)

    def _check_owner(self, connection: _WorkerConnection) -> NfcliError | None:
        """Return the error of a worker that was killed: its socket file is there, and no process listens."""
        if not connection.is_refused or connection.handshakes:
            return None
        connection.is_refused = False
        try:
            self.endpoint(connection.name)
        except NoWorkersError as error:
            return error
        return None

    def close(self) -> None:
        """Close all connections at once."""
        for name in list(self._connections):
            self._close(name)
        self._context.destroy(linger=0)

    def _usable_connection(self, name: str) -> _WorkerConnection | None:
        """Return the connection to a worker, None if there is none; one that has broken is closed."""
        connection = self._connections.get(name)
        if connection is not None:
            connection.read_monitor()
            if connection.is_broken or not self._has_lock(connection):
                self._close(name)
                return None
        return connection

    def _has_lock(self, connection: _WorkerConnection) -> bool:
        """Whether a worker of this machine has its lock; that goes with its process, its connection some time later."""
        now = time.monotonic()
        if connection.is_local and now - connection.lock_seen >= LOCK_SECONDS:
            connection.lock_seen = now
            # Without a descriptor left, for example, the connection's state has to do.
            with contextlib.suppress(OSError):
                return has_owner(self._environment.lock_file(connection.name), is_private=True)
        return True

    def _connect(self, name: str) -> _WorkerConnection:
        endpoint = self.endpoint(name)
        key_file = self._environment.keys_folder / f"{name}.key"
        try:
            connection = _WorkerConnection(self._context, name, endpoint, key_file, self._keys, **self._options)
        except KeyFileError as error:
            raise NoWorkersError(f"worker {name} can't be reached without its public key: {error}") from None
        connection.is_local = read_owner(self._environment.lock_file(name)) is not None
        connection.remedy = START_IT if name in self._inventory.topology.workers else START_THERE
        return connection

    def _close(self, name: str) -> None:
        self._connections.pop(name).close()


class _WorkerConnection(Connection):
    """A connection to one worker; KeyFileError if its public key can't be read from `key_file`."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        name: str,
        endpoint: str,
        key_file: Path,
        keys: KeyPair,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        # A new id each time: the worker may still hold the connection that this one replaces.
        routing_id = b"nfcli-" + secrets.token_hex(8).encode()
        server_key = read_worker_key(key_file)
        super().__init__(context, endpoint, routing_id=routing_id, keys=keys, server_key=server_key, **options)
        self.name = name
        self.is_local = False
        self.remedy = START_IT
        self.lock_seen = float("-inf")
        self._key_file = key_file

    @property
    def is_broken(self) -> bool:
        """Whether a new connection is needed, even if this one was re-established: messages were lost."""
        return self.is_denied or self.disconnects > 0

    def failure(self) -> NfcliError | None:
        """Return why this worker can't be reached, None while it can or may still connect."""
        if not self.is_broken and (self.is_up or time.monotonic() < self.connect_deadline):
            return None
        worker, within = f"worker {self.name} at {self.endpoint}", f"within {self.connect_seconds:g} s"
        if self.is_denied:
            remedy = "put the client's .key file into the worker's .nfcli/clients/ with nfcli --authorize"
            return AccessDeniedError(f"the worker at {self.endpoint} doesn't know this client's key: {remedy}")
        if self.is_broken:
            return NoWorkersError(f"{worker} has gone away")
        if self.failed_handshakes:
            problem = f"{self._key_file} is not the key of the worker there"
            return NoWorkersError(f"the handshake with {self.endpoint} fails: {problem}")
        if self.is_accepted:
            hangs = f"{worker} accepts connections but doesn't answer {within}"
            return NoWorkersError(f"{hangs}: check its log, or restart it")
        return NoWorkersError(f"no worker answered at {self.endpoint} {within}: {self.remedy}")


def _handle_answer(job: PendingJob, name: str, message: BrokerMessage) -> None:
    if message.command != Command.RESPONSE:
        reply = parse_reply(message)
        if isinstance(reply, WorkerReply):
            job.report_event(name, reply.event)
    elif message.status == Status.DONE:
        job.finish(name, _object(message).get(name))
    elif message.status == Status.DISPATCHED:
        job.accept(name)
    elif message.status in {Status.PENDING, Status.WAITING_CLIENT_INPUT}:
        job.note_state(name, str(_object(message).get("status", "")))
    elif message.status == Status.FORBIDDEN:
        remedy = "put its .key file back into the worker's .nfcli/clients/ with nfcli --authorize"
        job.fail(name, f"{_reason(message)}: {remedy}")
    elif message.status == Status.NOT_FOUND and job.is_query:
        job.fail_unknown(name)
    elif message.status == Status.NOT_FOUND and name in job.asked_again:
        job.fail_restarted(name)
    elif Status.is_error(message.status):
        job.fail(name, _reason(message))


def _object(message: BrokerMessage) -> dict[str, Any]:
    """Return the JSON object in a message, an empty one if there is none."""
    try:
        return decode_object(message.data)
    except ProtocolError:
        return {}


def _own_row(message: BrokerMessage, name: str) -> dict[str, str]:
    reply = parse_reply(message)
    for row in worker_rows(reply.value) if isinstance(reply, ManagementReply) else []:
        if row["name"] == name:
            return row
    raise NoWorkersError("the worker's answer doesn't name it")


def _reason(message: BrokerMessage) -> str:
    return error_reason(message.status, _object(message))


def _connectable(endpoint: str) -> str:
    """Return the endpoint to connect to for a bound one: a wildcard address means this machine."""
    for wildcard in ("tcp://0.0.0.0:", "tcp://*:", "tcp://[::]:"):
        if endpoint.startswith(wildcard):
            return "tcp://127.0.0.1:" + endpoint.removeprefix(wildcard)
    return endpoint
