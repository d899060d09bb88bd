"""A connection to a broker: questions are answered, and where they can't be, one line says why, in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from nfcli.models.environment.curve_keys import KeyPair
from nfcli.models.errors import NoWorkersError
from nfcli.models.protocol import broker_connection as broker_link
from nfcli.models.protocol import connection as link
from nfcli.models.protocol.broker_connection import BrokerAddress, BrokerConnection, random_routing_id
from nfcli.models.protocol.broker_key import BrokerKey
from nfcli.models.protocol.frames import BrokerMessage, ClientMessage, Command, encode_data

WAIT_SECONDS = 10.0
ROWS = [{"name": "w1", "service": "fastmcp", "status": "alive"}]


class FakeBroker:
    """A ROUTER that hands each message of a client's to `answer`, whose messages go back."""

    def __init__(self, *, curve: bool = True, endpoint: str = "tcp://127.0.0.1:*", keys: KeyPair | None = None) -> None:
        self.keys = keys or KeyPair(*zmq.curve_keypair())
        self.answer: Callable[[ClientMessage], list[BrokerMessage]] = lambda _: []
        self.names: list[bytes] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        if curve:
            self._router.curve_server = True
            self._router.curve_publickey, self._router.curve_secretkey = self.keys.public, self.keys.secret
        self._router.bind(endpoint)
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._is_over.is_set():
            if self._router.poll(20):
                name, *frames = self._router.recv_multipart()
                self.names.append(name)
                for message in self.answer(ClientMessage.parse(frames)):
                    self._router.send_multipart([name, *message.frames()])
        self._router.close()

    def stop(self) -> None:
        """End it as a process that dies would: connections break."""
        self._is_over.set()
        self._thread.join(WAIT_SECONDS)
        self._context.destroy(linger=0)


def rows(message: ClientMessage) -> list[BrokerMessage]:
    """Answer twice, as norfab 0.25.0 does."""
    data = encode_data(ROWS)
    kinds = (Command.RESPONSE, Command.MMI)
    return [BrokerMessage(kind, message.service, message.uuid, "200", data) for kind in kinds]


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    """Run a broker that shows its workers."""
    made = FakeBroker()
    made.answer = rows
    yield made
    made.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., BrokerConnection]]:
    """Connect to brokers, with any key of ours."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    links: list[BrokerConnection] = []

    def make(endpoint: str, key: bytes | None, name: bytes = b"") -> BrokerConnection:
        address = BrokerAddress(endpoint, None if key is None else BrokerKey(key, "broker.shared_key"))
        keys = KeyPair(*zmq.curve_keypair())
        links.append(BrokerConnection(context, address, name=name or random_routing_id("x"), keys=keys))
        return links[-1]

    yield make
    for each in links:
        each.close()
    context.destroy(linger=0)


def problem_of(call: Callable[[], Any]) -> str:
    """Return the line that a call fails with."""
    with pytest.raises(NoWorkersError) as caught:
        call()
    return str(caught.value)


def test_a_broker_tells_its_workers(broker: FakeBroker, connect: Callable[..., BrokerConnection]) -> None:
    """Over one connection, as often as asked; the copy of each answer is left alone."""
    made = connect(broker.endpoint, broker.keys.public, b"a name")
    assert [made.workers(), made.workers(), made.workers()] == [ROWS] * 3
    assert set(broker.names) == {b"a name"}
    assert (made.handshakes, made.disconnects, made.is_up) == (1, 0, True)


def test_names_of_connections_differ() -> None:
    """A broker hands a name over to whoever comes last with it."""
    names = {random_routing_id("client") for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(b"client-nfcli-") for name in names)


def test_messages_of_jobs_that_come_meanwhile_are_not_lost(
    broker: FakeBroker, connect: Callable[..., BrokerConnection]
) -> None:
    """They go to whoever asked for them; what isn't NFP goes nowhere."""
    others: list[BrokerMessage] = []
    progress = BrokerMessage(Command.EVENT, "s", "job", "200", b"{}")
    stale = BrokerMessage(Command.MMI, "s", "another question", "200", b"[]")
    broker.answer = lambda message: [progress, stale, BrokerMessage(b"0x77", "", "", "", b""), *rows(message)]
    made = connect(broker.endpoint, broker.keys.public)
    assert made.ask("show_workers", others=others.append) == ROWS
    assert others[:2] == [progress, stale]


@pytest.mark.parametrize(
    ("curve", "key", "reason"),
    [
        (True, "wrong", "the key of broker.shared_key is not its key"),
        (True, None, "it speaks CURVE, while zmq_auth is false here"),
        (False, "its", "the key of broker.shared_key is not its key"),
    ],
)
def test_a_handshake_that_fails_is_told(
    curve: bool, key: str | None, reason: str, connect: Callable[..., BrokerConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a monitor it would look as if the broker were dead."""
    monkeypatch.setattr(link, "CONNECT_SECONDS", 1.0)
    broker = FakeBroker(curve=curve)
    known = {"wrong": zmq.curve_keypair()[0], "its": broker.keys.public, None: None}[key]
    made = connect(broker.endpoint, known)
    try:
        line = f"the handshake with the broker at {broker.endpoint} fails: {reason}"
        assert problem_of(made.workers) == line
    finally:
        broker.stop()


def test_nobody_there_is_told_within_three_seconds(connect: Callable[..., BrokerConnection]) -> None:
    """With what to do."""
    made = connect("ipc:///nonexistent/broker", None)
    begun = time.monotonic()
    line = problem_of(made.workers)
    assert time.monotonic() - begun < 3.5
    assert line == "no broker answered at ipc:///nonexistent/broker within 2.5 s: start it, or correct endpoint"


def test_a_broker_that_says_nothing_is_told(broker: FakeBroker, connect: Callable[..., BrokerConnection]) -> None:
    """It is there, its connections stand, and it is stuck."""
    broker.answer = lambda _: []
    made = connect(broker.endpoint, broker.keys.public)
    line = problem_of(lambda: made.ask("show_workers", seconds=1.0))
    assert line == f"the broker at {broker.endpoint} doesn't answer: see whether it runs, and its log"
    assert made.is_up
    assert broker_link.ANSWER_SECONDS < 3


def test_a_broker_that_goes_away_is_told(broker: FakeBroker, connect: Callable[..., BrokerConnection]) -> None:
    """At once, not when the time is over; and what is sent then isn't kept for the next broker."""
    made = connect(broker.endpoint, broker.keys.public)
    assert made.workers() == ROWS
    broker.stop()
    line = f"the broker at {broker.endpoint} has gone away"
    assert problem_of(lambda: made.ask("show_workers", seconds=WAIT_SECONDS)) == line
    assert made.send([b"", b"x"]) is False
    assert (made.is_up, made.disconnects) == (False, 1)


def test_a_broker_that_comes_back_is_met_again(broker: FakeBroker, connect: Callable[..., BrokerConnection]) -> None:
    """The connection comes about by itself; a worker sees it in `handshakes`."""
    made = connect(broker.endpoint, broker.keys.public)
    assert made.workers() == ROWS
    broker.stop()
    again = FakeBroker(endpoint=broker.endpoint, keys=broker.keys)
    again.answer = rows
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while made.handshakes < 2:
            assert time.monotonic() < deadline
            made.wait(deadline)
        assert made.workers() == ROWS
        assert (made.handshakes, made.disconnects) == (2, 1)
    finally:
        again.stop()
