"""Direct mode: the worker's own ROUTER, which answers clients as a broker and a worker would.

One thread owns the socket. Jobs run elsewhere; their answers come back through a queue and wake that thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.errors import ProtocolError, TaskError, WorkerStartError
from ...models.protocol.frames import (
    ALL,
    ANY,
    BROKER_SERVICE,
    CLIENT_HEADER,
    BrokerMessage,
    ClientMessage,
    Command,
    Status,
    decode_object,
    decode_target,
    encode_data,
)
from ...models.protocol.jobs import JobRequest
from ..jobs.executor import JobExecutor, JobState
from ..jobs.task_context import TaskContext
from ..mailbox import Outbox
from .curve_auth import ZAP_DOMAIN, Access, AllowedClients, short_name

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1024 * 1024
SEND_HIGH_WATER_MARK = 1_000
# Messages that wait to be read may be as long as they are let in: a hundred are enough to keep the thread busy.
RECEIVE_HIGH_WATER_MARK = 100
HANDSHAKE_SECONDS = 5
KEEPALIVE_SECONDS = 5
KEEPALIVE_PROBES = 3
LINGER_SECONDS = 0.5
SUPERVISION_SECONDS = 1.0

_IDENTITY, _UUID_FRAME = 0, 6
_SHOWN_CHARACTERS = 64
# Plain numbers: pyzmq's enumerations cost a microsecond for each frame.
_NOT_LAST, _LAST = int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.NOBLOCK)


class DirectServer:
    """Serves NFP clients on one endpoint, with CURVE and the live list of client keys."""

    def __init__(self, worker: TaskContext, executor: JobExecutor, *, keys: KeyPair, clients: AllowedClients) -> None:
        self._worker = worker
        self._executor = executor
        self._clients = clients
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._access = Access(self._context, clients, worker.audit.refused)
        self._router = self._make_router(keys)
        self._outbox: Outbox[tuple[bytes, BrokerMessage]] = Outbox()
        self._socket_file: Path | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="direct", daemon=True)
        self._counts: Counter[str] = Counter()

    def _make_router(self, keys: KeyPair) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        milliseconds = 1_000
        options: dict[int, int | bytes] = {
            zmq.CURVE_SERVER: 1,
            zmq.CURVE_PUBLICKEY: keys.public,
            zmq.CURVE_SECRETKEY: keys.secret,
            zmq.ZAP_ENFORCE_DOMAIN: 1,
            zmq.LINGER: int(LINGER_SECONDS * milliseconds),
            zmq.MAXMSGSIZE: MAX_MESSAGE_BYTES,
            zmq.SNDHWM: SEND_HIGH_WATER_MARK,
            zmq.RCVHWM: RECEIVE_HIGH_WATER_MARK,
            zmq.HANDSHAKE_IVL: HANDSHAKE_SECONDS * milliseconds,
            # TCP finds the peers that are gone. Heartbeats of ZeroMQ would do so too, and end the whole process where
            # one is due for a peer that went away while its messages had to wait (libzmq issues 3937 and 4364).
            zmq.HEARTBEAT_IVL: 0,
            zmq.TCP_KEEPALIVE: 1,
            zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_SECONDS,
            zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_SECONDS,
            zmq.TCP_KEEPALIVE_CNT: KEEPALIVE_PROBES,
            # An answer for a client that has gone, or that doesn't read, fails at once and is counted.
            zmq.ROUTER_MANDATORY: 1,
        }
        for option, value in options.items():
            router.setsockopt(option, value)
        router.setsockopt_string(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        return router

    def bind(self, endpoint: str) -> str:
        """Bind and return the endpoint with the port that was really taken.

        Raises:
            WorkerStartError: the address is taken, isn't this machine's or isn't a ZeroMQ endpoint.
        """
        if endpoint.startswith("ipc://"):
            self._socket_file = Path(endpoint.removeprefix("ipc://"))
            # The lock says that this worker owns the name, so what lies there is a dead worker's.
            self._socket_file.unlink(missing_ok=True)
        # Only where asked for: a v6 socket would report a v4 address in a form that nobody wants to read.
        self._router.ipv6 = "[" in endpoint
        self._access.start()
        try:
            self._router.bind(endpoint)
        except zmq.ZMQError as error:
            reason = zmq.strerror(error.errno or 0)
            raise WorkerStartError(
                f"endpoint {endpoint} can't be bound: {reason}: free it or change `endpoint` in the inventory"
            ) from None
        if self._socket_file is not None:
            self._socket_file.chmod(0o600)
        return self._router.getsockopt_string(zmq.LAST_ENDPOINT)

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def wait(self) -> None:
        """Block until the serving thread has ended."""
        self._thread.join()

    def counters(self) -> dict[str, int]:
        """Return counts of messages: received, sent, invalid, denied, dropped."""
        return {key: self._counts[key] for key in ("received", "sent", "invalid", "denied", "dropped")}

    def stop(self) -> None:
        """End the thread, hand over what is ready to go, close everything; from the thread that called `bind`."""
        self._stopping.set()
        self._outbox.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout=2 * LINGER_SECONDS)
        self._access.stop()
        self._router.close()
        self._context.destroy(linger=int(LINGER_SECONDS * 1_000))
        self._outbox.close()
        if self._socket_file is not None:
            self._socket_file.unlink(missing_ok=True)

    # -- the thread that owns the socket ---------------------------------------------------------------------------

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._outbox.reader, zmq.POLLIN)
        next_supervision = time.monotonic()
        while not self._stopping.is_set():
            ready = dict(poller.poll(int(SUPERVISION_SECONDS * 1_000)))
            if time.monotonic() >= next_supervision:
                self._access.supervise()
                next_supervision = time.monotonic() + SUPERVISION_SECONDS
            if self._router in ready:
                self._receive()
            self._send_outbox()
        self._send_outbox()

    def _receive(self) -> None:
        """Take one message; nothing that arrives here may end the thread."""
        try:
            first = self._router.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return
        frames = [first.bytes]
        if first.more:
            frames += self._router.recv_multipart()
        self._counts["received"] += 1
        try:
            self._handle(frames[_IDENTITY], frames[1:], _user_id(first))
        except ProtocolError as error:
            self._counts["invalid"] += 1
            log.debug("message dropped: %s", error)
            self._refuse(frames, Status.BAD_REQUEST, str(error))
        except Exception as error:  # noqa: BLE001  a fault here must not end the thread that serves everybody
            self._counts["invalid"] += 1
            log.error("message dropped: %s", type(error).__name__)

    def _handle(self, identity: bytes, frames: list[bytes], client: str) -> None:
        if not self._clients.allows(client):
            self._counts["denied"] += 1
            reason = "this client's key is not allowed"
            if self._worker.audit.refused(short_name(client), reason):
                log.warning("a connected client's key is no longer allowed: message refused")
            self._refuse([identity, *frames], Status.FORBIDDEN, reason)
            return
        message = ClientMessage.parse(frames)
        if message.command == Command.MMI:
            self._manage(identity, message)
        elif message.command in {Command.POST, Command.GET}:
            if self._is_target(identity, message):
                self._dispatch(identity, client, message)
        else:
            log.debug("PUT and DELETE have no use here: dropped")

    def _is_target(self, identity: bytes, message: ClientMessage) -> bool:
        target = decode_target(message.target)
        name, service = self._worker.name, self._worker.service
        names = [target] if isinstance(target, str) else target
        if message.service in {service, ALL} and (name in names or target in (ALL, ANY)):
            return True
        text = message.target.decode(errors="replace")
        reason = f"worker {name} of service {service} is not what was asked for: service {message.service!r}, {text}"
        self._respond(identity, message, Status.BAD_REQUEST, self._failure(message.uuid, reason, text))
        return False

    def _dispatch(self, identity: bytes, client: str, message: ClientMessage) -> None:
        request = JobRequest.parse(message.data) if message.command == Command.POST else None
        worker, service = self._worker.name, self._worker.service
        accepted = {
            "workers": [worker],
            "uuid": message.uuid,
            "target": message.target.decode(),
            "status": "DISPATCHED",
            "service": message.service,
        }
        self._respond(identity, message, Status.DISPATCHED, accepted)
        if request is None:
            self._answer_get(identity, client, message)
            return

        uuid, size = message.uuid, len(message.data)  # a job that waits must not keep the whole message

        # That a task starts is no reason to wake: it goes out with what comes next, of long tasks within a second.
        is_told = False

        def reply(command: bytes, payload: bytes) -> None:
            nonlocal is_told
            # Answers of quick tasks come from the thread itself.
            wake = (is_told or command == Command.RESPONSE) and threading.current_thread() is not self._thread
            is_told = True
            self._outbox.put((identity, BrokerMessage(command, service, uuid, Status.DONE, payload)), wake=wake)

        deliver, notify = partial(reply, Command.RESPONSE), partial(reply, Command.EVENT)
        try:
            self._executor.submit(client, uuid, request, deliver, notify=notify, size=size)
        except TaskError as error:
            self._respond(identity, message, Status.BAD_REQUEST, self._failure(message.uuid, str(error)))

    def _answer_get(self, identity: bytes, client: str, message: ClientMessage) -> None:
        found = self._executor.find(client, message.uuid)
        about = {"worker": self._worker.name, "uuid": message.uuid, "service": self._worker.service}
        if found is None:
            self._respond(identity, message, Status.NOT_FOUND, {**about, "status": "JOB NOT FOUND"})
        elif found[0] is not JobState.COMPLETED:
            self._respond(identity, message, Status.PENDING, {**about, "status": found[0].value})
        else:
            self._respond(identity, message, Status.DONE, found[1] or b"{}")

    def _manage(self, identity: bytes, message: ClientMessage) -> None:
        task = decode_object(message.data).get("task")
        shown = task[:_SHOWN_CHARACTERS] if isinstance(task, str) else type(task).__name__
        answer: Any = f"Unsupported task {shown!r}"
        if message.service == BROKER_SERVICE and task == "show_workers":
            alive = str(int(self._worker.clock() - self._worker.started))
            about = {"name": self._worker.name, "service": self._worker.service, "status": "alive"}
            answer = [{**about, "holdtime": "", "keepalives tx/rx": "", "alive (s)": alive}]
        reply = BrokerMessage(Command.MMI, message.service, message.uuid, Status.DONE, encode_data(answer))
        self._send(identity, reply)

    def _refuse(self, frames: list[bytes], status: Status, reason: str) -> None:
        """Tell the sender, when its message has the form of a client's and names its job."""
        if len(frames) <= _UUID_FRAME or frames[2] != CLIENT_HEADER:
            return
        uuid = frames[_UUID_FRAME].decode(errors="replace")[:64]
        data = encode_data(self._failure(uuid, reason))
        self._send(frames[_IDENTITY], BrokerMessage(Command.RESPONSE, self._worker.service, uuid, status, data))

    def _failure(self, uuid: str, reason: str, target: str = "") -> dict[str, Any]:
        return {
            "workers": None,
            "worker": self._worker.name,
            "uuid": uuid,
            "target": target,
            "status": "FAILED",
            "service": self._worker.service,
            "error": reason,
            "errors": [reason],
        }

    def _respond(self, identity: bytes, message: ClientMessage, status: Status, data: bytes | dict[str, Any]) -> None:
        payload = data if isinstance(data, bytes) else encode_data(data)
        self._send(identity, BrokerMessage(Command.RESPONSE, self._worker.service, message.uuid, status, payload))

    def _send_outbox(self) -> None:
        for identity, message in self._outbox.take():
            self._send(identity, message)

    def _send(self, identity: bytes, message: BrokerMessage) -> None:
        try:
            for frame in (identity, *message.frames()[:-1]):
                self._router.send(frame, _NOT_LAST)
            self._router.send(message.data, _LAST)
        except zmq.ZMQError as error:
            self._counts["dropped"] += 1
            log.debug("answer dropped: %s", error.strerror)
        else:
            self._counts["sent"] += 1


def _user_id(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""
