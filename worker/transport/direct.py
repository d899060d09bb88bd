"""Direct mode: the worker's own ROUTER, which replies to clients as a broker and a worker would.

One thread owns the socket. Jobs run in others; their replies come back through a mailbox, which wakes that thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import zmq

from ...models.environment.curve_keys import KeyPair
from ...models.errors import ProtocolError
from ...models.mailbox import Mailbox
from ...models.protocol.frames import (
    ALL,
    ANY,
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
from ..audit.actor import Actor, peer_address
from ..jobs.executor import JobExecutor
from ..jobs.task_context import TaskContext
from .connections.guard import ConnectionGuard
from .curve_auth import ZAP_DOMAIN, Access, AuthorizedKeys, ZapAuthenticator, key_prefix
from .endpoint import bind, socket_file
from .management import BrokerRequests
from .questions import is_question
from .requests import DirectBodies, RequestDispatcher, SendReply
from .stall_watch import StallWatch

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1024 * 1024
SEND_HIGH_WATER_MARK = 1_000
# Each waiting message may have the maximum size; a hundred are enough to keep the thread busy.
RECEIVE_HIGH_WATER_MARK = 100
HANDSHAKE_SECONDS = 5
MAX_FRAMES = 16  # a request has eight, behind the client's identity; more than these are not kept
KEEPALIVE_SECONDS = 5
KEEPALIVE_PROBES = 3
LINGER_SECONDS = 0.5
SUPERVISION_SECONDS = 1.0

_IDENTITY, _UUID_FRAME = 0, 6
# Plain numbers: pyzmq's enumerations cost a microsecond for each frame.
_NOT_LAST, _LAST = int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.NOBLOCK)


class DirectServer:
    """Serves NFP clients on one endpoint, authenticated by CURVE and the authorized keys.

    The serving thread, once started, owns the socket `router` and supervises `zap`, the authenticator of clients.
    """

    def __init__(self, worker: TaskContext, executor: JobExecutor, *, keys: KeyPair, clients: AuthorizedKeys) -> None:
        self._worker = worker
        self._bodies = DirectBodies(worker.name, worker.service)
        self._requests = RequestDispatcher(executor, self._bodies)
        self._management = BrokerRequests(worker, executor)
        self._clients = clients
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.zap = ZapAuthenticator(self._context, clients, worker.audit.refused)
        self.router = self._make_router(keys)
        self._guard = ConnectionGuard(self.router, HANDSHAKE_SECONDS)
        self._mailbox: Mailbox[tuple[bytes, BrokerMessage]] = Mailbox()
        self._socket_file: Path | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="direct", daemon=True)
        self._counts: Counter[str] = Counter()
        self._stalls = StallWatch(SUPERVISION_SECONDS)

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
            # TCP keepalives find dead peers. ZeroMQ's heartbeats would too, but abort the process when one is due for a
            # peer that disconnected while its messages had to wait (libzmq issues 3937 and 4364).
            zmq.HEARTBEAT_IVL: 0,
            zmq.TCP_KEEPALIVE: 1,
            zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_SECONDS,
            zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_SECONDS,
            zmq.TCP_KEEPALIVE_CNT: KEEPALIVE_PROBES,
            # A reply to a client that has disconnected, or doesn't read, fails at once and is counted.
            zmq.ROUTER_MANDATORY: 1,
        }
        for option, value in options.items():
            router.setsockopt(option, value)
        router.setsockopt_string(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        return router

    def bind(self, endpoint: str) -> str:
        """Bind as `endpoint.bind` does, with its errors; return the endpoint."""
        self.zap.start()
        bound = bind(self.router, endpoint)
        self._socket_file = socket_file(endpoint)
        self._guard.start(bound)
        return bound

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def wait(self) -> None:
        """Block until the serving thread has ended."""
        self._thread.join()

    def is_responsive(self) -> bool:
        """Whether the serving thread has gone round its loop lately; from any thread."""
        return self._mailbox.is_being_read()

    def counters(self) -> dict[str, int]:
        """Return counts of messages: received, sent, invalid, denied, dropped; and those of the connections' limits."""
        counts = {key: self._counts[key] for key in ("received", "sent", "invalid", "denied", "dropped")}
        return counts | self._guard.counters()

    def stop(self) -> None:
        """End the thread, send the replies that are ready, close everything; from the thread that called `bind`."""
        self._stopping.set()
        self._mailbox.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout=2 * LINGER_SECONDS)
        self.zap.stop()
        self._guard.stop()
        self.router.close()
        self._context.destroy()  # the router has its own linger
        self._mailbox.close()
        if self._socket_file is not None:
            self._socket_file.unlink(missing_ok=True)

    # -- the thread that owns the socket ---------------------------------------------------------------------------

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self.router, zmq.POLLIN)
        poller.register(self._mailbox.reader, zmq.POLLIN)
        next_supervision = time.monotonic()
        while not self._stopping.is_set():
            ready = dict(poller.poll(int(SUPERVISION_SECONDS * 1_000)))
            self._stalls.begin_round(has_messages=self.router in ready)
            if time.monotonic() >= next_supervision:
                self.zap.supervise()
                next_supervision = time.monotonic() + SUPERVISION_SECONDS
            if self.router in ready:
                self._receive()
            self._send_replies()
        self._send_replies()

    def _receive(self) -> None:
        """Read and handle one message; no fault of it ends the thread."""
        try:
            first = self.router.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return
        self._guard.note_message(first)
        frames = [first.bytes]
        more = first.more
        while more:
            frame = self.router.recv(copy=False)
            more = frame.more
            if len(frames) < MAX_FRAMES:
                frames.append(frame.bytes)
        self._counts["received"] += 1
        try:
            self._handle(frames[_IDENTITY], frames[1:], _metadata(first, "User-Id"), _metadata(first, "Peer-Address"))
        except ProtocolError as error:
            self._counts["invalid"] += 1
            log.debug("message dropped: %s", error)
            self._refuse(frames, Status.BAD_REQUEST, str(error))
        except Exception as error:  # noqa: BLE001  a fault here must not end the thread
            self._counts["invalid"] += 1
            log.error("message dropped: %s", type(error).__name__)

    def _handle(self, identity: bytes, frames: list[bytes], client: str, peer: str) -> None:
        access = self._clients.access(client)
        if access is None:
            reason, logged = "this client's key is not allowed", "the key of a connected client is no longer authorized"
            self._deny([identity, *frames], Actor(key_prefix(client), address=peer_address(peer)), reason, logged)
            return
        message = ClientMessage.parse(frames)
        if access is Access.VERIFY and not is_question(message):
            reason, name = "this client's key may only ask about tokens", self._clients.name(client)
            actor = Actor(name, authenticated="curve", address=peer_address(peer))
            self._deny([identity, *frames], actor, reason, f"{reason}: it is {name}.key in verifiers/")
            return
        if message.command == Command.MMI:
            self._manage(identity, client, message)
        elif message.command in {Command.POST, Command.GET}:
            if self._is_target(identity, message):
                self._dispatch(identity, client, message, peer)
        elif message.command == Command.PUT:
            self._put(client, message)
        else:
            log.debug("message dropped: workers have no use for DELETE")

    def _deny(self, frames: list[bytes], actor: Actor, reason: str, logged: str) -> None:
        """Refuse a message, and record it."""
        self._counts["denied"] += 1
        if self._worker.audit.refused(actor, reason):
            log.warning("message refused: %s", logged)
        self._refuse(frames, Status.FORBIDDEN, reason)

    def _put(self, client: str, message: ClientMessage) -> None:
        """Pass an answer on; one that counts for nothing draws no reply, which would end the client's job."""
        try:
            self._requests.put(client, message.uuid, message.data)
        except ProtocolError as error:
            self._counts["invalid"] += 1
            log.debug("message dropped: %s", error)

    def _is_target(self, identity: bytes, message: ClientMessage) -> bool:
        """Whether a request is for this worker; the client is sent the reason if not."""
        target = decode_target(message.target)
        name, service = self._worker.name, self._worker.service
        names = [target] if isinstance(target, str) else target
        if message.service in {service, ALL} and (name in names or target in (ALL, ANY)):
            return True
        text = message.target.decode(errors="replace")
        reason = f"worker {name} of service {service} is not what was asked for: service {message.service!r}, {text}"
        self._respond(identity, message, Status.BAD_REQUEST, self._bodies.failure_body(message.uuid, reason, text))
        return False

    def _dispatch(self, identity: bytes, client: str, message: ClientMessage, peer: str) -> None:
        request = JobRequest.parse(message.data) if message.command == Command.POST else None
        accepted = {
            "workers": [self._worker.name],
            "uuid": message.uuid,
            "target": message.target.decode(),
            "status": "DISPATCHED",
            "service": message.service,
        }
        self._respond(identity, message, Status.DISPATCHED, encode_data(accepted))
        reply = self._reply_to(identity, message.uuid)
        if request is None:
            self._requests.get(client, message.uuid, reply)
        else:
            waited = self._stalls.waited_seconds()
            self._requests.post(
                *(client, message.uuid, request, reply), size=len(message.data), peer=peer, waited_seconds=waited
            )

    def _reply_to(self, identity: bytes, uuid: str) -> SendReply:
        """Return what sends to a client; it must not refer to the whole message, which a waiting job would keep."""
        mailbox, service, owner = self._mailbox, self._worker.service, self._thread
        has_started = False

        def reply(command: bytes, status: Status, payload: bytes) -> None:
            nonlocal has_started
            # The event of a task's start doesn't wake the thread: it is sent with the next reply, within a second.
            wake = (has_started or command == Command.RESPONSE) and threading.current_thread() is not owner
            has_started = True
            mailbox.put((identity, BrokerMessage(command, service, uuid, status, payload)), wake=wake)

        return reply

    def _manage(self, identity: bytes, client: str, message: ClientMessage) -> None:
        mailbox, service, uuid, owner = self._mailbox, message.service, message.uuid, self._thread

        def answer(value: Any) -> None:
            wake = threading.current_thread() is not owner
            mailbox.put(
                (identity, BrokerMessage(Command.MMI, service, uuid, Status.DONE, encode_data(value))), wake=wake
            )

        self._management.handle(service, client, decode_object(message.data), answer)

    def _refuse(self, frames: list[bytes], status: Status, reason: str) -> None:
        """Send the reason to the client if its message has the form of a request, and so names its job."""
        if len(frames) <= _UUID_FRAME or frames[2] != CLIENT_HEADER:
            return
        uuid = frames[_UUID_FRAME].decode(errors="replace")[:64]
        body = self._bodies.failure_body(uuid, reason)
        self._send(frames[_IDENTITY], BrokerMessage(Command.RESPONSE, self._worker.service, uuid, status, body))

    def _respond(self, identity: bytes, message: ClientMessage, status: Status, body: bytes) -> None:
        self._send(identity, BrokerMessage(Command.RESPONSE, self._worker.service, message.uuid, status, body))

    def _send_replies(self) -> None:
        for identity, message in self._mailbox.drain():
            self._send(identity, message)

    def _send(self, identity: bytes, message: BrokerMessage) -> None:
        try:
            for frame in (identity, *message.frames()[:-1]):
                self.router.send(frame, _NOT_LAST)
            self.router.send(message.data, _LAST)
        except zmq.ZMQError as error:
            self._counts["dropped"] += 1
            log.debug("reply dropped: %s", error.strerror)
        else:
            self._counts["sent"] += 1


def _metadata(frame: zmq.Frame, name: str) -> str:
    """Return what ZAP or libzmq has attached to a message under a name, empty if nothing."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError:
        return ""
