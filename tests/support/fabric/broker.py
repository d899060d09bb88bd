"""A NorFab broker for tests: a ROUTER with handover and CURVE, which can be frozen, restarted, made to forget."""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from nfcli.models.environment.curve_keys import KeyPair
from nfcli.models.protocol.broker_connection import BrokerAddress
from nfcli.models.protocol.broker_key import BrokerKey
from nfcli.models.protocol.frames import BrokerMessage, ClientMessage, Command, decode_target, encode_data

WAIT_SECONDS = 20.0
WAIT_MILLISECONDS = round(WAIT_SECONDS * 1_000)
RELAYED = {Command.RESPONSE, Command.EVENT, Command.STREAM}


@dataclass
class Entry:
    """What the broker knows of a registered worker; `sent` and `received` count keepalives."""

    service: str
    expires: float
    next_keepalive: float
    sent: int = 0
    received: int = 0


class FabricBroker:
    """A broker in a thread of its own; what a test asks of it is done there.

    `seen` has identity and command of each message of a worker's, in order. `inventories` are those it hands out.
    `is_mute`: it sends no keepalives. `is_dumb`: it answers no questions.
    """

    def __init__(self, keepalive_seconds: float, hold_seconds: float, keys: KeyPair | None = None) -> None:
        self.keys = keys or KeyPair(*zmq.curve_keypair())
        self._folder = tempfile.mkdtemp(prefix="nf-")
        self.endpoint = f"ipc://{self._folder}/broker"
        self.keepalive_seconds, self.hold_seconds = keepalive_seconds, hold_seconds
        self.entries: dict[bytes, Entry] = {}
        self.inventories: dict[str, Any] = {}
        self.seen: list[tuple[bytes, bytes]] = []
        self.questions: list[str] = []
        self.is_mute = self.is_dumb = False
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._router: zmq.Socket[bytes] | None = None
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._changed = threading.Condition()
        self._ending = False
        self._is_frozen = False
        self._thread = threading.Thread(target=self._serve, name="broker", daemon=True)
        self._thread.start()

    @property
    def address(self) -> BrokerAddress:
        """Where it is and what it is known by."""
        return BrokerAddress(self.endpoint, BrokerKey(self.keys.public, "broker.shared_key"))

    def start(self) -> None:
        """Bind, with no worker registered."""
        self.do(self._bind)

    def stop(self) -> None:
        """Close the socket and forget everybody; what was asked for is lost."""
        self.do(self._unbind)

    def freeze(self) -> None:
        """Neither read nor write any more, as a process that was stopped by a signal."""
        self.do(lambda: setattr(self, "_is_frozen", True))

    def thaw(self) -> None:
        """Go on."""
        self.do(lambda: setattr(self, "_is_frozen", False))

    def forget(self, name: str) -> None:
        """Drop a worker without a word, as when its keepalives were late."""
        self.do(lambda: self.entries.pop(name.encode(), None))

    def add_entry(self, name: str, service: str) -> None:
        """Have an entry that a killed worker left."""
        now = time.monotonic()
        self.do(lambda: self.entries.update({name.encode(): Entry(service, now + self.hold_seconds, now)}))

    def send(self, *frames: bytes) -> None:
        """Send a message as it is; the first frame names the receiver."""
        self.do(lambda: self._send(frames))

    def do(self, order: Callable[[], object]) -> None:
        """Run something in the broker's thread and wait for its end."""
        done = threading.Event()

        def run() -> None:
            order()
            done.set()

        self._orders.put(run)
        self._wake_writer.send(b"\0")
        assert done.wait(WAIT_SECONDS)

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """Wait until something holds that the broker's thread makes true; return what it is."""
        with self._changed:
            assert self._changed.wait_for(condition, WAIT_SECONDS), (self.seen[-20:], self.entries)
            return condition()

    def wait_until_registered(self, name: str = "w1") -> None:
        """Wait until a worker is registered."""
        self.wait_for(lambda: name.encode() in self.entries)

    def count(self, command: bytes, name: str = "w1") -> int:
        """Return how many messages of a worker with this command there were."""
        return self.seen.count((name.encode(), command))

    def close(self) -> None:
        """End the thread."""
        self.do(lambda: setattr(self, "_ending", True))
        self._thread.join(WAIT_SECONDS)
        self._wake_reader.close()
        self._wake_writer.close()
        shutil.rmtree(self._folder)

    # -- the broker's thread ---------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._ending:
            poller = zmq.Poller()
            poller.register(self._wake_reader, zmq.POLLIN)
            is_open = self._router is not None and not self._is_frozen
            if is_open:
                poller.register(self._router, zmq.POLLIN)
            poller.poll(int(self.keepalive_seconds * 200))
            with self._changed:
                with contextlib.suppress(queue.Empty):
                    while True:
                        self._orders.get_nowait()()
                        self._wake_reader.recv(1)
                if self._router is not None and not self._is_frozen:
                    self._turn()
                self._changed.notify_all()
        self._unbind()

    def _turn(self) -> None:
        now = time.monotonic()
        for name, entry in list(self.entries.items()):
            if now >= entry.next_keepalive and not self.is_mute:
                entry.next_keepalive, entry.sent = now + self.keepalive_seconds, entry.sent + 1
                self._send([name, b"", b"NFPB01", Command.KEEPALIVE, entry.service.encode()])
        with contextlib.suppress(zmq.Again):
            while self._router is not None:
                sender, _, header, *frames = self._router.recv_multipart(zmq.NOBLOCK)
                if header == b"NFPW01":
                    self._handle_worker(sender, frames)
                else:
                    with contextlib.suppress(UnicodeDecodeError):  # a name made up: norfab 0.25.0 is dumb, too
                        self._handle_client(sender, ClientMessage.parse([b"", header, *frames]))
        for name, entry in list(self.entries.items()):
            if now >= entry.expires:
                del self.entries[name]

    def _handle_worker(self, sender: bytes, frames: list[bytes]) -> None:
        now, command = time.monotonic(), frames[0]
        self.seen.append((sender, command))
        entry = self.entries.get(sender)
        if entry is None:
            if command == Command.READY:
                expires, first = now + self.hold_seconds, now + self.keepalive_seconds
                self.entries[sender] = Entry(frames[1].decode(), expires, first)
        elif command == Command.KEEPALIVE:
            entry.expires, entry.received = now + self.hold_seconds, entry.received + 1
        elif command == Command.DISCONNECT:
            del self.entries[sender]
        elif command in RELAYED:
            _, client, _, *rest = frames
            self._send([client, b"", b"NFPB01", command, entry.service.encode(), *rest])

    def _handle_client(self, sender: bytes, message: ClientMessage) -> None:
        if message.command == Command.MMI:
            request = json.loads(message.data)
            self.questions.append(request["task"])
            answer = self._answer(request)
            if not self.is_dumb:
                for command in (Command.RESPONSE, Command.MMI):
                    reply = BrokerMessage(command, message.service, message.uuid, "200", encode_data(answer))
                    self._send([sender, *reply.frames()])
            return
        target = decode_target(message.target)
        names = [name for name, entry in self.entries.items() if entry.service == message.service]
        if target != "all":
            wanted = [target] if isinstance(target, str) else target
            names = [name for name in names if name.decode(errors="replace") in wanted]
        told = {
            "workers": [name.decode(errors="replace") for name in names],
            "uuid": message.uuid,
            "service": message.service,
        }
        if message.command != Command.PUT:
            reply = BrokerMessage(Command.RESPONSE, message.service, message.uuid, "202", encode_data(told))
            self._send([sender, *reply.frames()])
        for name in names:
            self._send([name, b"", b"NFPB01", message.command, sender, b"", message.uuid.encode(), message.data])

    def _answer(self, request: dict[str, Any]) -> Any:
        if request["task"] == "get_inventory":
            return self.inventories.get(request["kwargs"]["name"])
        rows = [
            {
                # What was under way on a connection whose name was handed over comes under a name that ZeroMQ made.
                "name": name.decode(errors="replace"),
                "service": entry.service,
                "status": "alive",
                "keepalives tx/rx": f"{entry.sent} / {entry.received}",
            }
            for name, entry in self.entries.items()
        ]
        return rows or [{"name": "", "service": "", "status": ""}]

    def _bind(self) -> None:
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._router.curve_server = True
        self._router.curve_publickey, self._router.curve_secretkey = self.keys.public, self.keys.secret
        self._router.bind(self.endpoint)

    def _unbind(self) -> None:
        if self._context is not None:
            self._context.destroy(linger=0)  # returns when the socket's file has gone
        self._context = self._router = None
        self.entries.clear()

    def _send(self, frames: Any) -> None:
        assert self._router is not None
        self._router.send_multipart(frames)


class FabricPeer:
    """A raw DEALER at the broker, as a client or as a foreign worker."""

    def __init__(self, broker: FabricBroker, name: bytes) -> None:
        self.name = name
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.dealer = self._context.socket(zmq.DEALER)
        self.dealer.linger = 0
        self.dealer.setsockopt(zmq.ROUTING_ID, name)
        self.dealer.curve_publickey, self.dealer.curve_secretkey = zmq.curve_keypair()
        self.dealer.curve_serverkey = broker.keys.public
        self._monitor = self.dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.dealer.connect(broker.endpoint)
        assert self._monitor.poll(WAIT_MILLISECONDS)
        recv_monitor_message(self._monitor)

    def post(self, uuid: str, request: Any, *, command: bytes = Command.POST, service: str = "fastmcp") -> None:
        """Send a job; `request` is JSON or bytes as they are."""
        data = request if isinstance(request, bytes) else encode_data(request)
        self.dealer.send_multipart(ClientMessage(command, service, b"all", uuid, data).frames())

    def read(self) -> tuple[bytes, str, Any]:
        """Return command, status and data of the next message."""
        assert self.dealer.poll(WAIT_MILLISECONDS), "no answer"
        message = BrokerMessage.parse(self.dealer.recv_multipart())
        return message.command, message.status, json.loads(message.data)

    def statuses(self, count: int) -> list[str]:
        """Return the statuses of the next answers, `event` for events."""
        read = [self.read() for _ in range(count)]
        return ["event" if command == Command.EVENT else status for command, status, _ in read]

    def signal(self, command: bytes, service: str = "fastmcp") -> None:
        """Send a worker's signal."""
        self.dealer.send_multipart([b"", b"NFPW01", command, service.encode()])

    def close(self) -> None:
        """Disconnect; safe to call twice."""
        if not self.dealer.closed:
            self.dealer.disable_monitor()
            self._monitor.close(linger=0)
            self._context.destroy(linger=0)
