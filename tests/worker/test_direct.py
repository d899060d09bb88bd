"""The worker's ROUTER from the attacker's seat and from a client's."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zmq.utils.monitor import recv_monitor_message

from nfcli.models.environment import Environment
from nfcli.models.errors import WorkerStartError
from nfcli.models.inventory import WorkerInventory
from nfcli.models.keys import KeyPair, ensure_client_key, ensure_key_pair
from nfcli.models.nfp import BrokerMessage, ClientMessage, Command, encode_data
from nfcli.models.tokens import TaskInput
from nfcli.worker.access import AllowedClients
from nfcli.worker.audit import AuditTrail
from nfcli.worker.context import WorkerContext
from nfcli.worker.direct import MAX_MESSAGE_BYTES, DirectServer
from nfcli.worker.jobs import JobExecutor
from nfcli.worker.tasks import TaskRegistry, task
from nfcli.worker.token_store import TokenStore

WAIT_MILLISECONDS = 10_000
ANY_PORT = "tcp://127.0.0.1:*"


class Server:
    """A ROUTER with two tasks: `add` counts its runs, `hold` waits for the gate."""

    def __init__(self, environment: Environment, store: TokenStore) -> None:
        self.environment = environment
        self.runs, self.gate = 0, threading.Event()

        def add(_worker: WorkerContext, _arguments: TaskInput) -> int:
            self.runs += 1
            return self.runs

        def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
            return self.gate.wait(WAIT_MILLISECONDS / 1_000)

        tasks = ModuleType("tasks")
        vars(tasks).update(add=task(result=int)(add), hold=task(result=bool)(hold))
        self.worker = WorkerContext(
            name="w1",
            service="fastmcp",
            environment=environment,
            inventory=WorkerInventory(service="fastmcp"),
            registry=TaskRegistry(tasks),
            store=store,
            audit=AuditTrail.open(environment.audit_file("w1"), bytes(32)),
        )
        self.keys = ensure_key_pair(environment.keys_folder, "w1")
        clients = AllowedClients(environment.clients_folder)
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
        while self.dealer.poll(WAIT_MILLISECONDS):
            message = BrokerMessage.parse(self.dealer.recv_multipart())
            data = json.loads(message.data)
            if message.command != Command.EVENT:
                return message.status, data
            self.events.append(data)
        raise AssertionError("no answer")

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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A serving ROUTER in an environment of its own."""
    environment = Environment(tmp_path, None)
    environment.prepare()
    with TokenStore.open(environment.tokens_folder("w1")) as store:
        server = Server(environment, store)
        yield server
        server.stop()


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[..., Peer]]:
    """Connect peers, by default with the local client's key."""
    peers: list[Peer] = []

    def make(keys: KeyPair | str | None = "allowed", identity: bytes | None = None) -> Peer:
        pair = ensure_client_key(server.environment) if isinstance(keys, str) else keys
        peers.append(Peer(server, pair, identity))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


def stranger() -> KeyPair:
    """Return a key pair that nobody listed."""
    return KeyPair(*zmq.curve_keypair())


def test_a_post_is_answered_dispatched_and_then_with_the_result(connect: Callable[..., Peer]) -> None:
    """One round trip: 202 names the worker, an event says that the task starts, 200 carries its result."""
    peer = connect()
    peer.send(Command.POST, "u1", {"task": "add"})
    assert peer.read() == (
        "202",
        {"workers": ["w1"], "uuid": "u1", "target": "all", "status": "DISPATCHED", "service": "fastmcp"},
    )
    status, data = peer.read()
    assert (status, data["w1"]["result"], data["w1"]["juuid"]) == ("200", 1, "u1")
    (event,) = peer.events
    assert re.fullmatch(r"\d\d-[A-Z][a-z][a-z]-\d{4} \d\d:\d\d:\d\d\.\d{3}", event.pop("timestamp"))
    assert event == {
        "worker": "w1",
        "service": "fastmcp",
        "uuid": "u1",
        "event_type": "progress",
        "message": "starting",
        "task": "add",
        "status": "running",
        "resource": [],
        "severity": "INFO",
    }


@pytest.mark.parametrize(
    ("service", "to", "runs"),
    [
        ("fastmcp", b"any", 1),
        ("all", b"all", 1),
        ("fastmcp", b"w1", 1),
        ("fastmcp", b'["w2","w1"]', 1),
        ("fastmcp", b"w2", 0),
        ("fastmcp", b'["all"]', 0),
        ("other", b"all", 0),
        ("fastmcp", b"[1]", 0),
    ],
)
def test_targets_are_matched_as_a_broker_would(
    server: Server, connect: Callable[..., Peer], service: str, to: bytes, runs: int
) -> None:
    """What isn't for this worker is a 400 with one reason, and isn't run."""
    peer = connect()
    peer.send(Command.POST, "u1", {"task": "add"}, service=service, to=to)
    status, data = peer.read()
    if runs:
        assert (status, peer.read()[0]) == ("202", "200")
    else:
        assert (status, data["status"], len(data["errors"])) == ("400", "FAILED", 1)
    assert server.runs == runs


def test_get_answers_the_result_the_state_or_not_found(server: Server, connect: Callable[..., Peer]) -> None:
    """A client that polls is served too: 200 when done, 300 while running, 404 for an unknown uuid."""
    peer = connect()
    peer.send(Command.GET, "u1")
    assert (peer.read()[0], peer.read()) == (
        "202",
        ("404", {"worker": "w1", "uuid": "u1", "service": "fastmcp", "status": "JOB NOT FOUND"}),
    )
    peer.send(Command.POST, "u1", {"task": "hold"})
    assert peer.read()[0] == "202"
    peer.send(Command.GET, "u1")
    assert [peer.read()[0], peer.read()[0]] == ["202", "300"]
    server.gate.set()
    pushed = peer.read()
    peer.send(Command.GET, "u1", to=b'["w1"]')
    assert [peer.read()[0], peer.read()] == ["202", pushed]


def test_show_workers_answers_with_this_worker(connect: Callable[..., Peer]) -> None:
    """The management call of a broker works on a lone worker."""
    peer = connect()
    peer.send(Command.MMI, "u1", {"task": "show_workers"}, service="mmi.service.broker")
    status, rows = peer.read()
    assert (status, [(row["name"], row["service"], row["status"]) for row in rows]) == (
        "200",
        [("w1", "fastmcp", "alive")],
    )
    peer.send(Command.MMI, "u2", {"task": "drop"}, service="mmi.service.broker")
    assert peer.read() == ("200", "Unsupported task 'drop'")


def test_a_strangers_key_is_refused_and_told_so(server: Server, connect: Callable[..., Peer]) -> None:
    """The handshake fails with an authentication error, and nothing reaches the worker."""
    peer = connect(stranger())
    peer.send(Command.POST, "u1", {"task": "add"})
    peer.wait_for(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    assert server.direct.counters()["received"] == 0


def test_a_client_without_curve_gets_nothing(server: Server, connect: Callable[..., Peer]) -> None:
    """There is no way in without a key."""
    peer = connect(None)
    peer.send(Command.POST, "u1", {"task": "add"})
    peer.wait_for(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_DISCONNECTED)
    assert server.direct.counters()["received"] == 0


def test_a_key_taken_away_is_out_at_the_next_message(server: Server, connect: Callable[..., Peer]) -> None:
    """A connection that was let in is no longer worth anything once its key file is gone."""
    peer = connect()
    peer.send(Command.POST, "u1", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    (server.environment.clients_folder / "client.key").unlink()
    peer.send(Command.POST, "u2", {"task": "add"})
    status, data = peer.read()
    assert (status, data["error"]) == ("403", "this client's key is not allowed")
    peer.send(Command.GET, "u1")
    assert peer.read()[0] == "403"
    assert (server.runs, server.direct.counters()["denied"]) == (1, 2)


def test_a_key_replaced_in_its_file_is_out_and_the_new_one_in(server: Server, connect: Callable[..., Peer]) -> None:
    """The list is what the files say now, not what they said at the connection."""
    peer, new = connect(), ensure_key_pair(server.environment.keys_folder, "new")
    peer.send(Command.POST, "u1", {"task": "add"})
    assert peer.read()[0] == "202"
    public = server.environment.keys_folder / "new.key"
    public.replace(server.environment.clients_folder / "client.key")
    other = connect(new)
    other.send(Command.POST, "u2", {"task": "add"})
    assert other.read()[0] == "202"
    assert peer.read()[0] == "200"
    peer.send(Command.POST, "u3", {"task": "add"})
    assert peer.read()[0] == "403"


def test_without_its_authenticator_the_worker_lets_nobody_new_in_and_recovers(
    server: Server, connect: Callable[..., Peer]
) -> None:
    """A dead ZAP handler means no to strangers, never yes; it is started again."""
    access = server.direct._access
    authenticator = access._authenticator
    assert authenticator is not None
    authenticator.pipe.send(b"TERMINATE")
    authenticator.thread.join(WAIT_MILLISECONDS / 1_000)
    unknown = connect(stranger())
    unknown.send(Command.POST, "u1", {"task": "add"})
    known = connect()
    known.send(Command.POST, "u2", {"task": "add"})
    assert [known.read()[0], known.read()[0]] == ["202", "200"]
    assert access._authenticator is not authenticator
    unknown.wait_for(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    assert server.runs == 1


def test_a_dead_authenticator_is_started_again_while_messages_keep_coming(
    server: Server, connect: Callable[..., Peer]
) -> None:
    """A client that never pauses doesn't keep new ones out."""
    access, peer = server.direct._access, connect()
    peer.send(Command.POST, "u0", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    dead = access._authenticator
    assert dead is not None
    dead.pipe.send(b"TERMINATE")
    deadline = time.monotonic() + WAIT_MILLISECONDS / 1_000
    while access._authenticator is dead:
        assert time.monotonic() < deadline
        peer.send(Command.GET, "u0")
        assert [peer.read()[0], peer.read()[0]] == ["202", "200"]


def test_no_heartbeat_can_end_the_process(server: Server) -> None:
    """One that is due for a peer that left while its messages waited would (libzmq 4.3.5, `!_io_error`)."""
    assert server.direct._router.getsockopt(zmq.HEARTBEAT_IVL) == 0


def test_a_stolen_identity_gets_none_of_the_owners_answers(server: Server, connect: Callable[..., Peer]) -> None:
    """A second connection under the same identity doesn't take over the first one's replies."""
    owner = connect(identity=b"me")
    owner.send(Command.POST, "u1", {"task": "hold"})
    assert owner.read()[0] == "202"
    thief = connect(identity=b"me")
    thief.wait_for(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    server.gate.set()
    assert owner.read()[0] == "200"
    assert thief.dealer.poll(0) == 0


@pytest.mark.parametrize("data", [b"", b"[]", b"not json", b'{"task":1}', b'{"kwargs":{}}', b'{"task":"add","args":1}'])
def test_a_post_that_is_no_request_is_a_400_for_its_uuid(
    server: Server, connect: Callable[..., Peer], data: bytes
) -> None:
    """The sender learns why; the next job runs as if nothing had been."""
    peer = connect()
    peer.send(Command.POST, "u1", data)
    status, answer = peer.read()
    assert (status, answer["uuid"], answer["status"]) == ("400", "u1", "FAILED")
    peer.send(Command.POST, "u2", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    assert server.direct.counters()["invalid"] == 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(messages=st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=9), max_size=20))
def test_garbage_ends_nothing(connect: Callable[..., Peer], messages: list[list[bytes]]) -> None:
    """Whatever frames an allowed client sends, the next proper job is served."""
    peer = connect()
    for frames in messages:
        peer.dealer.send_multipart(frames)
    peer.send(Command.POST, "after", {"task": "add"})
    while peer.read()[0] != "200":
        pass
    peer.close()


def test_a_message_over_the_limit_is_not_taken_and_ends_nothing(connect: Callable[..., Peer]) -> None:
    """The connection is cut; the worker serves on."""
    peer = connect()
    peer.send(Command.POST, "u1", b"x" * (MAX_MESSAGE_BYTES + 1))
    peer.wait_for(zmq.EVENT_DISCONNECTED)
    other = connect()
    other.send(Command.POST, "u2", {"task": "add"})
    assert other.read()[0] == "202"


def test_an_answer_for_nobody_is_dropped_and_counted(server: Server, connect: Callable[..., Peer]) -> None:
    """The worker neither waits for a client that has gone nor stumbles."""
    server.direct._outbox.put((b"gone", BrokerMessage(Command.RESPONSE, "fastmcp", "u1", "200", b"{}")))
    peer = connect()
    peer.send(Command.POST, "u2", {"task": "add"})
    assert [peer.read()[0], peer.read()[0]] == ["202", "200"]
    assert server.direct.counters()["dropped"] == 1


def test_an_endpoint_that_is_taken_is_one_clear_error(server: Server) -> None:
    """The message names the endpoint and the inventory key."""
    second = DirectServer(
        server.worker, server.executor, keys=server.keys, clients=AllowedClients(server.environment.clients_folder)
    )
    with pytest.raises(WorkerStartError, match=f"endpoint {server.endpoint} can't be bound: Address already in use: "):
        second.bind(server.endpoint)
    second.stop()
