"""A worker in a fabric, from a client's seat, from a hostile peer's, and on the broker's bad days."""

from __future__ import annotations

import json
import logging
import runpy
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nfcli.models.environment import Environment
from nfcli.models.errors import WorkerStartError
from nfcli.models.inventory import WorkerInventory
from nfcli.models.keys import ensure_key_pair
from nfcli.models.nfp import BROKER_HEADER, WORKER_HEADER, Command
from nfcli.models.tokens import TaskInput
from nfcli.worker.audit import AuditTrail
from nfcli.worker.context import WorkerContext
from nfcli.worker.fabric import FabricServer
from nfcli.worker.fabric_jobs import MAX_JOB_BYTES, client_name
from nfcli.worker.jobs import JobExecutor
from nfcli.worker.tasks import TaskRegistry, task
from nfcli.worker.token_store import TokenStore

_fabric = runpy.run_path(str(Path(__file__).with_name("fabric_broker.py")))
FabricBroker, FabricPeer = _fabric["FabricBroker"], _fabric["FabricPeer"]
WAIT_SECONDS: float = _fabric["WAIT_SECONDS"]
KEEPALIVE_SECONDS, HOLD_SECONDS = 0.1, 0.6
HEADERS = {"broker": BROKER_HEADER, "worker": WORKER_HEADER}


class Joined:
    """A worker with three tasks: `add` counts its runs, `quick` is run at once, `hold` waits for the gate."""

    def __init__(self, environment: Environment, store: TokenStore, broker: Any) -> None:
        self.runs, self.gate = 0, threading.Event()

        def add(_worker: WorkerContext, _arguments: TaskInput) -> int:
            self.runs += 1
            return self.runs

        def quick(_worker: WorkerContext, _arguments: TaskInput) -> int:
            return 1

        def hold(_worker: WorkerContext, _arguments: TaskInput) -> bool:
            return self.gate.wait(WAIT_SECONDS)

        tasks = ModuleType("tasks")
        vars(tasks).update(
            add=task(result=int)(add), hold=task(result=bool)(hold), quick=task(result=int, is_quick=True)(quick)
        )
        self.worker = WorkerContext(
            name="w1",
            service="fastmcp",
            environment=environment,
            inventory=WorkerInventory(service="fastmcp"),
            registry=TaskRegistry(tasks),
            store=store,
            audit=AuditTrail.open(environment.audit_file("w1"), bytes(32)),
        )
        self.executor = JobExecutor(self.worker, client_name)
        self.executor.start()
        self._broker = broker
        self._keys = ensure_key_pair(environment.keys_folder, "w1")
        self.server = self.make_server()

    def make_server(self) -> FabricServer:
        """Make another connection of this worker's."""
        return FabricServer(
            self.worker,
            self.executor,
            address=self._broker.address,
            keys=self._keys,
            keepalive_seconds=KEEPALIVE_SECONDS,
            hold_seconds=HOLD_SECONDS,
            connect_seconds=KEEPALIVE_SECONDS * 2,
        )

    def join(self) -> None:
        """Connect and serve."""
        self.server.connect()
        self.server.start()

    def stop(self) -> None:
        """End everything."""
        self.gate.set()
        self.executor.stop()
        self.server.stop()
        self.worker.audit.close()


@pytest.fixture
def broker() -> Iterator[Any]:
    """Return a broker that runs."""
    broker = FabricBroker(KEEPALIVE_SECONDS, HOLD_SECONDS)
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def idle(tmp_path: Path, broker: Any) -> Iterator[Joined]:
    """Return a worker that hasn't joined yet."""
    environment = Environment(tmp_path, None)
    environment.prepare()
    with TokenStore.open(environment.tokens_folder("w1")) as store:
        joined = Joined(environment, store, broker)
        yield joined
        joined.stop()


@pytest.fixture
def joined(idle: Joined) -> Joined:
    """Return a worker that is registered."""
    idle.join()
    return idle


@pytest.fixture
def connect(broker: Any) -> Iterator[Callable[..., Any]]:
    """Connect peers to the broker."""
    peers: list[Any] = []

    def make(name: bytes = b"client") -> Any:
        peers.append(FabricPeer(broker, name))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


Connect = Callable[..., Any]


def runs_a_job(connect: Connect, name: bytes = b"somebody") -> bool:
    """Whether a job that is sent now is answered."""
    peer = connect(name)
    peer.post("a-job", {"task": "quick"})
    return bool(peer.statuses(3) == ["202", "event", "200"])


def failed_with(data: Any) -> str:
    """Return the one error of a failed result of w1."""
    assert data["w1"]["failed"] is True
    (error,) = data["w1"]["errors"]
    return str(error)


# -- jobs ----------------------------------------------------------------------------------------------------------


def test_a_worker_is_registered_when_its_start_returns(joined: Joined, broker: Any, connect: Connect) -> None:
    """Whoever is told that it is ready can send a job at once."""
    assert broker.entries[b"w1"].service == "fastmcp"
    assert joined.server.counters()["reconnects"] == 0
    assert runs_a_job(connect)


def test_a_post_is_accepted_tells_that_it_starts_and_is_answered_unasked(joined: Joined, connect: Connect) -> None:
    """201 and the event are for NorFab's clients; the result needs no GET."""
    peer = connect()
    peer.post("u1", {"task": "add"})
    assert peer.read()[1] == "202"
    about = {"worker": "w1", "uuid": "u1", "status": "ACCEPTED", "service": "fastmcp"}
    assert peer.read() == (Command.RESPONSE, "201", about)
    command, status, event = peer.read()
    assert (command, status, event["message"], event["worker"]) == (Command.EVENT, "200", "starting", "w1")
    command, status, data = peer.read()
    assert (command, status, data["w1"]["result"], data["w1"]["juuid"]) == (Command.RESPONSE, "200", 1, "u1")
    assert joined.runs == 1


def test_a_job_that_is_done_at_once_is_not_announced(joined: Joined, connect: Connect) -> None:
    """It would only double the messages."""
    assert joined.runs == 0
    peer = connect()
    peer.post("u1", {"task": "quick"})
    assert peer.statuses(3) == ["202", "event", "200"]


def test_get_answers_the_result_or_how_far_it_is(joined: Joined, connect: Connect) -> None:
    """A client that pulls is served too."""
    peer = connect()
    peer.post("u1", {"task": "hold"})
    assert peer.statuses(3) == ["202", "201", "event"]
    peer.post("u1", {"task": "hold"}, command=Command.GET)
    assert peer.read()[1] == "202"
    assert peer.read() == (
        Command.RESPONSE,
        "300",
        {"worker": "w1", "uuid": "u1", "status": "STARTED", "service": "fastmcp"},
    )
    joined.gate.set()
    pushed = peer.read()
    peer.post("u1", {}, command=Command.GET)
    assert [peer.read()[1], peer.read()] == ["202", pushed]


def test_get_for_an_unknown_job_is_a_failed_result(joined: Joined, connect: Connect) -> None:
    """A 404 would end the job at every worker it was for; and jobs of others are unknown, too."""
    other = connect(b"other")
    other.post("u1", {"task": "add"})
    assert other.statuses(4) == ["202", "201", "event", "200"]
    peer = connect()
    peer.post("u1", {}, command=Command.GET)
    assert peer.read()[1] == "202"
    _, status, data = peer.read()
    assert (status, failed_with(data)) == (
        "200",
        "this worker knows no such job (it may have been restarted): look what was done before you repeat it",
    )
    assert joined.runs == 1


def test_a_uuid_that_comes_twice_is_run_once_and_answered_twice(joined: Joined, connect: Connect) -> None:
    """NorFab's clients send again what they sent before a restart."""
    peer = connect()
    for expected in (["202", "201", "event", "200"], ["202", "201", "200"]):
        peer.post("u1", {"task": "add"})
        assert peer.statuses(len(expected)) == expected
    assert joined.runs == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not JSON", "the data is not JSON"),
        (b"[]", "the data is not a JSON object"),
        (b"{}", "the data is not a job request: task: field required"),
        (b" " * (MAX_JOB_BYTES + 1), "the job has 1048577 bytes, more than 1048576, and was not run: split it"),
    ],
    ids=["not JSON", "no object", "no task", "too long"],
)
def test_a_post_that_is_no_job_is_a_failed_result(joined: Joined, connect: Connect, data: bytes, reason: str) -> None:
    """The sender learns why, other workers' results stay worth something, and the next job runs."""
    peer = connect()
    peer.post("u1", data)
    assert peer.read()[1] == "202"
    _, status, answer = peer.read()
    assert (status, failed_with(answer), answer["w1"]["juuid"]) == ("200", reason, "u1")
    assert joined.server.counters()["invalid"] == 1
    assert runs_a_job(connect)


def test_a_job_that_is_refused_is_a_failed_result(joined: Joined, connect: Connect) -> None:
    """As when the worker is about to end."""
    joined.worker.stopping.set()
    peer = connect()
    peer.post("u1", {"task": "add"})
    assert peer.statuses(2) == ["202", "201"]
    _, status, data = peer.read()
    assert (status, failed_with(data)) == (
        "200",
        "worker w1 is stopping, nothing was done: send the job again later",
    )


def test_put_is_passed_over(joined: Joined, connect: Connect, broker: Any) -> None:
    """No task of ours asks its client for anything."""
    assert joined.server.counters()["invalid"] == 0
    broker.send(b"w1", b"", b"NFPB01", Command.PUT, b"client", b"", b"u1", b"{}")
    assert runs_a_job(connect)
    assert joined.server.counters()["invalid"] == 0


HOSTILE = [
    (b"",),
    (b"", b"NFPB01"),
    (b"", b"NFPB01", Command.POST),
    (b"", b"NFPC01", Command.POST, b"client", b"", b"u1", b'{"task":"add"}'),
    (b"", b"NFPB01", Command.POST, b"client", b"", b"\xff", b'{"task":"add"}'),
    (b"", b"NFPB01", Command.POST, b"client", b"", b"", b'{"task":"add"}'),
    (b"", b"NFPB01", Command.POST, b"client", b"", b"u" * 10_000, b'{"task":"add"}'),
    (b"", b"NFPB01", Command.RESPONSE, b"client", b"", b"u1", b"{}"),
    (b"", b"NFPB01", b"\x04", b"client", b"", b"u1", b'{"task":"add"}'),
    (b"", b"NFPW01", Command.KEEPALIVE, b"fastmcp"),
    (b"", b"NFPB01", Command.READY, b"fastmcp"),
    (b"", b"NFPB01", Command.KEEPALIVE, b"\xff\xfe"),
    (b"x" * 100_000,) * 20,
]


def test_frames_of_a_hostile_peer_are_counted_and_dropped(joined: Joined, connect: Connect, broker: Any) -> None:
    """Nothing that arrives ends the thread, and nothing of it is run."""
    for frames in HOSTILE:
        broker.send(b"w1", *frames)
    assert runs_a_job(connect)
    assert joined.server.counters()["invalid"] == len(HOSTILE)
    assert joined.runs == 0


def test_a_fault_of_our_own_ends_no_thread(
    joined: Joined, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in a message's way nor in a turn's; the class of the error is logged, without values."""
    hearing, advancing = threading.Event(), threading.Event()
    advance = joined.server._advance

    def fail_once(now: float) -> None:
        if not advancing.is_set():
            advancing.set()
            raise ValueError("secret")
        advance(now)

    def fail(*_: object) -> None:
        hearing.set()
        raise ValueError("secret")

    monkeypatch.setattr(joined.server, "_hear", fail)
    assert hearing.wait(WAIT_SECONDS)
    monkeypatch.undo()
    monkeypatch.setattr(joined.server, "_advance", fail_once)
    assert advancing.wait(WAIT_SECONDS)
    assert runs_a_job(connect)
    assert {"message dropped: ValueError", "the connection to the broker failed: ValueError"} <= set(caplog.messages)
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (b"laptop_NFPClient", "fabric:laptop_NFPClient"),
        ("Jürgen".encode(), "fabric:Jürgen"),
        (b"a\nb\x1b[2J", "fabric:a?b?[2J"),
        (b"\xff" * 300, "fabric:" + "\N{REPLACEMENT CHARACTER}" * 64),
        (b"", "fabric:"),
    ],
)
def test_who_asks_is_named_in_print(identity: bytes, name: str) -> None:
    """Peers choose their names: what they put in must not move a terminal's cursor, or fill the trail."""
    assert client_name(identity.decode("latin-1")) == name


# -- registration --------------------------------------------------------------------------------------------------


def test_keepalives_go_out_while_jobs_run_and_are_counted(joined: Joined, broker: Any, connect: Connect) -> None:
    """In both directions; and no READY is repeated while the broker is heard."""
    connect().post("u1", {"task": "hold"})
    broker.wait_for(lambda: broker.entries[b"w1"].received > 5)
    counters = joined.server.counters()
    assert counters["keepalives_sent"] > 5
    assert counters["keepalives_received"] > 3
    assert broker.count(Command.READY) == 1


def test_a_broker_that_was_restarted_gets_the_worker_back(joined: Joined, broker: Any, connect: Connect) -> None:
    """It drops all else from workers it doesn't know, and says nothing."""
    broker.stop()
    broker.start()
    broker.wait_until_registered()
    assert runs_a_job(connect)
    assert joined.server.counters()["reconnects"] == 1


def test_a_broker_that_comes_back_after_long_gets_the_worker_back(
    joined: Joined, broker: Any, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Longer than the hold time; the log says once that it is gone and once that it is back."""
    caplog.set_level(logging.INFO)
    broker.stop()
    server = joined.server
    assert eventually(lambda: server._link is None)
    broker.start()
    broker.wait_until_registered()
    assert runs_a_job(connect)
    assert eventually(lambda: f"the broker at {broker.endpoint} is heard again" in caplog.messages)
    assert [text.partition(";")[0] for text in caplog.messages if "has gone away" in text] == [
        f"the broker at {broker.endpoint} has gone away"
    ]


def test_a_worker_that_was_taken_for_dead_registers_again(joined: Joined, broker: Any, connect: Connect) -> None:
    """The broker doesn't tell; its silence does."""
    broker.wait_for(lambda: broker.entries[b"w1"].received > 1)
    broker.forget("w1")
    broker.wait_until_registered()
    assert runs_a_job(connect)
    assert joined.server.counters()["reconnects"] == 0


@pytest.mark.parametrize("frames", [(Command.DISCONNECT, b"fastmcp"), (b"fastmcp", Command.DISCONNECT)])
def test_a_disconnect_is_answered_with_a_registration(joined: Joined, broker: Any, frames: tuple[bytes, ...]) -> None:
    """In the order of the protocol and in that of norfab 0.25.0."""
    broker.wait_for(lambda: broker.entries[b"w1"].received > 2)
    sent = broker.count(Command.READY)
    broker.forget("w1")
    broker.send(b"w1", b"", b"NFPB01", *frames)
    broker.wait_for(lambda: broker.count(Command.READY) > sent)
    broker.wait_until_registered()
    assert joined.server.counters()["invalid"] == 0


def test_a_broker_that_is_frozen_for_long_finds_the_worker_again(joined: Joined, broker: Any, connect: Connect) -> None:
    """Longer than the hold time: the worker has made a new connection meanwhile."""
    first = joined.server._link
    broker.freeze()
    assert eventually(lambda: joined.server._link is not first)
    broker.thaw()
    broker.wait_for(lambda: b"w1" in broker.entries and broker.entries[b"w1"].received > 1)
    assert runs_a_job(connect)


def test_a_job_that_ends_while_the_broker_is_away_can_be_asked_for_later(
    joined: Joined, broker: Any, connect: Connect
) -> None:
    """It is run once; the answer that got lost is given to a GET."""
    peer = connect()
    peer.post("u1", {"task": "hold"})
    assert peer.statuses(3) == ["202", "201", "event"]
    broker.stop()
    assert eventually(lambda: joined.server._link is None or not joined.server._link.is_up)
    joined.gate.set()
    assert eventually(lambda: joined.server.counters()["dropped"] > 0)
    broker.start()
    broker.wait_until_registered()
    again = connect()
    again.post("u1", {}, command=Command.GET)
    assert again.statuses(2) == ["202", "200"]


def test_a_worker_starts_without_a_broker_and_joins_when_it_comes(
    idle: Joined, broker: Any, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Its MCP clients are served meanwhile; one warning tells why no jobs come."""
    broker.stop()
    idle.join()
    assert any("the worker joins it when it can" in text for text in caplog.messages)
    broker.start()
    broker.wait_until_registered()
    assert runs_a_job(connect)


def test_the_wrong_key_is_told_in_the_log(idle: Joined, broker: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The worker can't know whether the broker or its own inventory is wrong."""
    wrong = FabricBroker(KEEPALIVE_SECONDS, HOLD_SECONDS)
    wrong.keys, wrong.endpoint = idle._keys, broker.endpoint
    idle.server.stop()
    idle._broker = wrong
    idle.server = idle.make_server()
    idle.join()
    wrong.close()
    assert any("fails: the key of broker.shared_key is not its key" in text for text in caplog.messages)


def test_a_stop_hands_the_answers_over_and_signs_off(joined: Joined, broker: Any, connect: Connect) -> None:
    """So that the broker sends nobody's job there any more."""
    peer = connect()
    peer.post("u1", {"task": "hold"})
    assert peer.statuses(3) == ["202", "201", "event"]
    joined.gate.set()
    joined.executor.stop()
    joined.server.stop()
    assert peer.statuses(1) == ["200"]
    broker.wait_for(lambda: b"w1" not in broker.entries)
    assert broker.seen[-1] == (b"w1", Command.DISCONNECT)


# -- names ---------------------------------------------------------------------------------------------------------


def keep_alive(peer: Any, stopping: threading.Event) -> None:
    """Serve as a worker of another make."""
    peer.signal(Command.READY)
    while not stopping.wait(KEEPALIVE_SECONDS / 2):
        peer.signal(Command.KEEPALIVE)


@pytest.fixture
def twin(connect: Connect) -> Iterator[Callable[[], Callable[[], None]]]:
    """Have another worker named w1; what is returned ends it without a word."""
    running: list[tuple[threading.Event, threading.Thread]] = []

    def start() -> Callable[[], None]:
        peer, stopping = connect(b"w1"), threading.Event()
        thread = threading.Thread(target=keep_alive, args=(peer, stopping))
        thread.start()
        running.append((stopping, thread))

        def end() -> None:
            stopping.set()
            thread.join(WAIT_SECONDS)
            peer.close()

        return end

    yield start
    for stopping, thread in running:
        stopping.set()
        thread.join(WAIT_SECONDS)


def test_a_name_that_somebody_serves_under_is_not_taken(idle: Joined, broker: Any, twin: Any) -> None:
    """Each would get some of the jobs, and neither know."""
    twin()
    broker.wait_until_registered()
    with pytest.raises(WorkerStartError) as caught:
        idle.server.connect()
    assert str(caught.value) == (
        f"worker w1 is already registered at the broker at {broker.endpoint}: stop that one or choose another name"
    )
    assert broker.count(Command.DISCONNECT) == 0


def test_what_a_killed_worker_left_at_the_broker_is_no_hindrance(idle: Joined, broker: Any, connect: Connect) -> None:
    """It stays listed until its hold time is over; the new one is registered for its own service."""
    broker.hold_seconds = 3_600
    broker.add_entry("w1", "other")
    idle.join()
    broker.wait_for(lambda: b"w1" in broker.entries and broker.entries[b"w1"].service == "fastmcp")
    assert runs_a_job(connect)


def test_a_worker_whose_name_is_taken_away_does_not_fight_for_it(
    joined: Joined, broker: Any, connect: Connect, twin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so once, stays away while the other one is there, and comes back when that has gone."""
    end = twin()
    assert eventually(lambda: joined.server._link is None)
    taken = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert [record.getMessage().partition(":")[0] for record in taken] == [
        "another worker has taken the name w1 at the broker at ipc"
    ]
    asked = len(broker.questions)
    broker.wait_for(lambda: len(broker.questions) > asked + 10)
    assert joined.server._link is None
    end()
    broker.wait_for(lambda: joined.server._link is not None and b"w1" in broker.entries)
    broker.wait_for(lambda: broker.entries[b"w1"].received > 1)
    assert runs_a_job(connect)
    assert len([record for record in caplog.records if record.levelno == logging.CRITICAL]) == 1


def test_a_name_that_is_taken_while_the_broker_was_away_is_left_alone(
    idle: Joined, broker: Any, twin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Started without a broker, the worker asks before it joins."""
    broker.stop()
    idle.join()
    broker.is_dumb = True
    broker.start()
    end = twin()
    broker.wait_until_registered()
    broker.is_dumb = False
    assert eventually(lambda: any(record.levelno == logging.CRITICAL for record in caplog.records))
    end()
    broker.wait_for(lambda: idle.server._link is not None and b"w1" in broker.entries)


def eventually(condition: Callable[[], Any]) -> bool:
    """Wait until something holds that nobody tells of."""
    pause, deadline = threading.Event(), time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(KEEPALIVE_SECONDS / 10)
    return True


def test_results_are_json(joined: Joined, connect: Connect) -> None:
    """What a client prints is what `Result` has."""
    assert joined.runs == 0
    peer = connect()
    peer.post("u1", {"task": "nothing-like-it"})
    assert peer.statuses(3) == ["202", "201", "event"]
    _, status, data = peer.read()
    assert (status, json.loads(json.dumps(data)), failed_with(data)) == (
        "200",
        data,
        "unknown task 'nothing-like-it': list_tasks names those there are",
    )
