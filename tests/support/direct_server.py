"""The worker's ROUTER with a few tasks, and raw clients of it."""

from __future__ import annotations

import json
import threading
from types import ModuleType
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from nfcli.models.environment.curve_keys import KeyPair, ensure_key_pair
from nfcli.models.environment.paths import Environment
from nfcli.models.protocol.frames import BrokerMessage, ClientMessage, Command, encode_data
from nfcli.models.tasks.base import TaskInput
from nfcli.worker.audit.trail import AuditTrail
from nfcli.worker.jobs.context import WorkerContext
from nfcli.worker.jobs.executor import JobExecutor
from nfcli.worker.jobs.task import TaskRegistry, task
from nfcli.worker.tokens.store import TokenStore
from nfcli.worker.transport.curve_auth import AuthorizedKeys
from nfcli.worker.transport.direct import DirectServer
from support.task_context import task_context

WAIT_MILLISECONDS = 10_000
ANY_PORT = "tcp://127.0.0.1:*"


def ask(worker: WorkerContext, _arguments: TaskInput) -> object:
    """Ask the client whether to commit."""
    return worker.request_input("Commit?", timeout=WAIT_MILLISECONDS // 1_000, metadata={"preview": "+vlan 5"})


class Server:
    """A ROUTER with tasks: `add` counts its runs, `hold` waits for the gate, `report` sends progress first; `ask`."""

    def __init__(self, environment: Environment, store: TokenStore) -> None:
        self.environment = environment
        self.runs, self.gate = 0, threading.Event()

        def add(_worker: WorkerContext, _arguments: TaskInput) -> int:
            self.runs += 1
            return self.runs

        def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
            return self.gate.wait(WAIT_MILLISECONDS / 1_000)

        def report(worker: WorkerContext, arguments: TaskInput) -> bool:
            worker.progress("one")
            worker.progress("two")
            return hold(worker, arguments)

        tasks = ModuleType("tasks")
        vars(tasks).update(add=task(result=int)(add), hold=task(result=bool)(hold), report=task(result=bool)(report))
        vars(tasks)["ask"] = task(result=bool)(ask)
        self.worker = task_context(
            environment=environment,
            registry=TaskRegistry(tasks),
            store=store,
            audit=AuditTrail(environment.audit_file("w1"), bytes(32)),
        )
        self.keys = ensure_key_pair(environment.keys_folder, "w1")
        clients = AuthorizedKeys(environment.clients_folder)
        self.executor = JobExecutor(self.worker, clients.name)
        self.direct = DirectServer(self.worker, self.executor, keys=self.keys, clients=clients)
        self.endpoint = self.direct.bind(ANY_PORT)
        self.executor.start()
        self.direct.start()

    def stop(self) -> None:
        """End everything."""
        self.gate.set()
        self.executor.stop()
        self.direct.stop()
        self.worker.audit.close()


class Peer:
    """A raw DEALER, so that tests say exactly what goes over the wire."""

    def __init__(self, server: Server, keys: KeyPair | None, identity: bytes | None = None) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.dealer = self.context.socket(zmq.DEALER)
        self.dealer.linger = 0
        if identity is not None:
            self.dealer.setsockopt(zmq.ROUTING_ID, identity)
        if keys is not None:
            self.dealer.curve_publickey, self.dealer.curve_secretkey = keys.public, keys.secret
            self.dealer.curve_serverkey = server.keys.public
        self.events: list[dict[str, Any]] = []
        self.monitor = self.dealer.get_monitor_socket(zmq.EVENT_ALL)
        self.dealer.connect(server.endpoint)

    def send(
        self, command: bytes, uuid: str, request: Any = None, *, service: str = "fastmcp", to: bytes = b"all"
    ) -> None:
        """Send a client message; `request` is JSON or bytes as they are."""
        data = request if isinstance(request, bytes) else encode_data(request or {})
        self.dealer.send_multipart(ClientMessage(command, service, to, uuid, data).frames())

    def read(self) -> tuple[str, Any]:
        """Return the next answer's status and data; keep the events that come before it."""
        while True:
            message = self._receive()
            data = json.loads(message.data)
            if message.command != Command.EVENT:
                return message.status, data
            self.events.append(data)

    def read_event(self) -> str:
        """Return the message of an event, which must be what comes next."""
        message = self._receive()
        assert message.command == Command.EVENT
        return str(json.loads(message.data)["message"])

    def _receive(self) -> BrokerMessage:
        assert self.dealer.poll(WAIT_MILLISECONDS), "nothing comes"
        return BrokerMessage.parse(self.dealer.recv_multipart())

    def wait_for(self, *events: int) -> int:
        """Wait until the monitor tells one of these events."""
        while self.monitor.poll(WAIT_MILLISECONDS):
            event = recv_monitor_message(self.monitor)["event"]
            if event in events:
                return int(event)
        raise AssertionError("the monitor is silent")

    def close(self) -> None:
        """Close at once; safe to call twice."""
        if self.dealer.closed:
            return
        self.dealer.disable_monitor()
        self.monitor.close(linger=0)
        self.context.destroy(linger=0)


def unlisted_keys() -> KeyPair:
    """Return a key pair whose public key is in no list of clients."""
    return KeyPair(*zmq.curve_keypair())
