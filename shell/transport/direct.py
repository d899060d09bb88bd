"""Direct mode as the client sees it: one DEALER for each worker, and a monitor on each that tells why one is silent."""

from __future__ import annotations

import logging
import secrets
import time
import uuid as uuids
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import zmq

from ...models.environment.curve_keys import KeyPair, read_public_key
from ...models.environment.paths import Environment
from ...models.environment.worker_lock import read_owner
from ...models.errors import AccessDeniedError, KeyFileError, NfcliError, NoWorkersError, ProtocolError
from ...models.inventory.schema import Inventory
from ...models.protocol.broker_replies import ProgressUpdate, parse_reply
from ...models.protocol.connection import Connection
from ...models.protocol.frames import (
    BROKER_SERVICE,
    BrokerMessage,
    ClientMessage,
    Command,
    Status,
    decode_data,
    decode_object,
)
from ...models.protocol.pending_job import PendingJob

MMI_TIMEOUT_SECONDS = 3.0
_REASON_CHARACTERS = 2_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A message that came from a worker."""

    worker: str
    message: BrokerMessage


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that can't be reached (`was_up` false: nothing was delivered) or that has gone away."""

    worker: str
    error: NfcliError
    was_up: bool


class DirectTransport:
    """Reaches the workers of an environment; used by one thread at a time."""

    SOURCE: ClassVar[str] = "the inventory"

    def __init__(self, environment: Environment, inventory: Inventory, keys: KeyPair) -> None:
        self._environment = environment
        self._inventory = inventory
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._links: dict[str, _WorkerConnection] = {}

    def refresh(self, seconds: float) -> None:
        """Do nothing: the inventory was read once."""

    def wait_registered(self) -> None:
        """Do nothing: a worker that is ready can be reached."""

    def candidates(self, service: str) -> list[str]:
        """Return the workers that serve `service` (`all`: every one)."""
        workers = self._inventory.workers.items()
        return sorted(name for name, worker in workers if service in (worker.service, "all"))

    def services(self) -> list[str]:
        """Return the services of the inventory's workers."""
        return sorted({worker.service for worker in self._inventory.workers.values()})

    def endpoint(self, name: str) -> str:
        """Return where a worker is reached.

        Raises:
            NoWorkersError: it isn't running on this machine and has no endpoint of another.
        """
        configured = self._inventory.workers[name].endpoint
        owner = read_owner(self._environment.lock_file(name))
        if owner is not None and owner.endpoint:
            return _connectable(owner.endpoint)
        if configured is not None and configured.startswith("tcp://") and not configured.endswith((":0", ":*")):
            return _connectable(configured)
        if owner is not None:
            return self._environment.socket_endpoint(name)
        raise NoWorkersError(f"worker {name} is not running: start it with nfcli -w")

    def is_running(self, name: str) -> bool:
        """Whether there is a connection to a worker, or else somewhere to connect to."""
        if self._sound_link(name) is not None:
            return True
        try:
            self.endpoint(name)
        except NoWorkersError:
            return False
        return True

    def send(self, job: PendingJob) -> None:
        """Send a job to each of its missing workers and take in their answers until all are there or time is up."""
        for name in sorted(job.missing):
            self._post(job, name, Command.POST)
        while job.missing and time.monotonic() < job.deadline:
            for event in self.receive(sorted(job.missing), job.deadline):
                if isinstance(event, Lost):
                    self._lost(job, event)
                elif event.message.uuid == job.uuid and event.worker in job.missing:
                    _answered(job, event)

    def _post(self, job: PendingJob, name: str, command: bytes) -> None:
        try:
            self.send_message(name, ClientMessage(command, job.service, name.encode(), job.uuid, job.data))
        except NoWorkersError as error:
            job.fail_gone(name, error)

    def _lost(self, job: PendingJob, event: Lost) -> None:
        """Ask a worker that went away for the result once more: it may only have been the connection."""
        if event.was_up and event.worker not in job.asked_again:
            job.asked_again.add(event.worker)
            self._post(job, event.worker, Command.GET)
        else:
            job.fail_gone(event.worker, event.error)

    def show_workers(self) -> list[dict[str, str]]:
        """Return a row for each worker: name, service, status (`alive`, `dead`), endpoint, seconds up, note."""
        rows = []
        for name in self.candidates("all"):
            row = {"name": name, "service": self._inventory.workers[name].service}
            try:
                alive = self._ask_worker(name)
                row |= {"status": "alive", "endpoint": self.endpoint(name)}
                row |= {"alive (s)": alive.get("alive (s)", ""), "note": ""}
            except NfcliError as error:
                row |= {"status": "dead", "endpoint": "", "alive (s)": "", "note": str(error)}
            rows.append(row)
        return rows

    def _ask_worker(self, name: str) -> dict[str, str]:
        """Return the row in which a worker shows itself (MMI `show_workers`)."""
        uuid, deadline = uuids.uuid4().hex, time.monotonic() + MMI_TIMEOUT_SECONDS
        self.send_message(name, ClientMessage(Command.MMI, BROKER_SERVICE, b"all", uuid, b'{"task":"show_workers"}'))
        while time.monotonic() < deadline:
            for event in self.receive([name], deadline):
                if isinstance(event, Lost):
                    raise event.error
                if event.message.uuid != uuid:
                    continue
                if event.message.status != Status.DONE:
                    raise NoWorkersError(_reason(event.message))
                return _own_row(event.message, name)
        raise NoWorkersError(f"no answer within {MMI_TIMEOUT_SECONDS:g} s")

    def show_broker(self) -> dict[str, Any]:
        """Refuse.

        Raises:
            NfcliError: always.
        """
        raise NfcliError("this environment has no broker: its workers are reached directly, see show norfab workers")

    def describe(self) -> dict[str, Any]:
        """Return that workers are reached directly, and which."""
        return {"mode": "direct", "workers": self.candidates("all")}

    def send_message(self, name: str, message: ClientMessage) -> None:
        """Send to a worker, over a new connection where there is none or the old one has broken.

        Raises:
            NoWorkersError: the worker isn't running or its key isn't here.
        """
        link = self._sound_link(name)
        if link is None:
            link = self._links[name] = self._connect(name)
        link.dealer.send_multipart(message.frames())

    def receive(self, names: Sequence[str], deadline: float) -> Iterator[Answer | Lost]:
        """Wait for answers of these workers until `deadline` (monotonic seconds); yield what came, nothing if none.

        A `Lost` says that a worker can't be reached or has gone; its connection is closed.
        """
        links = [self._links[name] for name in names if name in self._links]
        poller = zmq.Poller()
        for link in links:
            poller.register(link.dealer, zmq.POLLIN)
            poller.register(link.monitor, zmq.POLLIN)
        wakes = [deadline, *(link.connect_deadline for link in links if not link.handshakes)]
        milliseconds = max(0.0, min(wakes) - time.monotonic()) * 1_000
        ready = dict(poller.poll(int(milliseconds) + 1))
        for link in links:
            if link.monitor in ready:
                link.read_monitor()
            if link.dealer in ready:
                yield from link.answers()
            failure = self._owner_gone(link) or link.failure()
            if failure is not None:
                self._close(link.name)
                yield failure

    def _owner_gone(self, link: _WorkerConnection) -> Lost | None:
        """Return that nobody runs a worker whose socket was refused: one that was killed leaves its file behind."""
        if not link.is_refused or link.handshakes:
            return None
        link.is_refused = False
        try:
            self.endpoint(link.name)
        except NoWorkersError as error:
            return Lost(link.name, error, was_up=False)
        return None

    def close(self) -> None:
        """Close every connection at once."""
        for name in list(self._links):
            self._close(name)
        self._context.destroy(linger=0)

    def _sound_link(self, name: str) -> _WorkerConnection | None:
        """Return the connection to a worker; one that has broken is closed and isn't one."""
        link = self._links.get(name)
        if link is not None:
            link.read_monitor()
            if link.is_broken:
                self._close(name)
                return None
        return link

    def _connect(self, name: str) -> _WorkerConnection:
        endpoint = self.endpoint(name)
        key_file = self._environment.keys_folder / f"{name}.key"
        try:
            server_key = read_public_key(key_file)
        except KeyFileError as error:
            raise NoWorkersError(f"worker {name} can't be reached without its public key: {error}") from None
        return _WorkerConnection(
            self._context, name, endpoint, keys=self._keys, server_key=server_key, key_file=key_file
        )

    def _close(self, name: str) -> None:
        self._links.pop(name).close()


class _WorkerConnection(Connection):
    """A connection to one worker."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        name: str,
        endpoint: str,
        *,
        keys: KeyPair,
        server_key: bytes,
        key_file: Path,
    ) -> None:
        # A new name each time: the worker may still hold the connection that this one replaces.
        routing_id = b"nfcli-" + secrets.token_hex(8).encode()
        super().__init__(context, endpoint, routing_id=routing_id, keys=keys, server_key=server_key)
        self.name = name
        self._key_file = key_file

    @property
    def is_broken(self) -> bool:
        """Whether another connection is needed, even if this one has come about again: its messages are lost."""
        return self.is_denied or self.disconnects > 0

    def answers(self) -> Iterator[Answer]:
        """Yield what has arrived, up to a bound: the caller has a deadline to keep. What isn't NFP is dropped."""
        for frames in self.messages():
            try:
                yield Answer(self.name, BrokerMessage.parse(frames))
            except ProtocolError as error:
                log.debug("answer of %s dropped: %s", self.name, error)

    def failure(self) -> Lost | None:
        """Return why this worker can't be talked to, None while it can or still may."""
        error: NfcliError
        if self.is_denied:
            error = AccessDeniedError(
                f"the worker at {self.endpoint} doesn't know this client's key: "
                f"put the client's .key file into the worker's .nfcli/clients/"
            )
        elif self.is_broken:
            error = NoWorkersError(f"worker {self.name} at {self.endpoint} has gone away")
        elif self.is_up or time.monotonic() < self.connect_deadline:
            return None
        elif self.failed_handshakes:
            error = NoWorkersError(
                f"the handshake with {self.endpoint} fails: {self._key_file} is not the key of the worker there"
            )
        elif self.is_accepted:
            error = NoWorkersError(
                f"worker {self.name} at {self.endpoint} takes connections but doesn't answer within "
                f"{self.connect_seconds:g} s: see its log, or end it and start it again"
            )
        else:
            error = NoWorkersError(
                f"no worker answered at {self.endpoint} within {self.connect_seconds:g} s: start it with nfcli -w"
            )
        return Lost(self.name, error, was_up=self.handshakes > 0)


def _answered(job: PendingJob, event: Answer) -> None:
    message, name = event.message, event.worker
    if message.command == Command.EVENT:
        heard = parse_reply(message)
        if isinstance(heard, ProgressUpdate):
            job.report_progress(name, heard.message)
    if message.command != Command.RESPONSE:
        return
    if message.status == Status.DONE:
        job.finish(name, _own_result(message, name))
    elif message.status == Status.FORBIDDEN:
        job.fail(name, f"{_reason(message)}: put its .key file back into the worker's .nfcli/clients/")
    elif message.status == Status.NOT_FOUND and name in job.asked_again:
        job.fail_restarted(name)
    elif Status.is_error(message.status):
        job.fail(name, _reason(message))


def _own_result(message: BrokerMessage, name: str) -> object:
    try:
        return decode_object(message.data).get(name)
    except ProtocolError:
        return None


def _own_row(message: BrokerMessage, name: str) -> dict[str, str]:
    try:
        rows = decode_data(message.data)
    except ProtocolError:
        rows = None
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and row.get("name") == name:
            return row
    raise NoWorkersError("the worker's answer doesn't name it")


def _reason(message: BrokerMessage) -> str:
    try:
        payload = decode_object(message.data)
    except ProtocolError:
        payload = {}
    for said in (payload.get("error"), payload.get("status")):
        if isinstance(said, str) and said:
            return said[:_REASON_CHARACTERS]
    return f"status {message.status}"


def _connectable(endpoint: str) -> str:
    """Return the endpoint to connect to for one that a worker bound: a wildcard address means this machine."""
    for wildcard in ("tcp://0.0.0.0:", "tcp://*:", "tcp://[::]:"):
        if endpoint.startswith(wildcard):
            return "tcp://127.0.0.1:" + endpoint.removeprefix(wildcard)
    return endpoint
